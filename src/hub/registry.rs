//! Who is here: a sharded map from user to the slots of the user's devices.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;

use super::{
    pace::Millis,
    slot::{Slot, Totals},
};
use crate::model::{Address, UserId};

/// How many locks the map is spread over, so that senders to different users hardly ever meet.
pub(super) const SHARDS: usize = 64;

/// A user has few devices, so they stand in a plain list.
type Users = HashMap<UserId, Vec<Arc<Slot>>>;

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
        let users = self.shard(&address.user).lock();
        users.get(&address.user)?.iter().find(|slot| slot.address.device == address.device).cloned()
    }

    /// The slot of a device, made if there is none.
    pub(super) fn enter(&self, address: &Address, totals: &Totals, now: Millis) -> Arc<Slot> {
        let mut users = self.shard(&address.user).lock();
        let slots = users.entry(address.user.clone()).or_insert_with(|| Vec::with_capacity(1));
        if let Some(slot) = slots.iter().find(|slot| slot.address.device == address.device) {
            return slot.clone();
        }
        let slot = Arc::new(Slot::new(address.clone(), fastrand::u64(..), now));
        slots.push(slot.clone());
        totals.mailboxes.fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// Lets go of exactly this slot; one that took its place stays.
    pub(super) fn remove(&self, slot: &Arc<Slot>, totals: &Totals) {
        let user = &slot.address.user;
        let mut users = self.shard(user).lock();
        let Some(slots) = users.get_mut(user) else { return };
        let Some(at) = slots.iter().position(|other| Arc::ptr_eq(other, slot)) else { return };
        slots.swap_remove(at);
        totals.mailboxes.fetch_sub(1, Ordering::Relaxed);
        if slots.is_empty() {
            users.remove(user);
        }
    }

    /// The slots of a user's devices.
    pub(super) fn of_user(&self, user: &UserId) -> Vec<Arc<Slot>> {
        self.shard(user).lock().get(user).cloned().unwrap_or_default()
    }

    /// The slots of one shard, `number` below [`SHARDS`].
    pub(super) fn of_shard(&self, number: usize) -> Vec<Arc<Slot>> {
        self.shards[number].lock().values().flatten().cloned().collect()
    }

    fn shard(&self, user: &UserId) -> &Mutex<Users> {
        let hash = self.hasher.hash_one(user);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or_default()]
    }
}
