//! The devices of one user: which of them are live, and how many there may be.

use std::{
    borrow::Borrow,
    cmp,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use super::{slot::Slot, time::Millis};
use crate::{
    auth::TenantUser,
    error::{Error, Limit},
    model::DeviceId,
};

/// The slots of one user's devices; at least one. Most users have one device, which needs no set. Some may have very many.
pub(super) enum Devices {
    One(Arc<Slot>),
    Many(Box<Many>),
}

/// Each slot is in one of two sets, so that lists, watches and broadcasts never walk over devices without a stream.
#[derive(Default)]
pub(super) struct Many {
    live: BTreeSet<ByDevice>,
    absent: BTreeSet<ByDevice>,
    /// Devices that were pushed out with held messages, and the time until which the next stream of each is told `broken`.
    lost: VecDeque<(DeviceId, Millis)>,
}

/// A slot, ordered by its device. The key is inside the slot, and a map would store it again.
struct ByDevice(Arc<Slot>);

/// Why a mailbox is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For a stream. If the user has too many mailboxes, the oldest that only holds messages is pushed out.
    Stream,
    /// For a message to hold. If the user has too many mailboxes, the message is refused.
    Hold,
}

/// The limits of one user's mailboxes. 0: no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceLimits {
    pub(super) devices: usize,
    /// Mailboxes that only hold messages.
    pub(super) only_holding: usize,
    /// How long a device that lost held messages is remembered, in milliseconds.
    pub(super) window_ms: u64,
}

impl DeviceLimits {
    /// How many devices a user may have on all nodes when another one is to hold messages. 0: any number.
    pub(super) fn to_hold(self) -> usize {
        match (self.devices, self.only_holding) {
            (0, limit) | (limit, 0) => limit,
            (devices, only_holding) => devices.min(only_holding),
        }
    }
}

impl Devices {
    /// The user of all these devices. Never `None`: there is always at least one device.
    pub(super) fn user(&self) -> Option<&TenantUser> {
        self.iter().next().map(|slot| &slot.address.user)
    }

    pub(super) fn find(&self, device: &DeviceId) -> Option<&Arc<Slot>> {
        match self {
            Self::One(slot) => Some(slot).filter(|slot| slot.address.device == *device),
            Self::Many(many) => many.live.get(device).or_else(|| many.absent.get(device)).map(|ByDevice(slot)| slot),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let (one, many) = match self {
            Self::One(slot) => (Some(slot), None),
            Self::Many(many) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|many| many.iter()))
    }

    /// The slots with a live stream, sorted by device.
    pub(super) fn live(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let (one, many) = match self {
            Self::One(slot) => (Some(slot).filter(|slot| slot.is_live()), None),
            Self::Many(many) => (None, Some(&many.live)),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|ByDevice(slot)| slot))
    }

    /// Adds the slot of a device that has none.
    pub(super) fn insert(&mut self, slot: Arc<Slot>) {
        self.many().insert(slot);
    }

    /// Puts a slot in the place of another slot of its device, which is here.
    pub(super) fn replace(&mut self, old: &Arc<Slot>, slot: &Arc<Slot>) {
        match self {
            Self::One(one) => one.clone_from(slot),
            Self::Many(many) => {
                many.remove(old);
                many.insert(slot.clone());
            }
        }
    }

    /// Moves a slot to the live or to the absent devices, as [`Slot::is_live`] says.
    pub(super) fn index(&mut self, slot: &Arc<Slot>) {
        if let Self::Many(many) = self
            && many.remove(slot)
        {
            many.insert(slot.clone());
        }
    }

    /// Removes this slot, and no newer slot of the same device. Returns whether it was there. A last single slot stays here:
    /// [`Devices::shrink`] tells the caller to remove the user.
    pub(super) fn remove(&mut self, slot: &Arc<Slot>) -> bool {
        match self {
            Self::One(one) => Arc::ptr_eq(one, slot),
            Self::Many(many) => many.remove(slot),
        }
    }

    /// The sets. Makes them first if there is only one slot.
    fn many(&mut self) -> &mut Many {
        if let Self::One(slot) = self {
            let slot = slot.clone();
            *self = Self::Many(Box::default());
            self.many().insert(slot);
        }
        match self {
            Self::Many(many) => many,
            Self::One(_) => unreachable!("the sets were made above"),
        }
    }

    /// Checks the limits for one more device. Removes and returns the slot that has to make way.
    pub(super) fn admit(
        &mut self,
        purpose: Purpose,
        limits: DeviceLimits,
        now: Millis,
    ) -> Result<Option<Arc<Slot>>, Error> {
        let holding = || self.iter().filter(|slot| slot.only_holds());
        let full = limits.devices > 0 && self.count() >= limits.devices;
        match purpose {
            Purpose::Hold if full => Err(FULL),
            Purpose::Hold if limits.only_holding > 0 && holding().count() >= limits.only_holding => {
                Err(Error::too_many(Limit::UserHeldDevices))
            }
            Purpose::Stream if full => {
                let oldest = holding().min_by_key(|slot| slot.made).cloned().ok_or(FULL)?;
                let many = self.many();
                many.remove(&oldest);
                many.lost.retain(|(_, until)| *until > now);
                if many.lost.len() >= limits.only_holding.max(LOST) {
                    many.lost.pop_front();
                }
                many.lost.push_back((oldest.address.device.clone(), now.after(limits.window_ms)));
                Ok(Some(oldest))
            }
            _ => Ok(None),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(many) => many.live.len() + many.absent.len(),
        }
    }

    /// Whether a device was pushed out with held messages, and its next stream has to be told.
    pub(super) fn has_lost(&self, device: &DeviceId, now: Millis) -> bool {
        let Self::Many(many) = self else { return false };
        many.lost.iter().any(|(lost, until)| lost == device && *until > now)
    }

    /// Forgets that a device lost messages, because its new mailbox says so.
    pub(super) fn forget_lost(&mut self, device: &DeviceId) {
        if let Self::Many(many) = self {
            many.lost.retain(|(lost, _)| lost != device);
        }
    }

    /// Frees the sets if they are no longer needed, after a device was removed. Says whether no device is left.
    pub(super) fn shrink(&mut self) -> bool {
        let count = self.count();
        let Self::Many(many) = self else { return true };
        let nothing_lost = many.lost.is_empty();
        let first = many.iter().next().cloned();
        if let Some(last) = first.filter(|_| count == 1 && nothing_lost) {
            *self = Self::One(last);
        }
        count == 0
    }
}

impl Many {
    fn iter(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.live.iter().chain(&self.absent).map(|ByDevice(slot)| slot)
    }

    /// Adds the slot of a device that has none.
    fn insert(&mut self, slot: Arc<Slot>) {
        if slot.is_live() {
            self.live.insert(ByDevice(slot));
        } else {
            self.absent.insert(ByDevice(slot));
        }
    }

    /// Removes exactly this slot. Says whether it was there.
    fn remove(&mut self, slot: &Arc<Slot>) -> bool {
        let device = &slot.address.device;
        [&mut self.live, &mut self.absent].into_iter().any(|set| {
            let found = set.get(device).is_some_and(|ByDevice(found)| Arc::ptr_eq(found, slot));
            found && set.remove(device)
        })
    }
}

/// The hub remembers this many devices of one user that lost held messages, or as many as may hold messages if that is more.
const LOST: usize = 64;

const FULL: Error = Error::too_many(Limit::UserDevices);

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
