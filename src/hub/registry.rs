//! Who is here: a sharded map from user to the slots of the user's devices.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, atomic::Ordering},
};

use hashbrown::{HashTable, hash_table::Entry};
use parking_lot::{Mutex, MutexGuard};

use super::{
    pace::Millis,
    slot::{Slot, Totals},
};
use crate::model::{Address, UserId};

/// How many locks the map is spread over, so that senders to different users hardly ever meet.
pub(super) const SHARDS: usize = 64;

/// By user. A user has few devices, so they stand in a plain list, which is never empty and knows whose it is. Most lists have one
/// and stay as they are, so none has room for more.
type Users = HashTable<Box<[Arc<Slot>]>>;

pub(super) struct Registry {
    shards: Box<[Mutex<Users>]>,
    hasher: RandomState,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// The slot of a device, if there is one.
    pub(super) fn find(&self, address: &Address) -> Option<Arc<Slot>> {
        let (hash, users) = self.users(&address.user);
        of_device(users.find(hash, is_of(&address.user))?, address).cloned()
    }

    /// The slot of a device, made if there is none.
    pub(super) fn enter(&self, address: &Address, totals: &Totals, now: Millis) -> Arc<Slot> {
        let (hash, mut users) = self.users(&address.user);
        let user = users
            .entry(hash, is_of(&address.user), |slots| slots.first().map_or(0, |slot| self.hash(&slot.address.user)));
        if let Entry::Occupied(known) = &user
            && let Some(slot) = of_device(known.get(), address)
        {
            return slot.clone();
        }
        let slot = Arc::new(Slot::new(address.clone(), fastrand::u64(..), now));
        let mut user = user.or_insert_with(Box::default);
        edit(user.get_mut(), |slots| {
            slots.reserve_exact(1);
            slots.push(slot.clone());
        });
        totals.mailboxes.fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// Lets go of exactly this slot; one that took its place stays.
    pub(super) fn remove(&self, slot: &Arc<Slot>, totals: &Totals) {
        let (hash, mut users) = self.users(&slot.address.user);
        let Ok(mut user) = users.find_entry(hash, is_of(&slot.address.user)) else { return };
        let slots = user.get_mut();
        let Some(at) = slots.iter().position(|other| Arc::ptr_eq(other, slot)) else { return };
        edit(slots, |slots| drop(slots.swap_remove(at)));
        totals.mailboxes.fetch_sub(1, Ordering::Relaxed);
        if slots.is_empty() {
            user.remove();
        }
    }

    /// The slots of a user's devices.
    pub(super) fn of_user(&self, user: &UserId) -> Vec<Arc<Slot>> {
        let (hash, users) = self.users(user);
        users.find(hash, is_of(user)).map(|slots| slots.to_vec()).unwrap_or_default()
    }

    /// The slots of one shard, `number` below [`SHARDS`].
    pub(super) fn of_shard(&self, number: usize) -> Vec<Arc<Slot>> {
        self.shards[number].lock().iter().flatten().cloned().collect()
    }

    /// The table in which a user stands, and where. Tables are told apart by bits that a table does not look at: it takes the
    /// lowest and the highest ones.
    fn users(&self, user: &UserId) -> (u64, MutexGuard<'_, Users>) {
        let hash = self.hash(user);
        (hash, self.shards[(hash >> 32) as usize % SHARDS].lock())
    }

    fn hash(&self, user: &UserId) -> u64 {
        self.hasher.hash_one(user)
    }
}

/// Changes a list as a vector, and leaves it without room again.
fn edit(slots: &mut Box<[Arc<Slot>]>, change: impl FnOnce(&mut Vec<Arc<Slot>>)) {
    let mut list = std::mem::take(slots).into_vec();
    change(&mut list);
    *slots = list.into_boxed_slice();
}

fn is_of(user: &UserId) -> impl Fn(&Box<[Arc<Slot>]>) -> bool {
    move |slots| slots.first().is_some_and(|slot| slot.address.user == *user)
}

fn of_device<'a>(slots: &'a [Arc<Slot>], address: &Address) -> Option<&'a Arc<Slot>> {
    slots.iter().find(|slot| slot.address.device == address.device)
}
