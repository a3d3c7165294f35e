//! The registry: a sharded map from each user to the slots of the user's devices.

use std::{
    hash::BuildHasher as _,
    sync::{Arc, atomic::Ordering},
};

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use super::{
    mailbox::Mailbox,
    slot::{Slot, Totals},
    time::Millis,
    user_devices::{DeviceLimits, Devices, Purpose},
};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
};

/// The number of shards of the registry and of the presence. Each shard has a lock: with so many, senders to different users rarely
/// wait for each other. Both have the same number, so that a drain ends streams and watches in one walk.
pub(super) const SHARDS: usize = 64;

/// The devices of each user. A table instead of a map, because [`Devices`] has its key, the user, inside.
type Users = HashTable<Devices>;

/// A stranger cannot foresee the shard of a user.
#[cfg(not(test))]
pub(super) type UserHasher = std::hash::RandomState;

/// Never random: a seed of a simulation gives the same run each time.
#[cfg(test)]
pub(super) type UserHasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// The slot of a device, and the slot that was removed to make room for it.
pub(super) struct Found {
    pub(super) slot: Arc<Slot>,
    pub(super) pushed_out: Option<Arc<Slot>>,
}

pub(super) struct Registry {
    shards: Box<[Mutex<Users>]>,
    hasher: UserHasher,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: UserHasher::default() }
    }

    /// The slot of a device, if there is one.
    pub(super) fn find(&self, address: &TenantAddress) -> Option<Arc<Slot>> {
        let (hash, users) = self.users(&address.user);
        users.find(hash, is_of(&address.user))?.find(&address.device).cloned()
    }

    /// Finds the slot of a device, or makes one.
    ///
    /// # Errors
    /// [`Error::TooMany`] when the user has reached a limit of devices.
    pub(super) fn find_or_insert(
        &self,
        address: &TenantAddress,
        purpose: Purpose,
        limits: DeviceLimits,
        totals: &Totals,
        now: Millis,
    ) -> Result<Found, Error> {
        let (hash, mut users) = self.users(&address.user);
        let (mut pushed_out, mut has_lost) = (None, false);
        let mut known = users.find_mut(hash, is_of(&address.user));
        if let Some(devices) = &mut known {
            if let Some(slot) = devices.find(&address.device) {
                return Ok(Found { slot: slot.clone(), pushed_out });
            }
            // Must come before `admit`, which may forget the oldest of the devices that lost messages.
            has_lost = devices.has_lost(&address.device, now);
            pushed_out = devices.admit(purpose, limits, now)?;
            devices.forget_lost(&address.device);
            totals.mailboxes.fetch_sub(pushed_out.is_some().into(), Ordering::Relaxed);
        }
        let epoch = fastrand::u64(..);
        let mailbox = if has_lost { Mailbox::with_gap(epoch, now) } else { Mailbox::new(epoch, now) };
        totals.mailboxes.fetch_add(1, Ordering::Relaxed);
        totals.held_bytes.fetch_add(mailbox.held(), Ordering::Relaxed);
        let slot = Arc::new(Slot::new(address.clone(), mailbox, purpose, 0, now));
        if let Some(devices) = known {
            devices.insert(slot.clone());
        } else {
            self.insert_user(&mut users, hash, slot.clone());
        }
        Ok(Found { slot, pushed_out })
    }

    fn insert_user(&self, users: &mut Users, hash: u64, slot: Arc<Slot>) {
        let hash_of = |devices: &Devices| devices.user().map_or(0, |user| self.hash(user));
        users.insert_unique(hash, Devices::One(slot), hash_of);
    }

    /// Puts a slot into its place, and removes `instead_of` from there.
    ///
    /// # Errors
    /// The other slot that the device has.
    pub(super) fn put(
        &self,
        slot: &Arc<Slot>,
        instead_of: Option<&Arc<Slot>>,
        totals: &Totals,
    ) -> Result<(), Arc<Slot>> {
        let (hash, mut users) = self.users(&slot.address.user);
        let Some(devices) = users.find_mut(hash, is_of(&slot.address.user)) else {
            self.insert_user(&mut users, hash, slot.clone());
            totals.mailboxes.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        match devices.find(&slot.address.device).cloned() {
            None => {
                devices.insert(slot.clone());
                totals.mailboxes.fetch_add(1, Ordering::Relaxed);
            }
            Some(old) if instead_of.is_some_and(|known| Arc::ptr_eq(known, &old)) => devices.replace(&old, slot),
            Some(other) => return Err(other),
        }
        Ok(())
    }

    /// Moves a slot to the live or to the absent devices of its user, as [`Slot::is_live`] says.
    pub(super) fn index(&self, slot: &Arc<Slot>) {
        let (hash, mut users) = self.users(&slot.address.user);
        if let Some(devices) = users.find_mut(hash, is_of(&slot.address.user)) {
            devices.index(slot);
        }
    }

    /// Removes exactly this slot. A newer slot of the same device stays.
    pub(super) fn remove(&self, slot: &Arc<Slot>, totals: &Totals) {
        let (hash, mut users) = self.users(&slot.address.user);
        let Ok(mut user) = users.find_entry(hash, is_of(&slot.address.user)) else { return };
        let removed = user.get_mut().remove(slot);
        totals.mailboxes.fetch_sub(removed.into(), Ordering::Relaxed);
        if removed && user.get_mut().shrink() {
            user.remove();
        }
    }

    /// The slots of a user's devices that have a live stream, sorted.
    pub(super) fn live(&self, user: &TenantUser) -> Vec<Arc<Slot>> {
        let (hash, users) = self.users(user);
        users.find(hash, is_of(user)).into_iter().flat_map(Devices::live).cloned().collect()
    }

    /// The slots of all devices of a user.
    pub(super) fn of_user(&self, user: &TenantUser) -> Vec<Arc<Slot>> {
        let (hash, users) = self.users(user);
        users.find(hash, is_of(user)).into_iter().flat_map(Devices::iter).cloned().collect()
    }

    /// The slots of one shard, `number` below [`SHARDS`].
    pub(super) fn of_shard(&self, number: usize) -> Vec<Arc<Slot>> {
        self.shards[number].lock().iter().flat_map(Devices::iter).cloned().collect()
    }

    /// The hash of a user, and the table of the user's shard.
    fn users(&self, user: &TenantUser) -> (u64, MutexGuard<'_, Users>) {
        let hash = self.hash(user);
        (hash, self.shards[shard_of(hash)].lock())
    }

    fn hash(&self, user: &TenantUser) -> u64 {
        self.hasher.hash_one(user)
    }
}

