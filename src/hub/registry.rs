//! Who is here: a sharded map from user to the slots of the user's devices.

use std::{
    borrow::Borrow,
    cmp,
    collections::BTreeSet,
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

/// By user. What stands there knows whose it is.
type Users = HashTable<Devices>;

/// The slots of one user's devices, sorted; at least one. Most users have one, so that takes no memory of its own; some may have
/// very many.
enum Devices {
    One(Arc<Slot>),
    #[expect(clippy::box_collection, reason = "a set is three words, and most users have none")]
    Many(Box<BTreeSet<ByDevice>>),
}

/// A slot of a user, by its device; it has its key in it, which a map would hold once more.
struct ByDevice(Arc<Slot>);

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
        users.find(hash, is_of(&address.user))?.find(&address.device).cloned()
    }

    /// The slot of a device, made if there is none.
    pub(super) fn enter(&self, address: &Address, totals: &Totals, now: Millis) -> Arc<Slot> {
        let (hash, mut users) = self.users(&address.user);
        let user = users.entry(hash, is_of(&address.user), |devices| devices.user().map_or(0, |user| self.hash(user)));
        if let Entry::Occupied(known) = &user
            && let Some(slot) = known.get().find(&address.device)
        {
            return slot.clone();
        }
        let slot = Arc::new(Slot::new(address.clone(), fastrand::u64(..), now));
        match user {
            Entry::Vacant(user) => drop(user.insert(Devices::One(slot.clone()))),
            Entry::Occupied(mut user) => user.get_mut().insert(slot.clone()),
        }
        totals.mailboxes.fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// Lets go of exactly this slot; one that took its place stays.
    pub(super) fn remove(&self, slot: &Arc<Slot>, totals: &Totals) {
        let (hash, mut users) = self.users(&slot.address.user);
        let Ok(mut user) = users.find_entry(hash, is_of(&slot.address.user)) else { return };
        if !user.get().find(&slot.address.device).is_some_and(|found| Arc::ptr_eq(found, slot)) {
            return;
        }
        match user.get_mut() {
            Devices::One(_) => drop(user.remove()),
            devices @ Devices::Many(_) => devices.remove(&slot.address.device),
        }
        totals.mailboxes.fetch_sub(1, Ordering::Relaxed);
    }

    /// The slots of a user's devices, sorted.
    pub(super) fn of_user(&self, user: &UserId) -> Vec<Arc<Slot>> {
        let (hash, users) = self.users(user);
        users.find(hash, is_of(user)).into_iter().flat_map(Devices::iter).cloned().collect()
    }

    /// The slots of one shard, `number` below [`SHARDS`].
    pub(super) fn of_shard(&self, number: usize) -> Vec<Arc<Slot>> {
        self.shards[number].lock().iter().flat_map(Devices::iter).cloned().collect()
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

impl Devices {
    /// None only where there is no device, which is nowhere.
    fn user(&self) -> Option<&UserId> {
        let first = match self {
            Self::One(slot) => Some(slot),
            Self::Many(slots) => slots.first().map(|ByDevice(slot)| slot),
        };
        first.map(|slot| &slot.address.user)
    }

    fn find(&self, device: &DeviceId) -> Option<&Arc<Slot>> {
        match self {
            Self::One(slot) => Some(slot).filter(|slot| slot.address.device == *device),
            Self::Many(slots) => slots.get(device).map(|ByDevice(slot)| slot),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let (one, many) = match self {
            Self::One(slot) => (Some(slot), None),
            Self::Many(slots) => (None, Some(slots)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|slots| slots.iter()).map(|ByDevice(slot)| slot))
    }

    /// Adds the slot of a device that has none.
    fn insert(&mut self, slot: Arc<Slot>) {
        match self {
            Self::One(first) => {
                *self = Self::Many(Box::new(BTreeSet::from([ByDevice(first.clone()), ByDevice(slot)])));
            }
            Self::Many(slots) => drop(slots.insert(ByDevice(slot))),
        }
    }

    /// Takes away one of several.
    fn remove(&mut self, device: &DeviceId) {
        let Self::Many(slots) = self else { return };
        slots.remove(device);
        if let (1, Some(ByDevice(last))) = (slots.len(), slots.first()) {
            *self = Self::One(last.clone());
        }
    }
}

impl Borrow<DeviceId> for ByDevice {
    fn borrow(&self) -> &DeviceId {
        &self.0.address.device
    }
}

impl Ord for ByDevice {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.0.address.device.cmp(&other.0.address.device)
    }
}

impl PartialOrd for ByDevice {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByDevice {
    fn eq(&self, other: &Self) -> bool {
        self.0.address.device == other.0.address.device
    }
}

impl Eq for ByDevice {}

fn is_of(user: &UserId) -> impl Fn(&Devices) -> bool {
    move |devices| devices.user() == Some(user)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_device_of_a_user_has_one_slot_until_that_is_removed_and_they_are_sorted() {
        let (registry, totals, mut known, mut gone) = (Registry::new(), Totals::default(), BTreeMap::new(), None);
        let mut random = fastrand::Rng::with_seed(7);
        for step in 0..10_000 {
            // With few devices there is often one or none.
            let devices = if step < 5_000 { 3 } else { 40 };
            let address = Address::new("bob", &format!("phone {}", random.u8(..devices))).expect("ids");
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
