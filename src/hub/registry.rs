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
use crate::model::{Address, DeviceId, UserId};

/// How many locks the map is spread over, so that senders to different users hardly ever meet.
pub(super) const SHARDS: usize = 64;

/// By user. A user has few devices, so they stand in a plain list, which is never empty and knows whose it is. It is sorted, because
/// a user may have very many all the same. Most lists have one and stay as they are, so none has room for more.
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
        let slots = users.find(hash, is_of(&address.user))?;
        place(slots, &address.device).ok().map(|at| slots[at].clone())
    }

    /// The slot of a device, made if there is none.
    pub(super) fn enter(&self, address: &Address, totals: &Totals, now: Millis) -> Arc<Slot> {
        let (hash, mut users) = self.users(&address.user);
        let user = users
            .entry(hash, is_of(&address.user), |slots| slots.first().map_or(0, |slot| self.hash(&slot.address.user)));
        let at = match &user {
            Entry::Vacant(_) => 0,
            Entry::Occupied(known) => match place(known.get(), &address.device) {
                Ok(at) => return known.get()[at].clone(),
                Err(at) => at,
            },
        };
        let slot = Arc::new(Slot::new(address.clone(), fastrand::u64(..), now));
        let mut user = user.or_insert_with(Box::default);
        edit(user.get_mut(), |slots| {
            slots.reserve_exact(1);
            slots.insert(at, slot.clone());
        });
        totals.mailboxes.fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// Lets go of exactly this slot; one that took its place stays.
    pub(super) fn remove(&self, slot: &Arc<Slot>, totals: &Totals) {
        let (hash, mut users) = self.users(&slot.address.user);
        let Ok(mut user) = users.find_entry(hash, is_of(&slot.address.user)) else { return };
        let slots = user.get_mut();
        let Ok(at) = place(slots, &slot.address.device) else { return };
        if !Arc::ptr_eq(&slots[at], slot) {
            return;
        }
        edit(slots, |slots| drop(slots.remove(at)));
        totals.mailboxes.fetch_sub(1, Ordering::Relaxed);
        if slots.is_empty() {
            user.remove();
        }
    }

    /// The slots of a user's devices, sorted.
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

/// Where a device stands, or would stand.
fn place(slots: &[Arc<Slot>], device: &DeviceId) -> Result<usize, usize> {
    slots.binary_search_by(|slot| slot.address.device.cmp(device))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_device_of_a_user_has_one_slot_until_that_is_removed_and_they_are_sorted() {
        let (registry, totals, mut known, mut gone) = (Registry::new(), Totals::default(), BTreeMap::new(), None);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let address = Address::new("bob", &format!("phone {}", random.u8(..40))).expect("ids");
            let (found, before) = (registry.find(&address), known.get(&address.device));
            assert_eq!(found.as_ref().map(Arc::as_ptr), before.map(Arc::as_ptr));
            if random.bool() {
                let slot = registry.enter(&address, &totals, Millis(0));
                assert!(found.is_none_or(|found| Arc::ptr_eq(&found, &slot)));
                known.insert(address.device, slot);
            } else if let Some(slot) = known.remove(&address.device).or_else(|| gone.clone()) {
                // Where there was none, a late word about one that is gone already.
                registry.remove(&slot, &totals);
                gone = Some(slot);
            }
            let slots = registry.of_user(&UserId::new("bob").expect("an id"));
            assert!(slots.iter().map(Arc::as_ptr).eq(known.values().map(Arc::as_ptr)));
            assert_eq!(totals.mailboxes.load(Ordering::Relaxed), known.len());
        }
    }
}