/// The shard of a user with this hash. The middle bits of the hash choose it, because a table uses the lowest and the highest bits.
pub(super) fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

fn is_of(user: &TenantUser) -> impl Fn(&Devices) -> bool {
    move |devices| devices.user() == Some(user)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Address;

    const UNLIMITED: DeviceLimits = DeviceLimits { devices: 0, only_holding: 0, window_ms: 60_000 };

    fn address(device: &str) -> TenantAddress {
        TenantAddress::of(&Address::new("bob", device).expect("ids"))
    }

    #[test]
    fn each_device_of_a_user_has_one_slot_until_that_is_removed() {
        let (registry, totals) = (Registry::new(), Totals::default());
        let (mut known, mut gone) = (BTreeMap::new(), None);
        let mut random = fastrand::Rng::with_seed(7);
        for step in 0..10_000 {
            // With few devices, the user often has one or none.
            let devices = if step < 5_000 { 3 } else { 40 };
            let address = address(&format!("phone {}", random.u8(..devices)));
            let (found, before) = (registry.find(&address), known.get(&address.device));
            assert_eq!(found.as_ref().map(Arc::as_ptr), before.map(Arc::as_ptr));
            if random.bool() {
                let slot = registry.find_or_insert(&address, Purpose::Hold, UNLIMITED, &totals, Millis(0));
                let slot = slot.expect("no limit").slot;
                assert!(found.is_none_or(|found| Arc::ptr_eq(&found, &slot)));
                known.insert(address.device, slot);
            } else if let Some(slot) = known.remove(&address.device).or_else(|| gone.clone()) {
                // When the device has no slot, remove a slot that was removed before: nothing must happen.
                registry.remove(&slot, &totals);
                gone = Some(slot);
            }
            let mut slots: Vec<_> = (0..SHARDS).flat_map(|shard| registry.of_shard(shard)).collect();
            slots.sort_by_key(|slot| slot.address.device.clone());
            assert!(slots.iter().map(Arc::as_ptr).eq(known.values().map(Arc::as_ptr)));
            assert_eq!(totals.mailboxes.load(Ordering::Relaxed), known.len());
        }
    }

    #[test]
    fn a_stream_pushes_out_the_oldest_mailbox_that_only_holds() {
        for limit in [1, 2, 4] {
            let (registry, totals) = (Registry::new(), Totals::default());
            let limits = DeviceLimits { devices: limit, ..UNLIMITED };
            let insert = |device: &str, purpose, now| {
                registry.find_or_insert(&address(device), purpose, limits, &totals, Millis(now))
            };
            for number in 0..limit {
                insert(&number.to_string(), Purpose::Hold, 1_000 * number as u64).expect("room");
            }
            assert!(insert("more", Purpose::Hold, 9_000).is_err());
            let found = insert("phone", Purpose::Stream, 9_000).expect("it pushes one out");
            let pushed_out = found.pushed_out.expect("one").address.clone();
            assert_eq!((pushed_out.device.as_str(), registry.find(&pushed_out).is_none()), ("0", true));
            assert_eq!(totals.mailboxes.load(Ordering::Relaxed), limit);
        }
    }
}
