//! Who is online, for those who watch: one list as of an instant, then every change once, in order.
//!
//! Only watched users have a record here. A device that leaves stays on it for a moment, so that one that resumes has not left.
//! Changes are a short log and a watcher is a position in it; one that falls behind the log gets the whole list again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::atomic::{AtomicUsize, Ordering},
    task::Waker,
};

use parking_lot::Mutex;

use super::{
    pace::{Millis, Pace},
    slot::{Breaker, Slot},
};
use crate::model::{DeviceId, EndReason, UserId};

/// A device that comes back within this time has not left.
const GRACE_MS: u64 = 2_000;
/// Changes that a slow watcher may be behind before it gets the whole list again.
const CHANGES: usize = 256;

/// What a watcher sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// The whole list, sorted: first of all, and again for a watcher that fell behind.
    Devices(Vec<DeviceId>),
    /// This device came.
    Online(DeviceId),
    /// This device went.
    Offline(DeviceId),
    /// Nothing else happened for the length of a heartbeat.
    Ping,
    /// The last sighting: the server ends the stream.
    End(EndReason),
}

/// The users that somebody watches.
#[derive(Default)]
pub(super) struct Presence {
    /// How many watchers there are, so that nobody takes the lock for none.
    watchers: AtomicUsize,
    users: Mutex<HashMap<UserId, Watched>>,
}

#[derive(Default)]
struct Watched {
    present: BTreeSet<DeviceId>,
    left: BTreeMap<DeviceId, Millis>,
    changes: VecDeque<Sighting>,
    /// The number of the change after the last one.
    next: u64,
    watchers: HashMap<u64, Watcher>,
}

struct Watcher {
    /// The number of the change to see next; none before the list.
    position: Option<u64>,
    pace: Pace,
    waker: Option<Waker>,
    breaker: Option<Breaker>,
    ending: Option<EndReason>,
}

impl Presence {
    /// Begins to watch a user, under a number of the caller's choice. The caller notes the user's slots afterwards.
    pub(super) fn watch(&self, user: &UserId, number: u64, heartbeat_ms: u32, breaker: Option<Breaker>, now: Millis) {
        self.watchers.fetch_add(1, Ordering::AcqRel);
        let pace = Pace::new(heartbeat_ms, now);
        let watcher = Watcher { position: None, pace, waker: None, breaker, ending: None };
        self.users.lock().entry(user.clone()).or_default().watchers.insert(number, watcher);
    }

    /// Ends a watch and gives the reason if the server had ended it; the user's record goes with its last watcher.
    pub(super) fn forget(&self, user: &UserId, number: u64) -> Option<EndReason> {
        let mut users = self.users.lock();
        let watched = users.get_mut(user)?;
        let gone = watched.watchers.remove(&number);
        if gone.is_some() {
            self.watchers.fetch_sub(1, Ordering::AcqRel);
        }
        if watched.watchers.is_empty() {
            users.remove(user);
        }
        gone?.ending
    }

    /// A device may have come or gone. What counts is how it is now, so notes may come late and twice.
    pub(super) fn note(&self, slot: &Slot, now: Millis) {
        if self.watchers.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut users = self.users.lock();
        let Some(watched) = users.get_mut(&slot.address.user) else { return };
        let device = &slot.address.device;
        if !slot.is_live() {
            if watched.present.contains(device) {
                watched.left.entry(device.clone()).or_insert(now);
            }
        } else if watched.left.remove(device).is_none() && watched.present.insert(device.clone()) {
            watched.publish(Sighting::Online(device.clone()), now);
        }
    }

    /// The next thing for a watcher; keeps the waker when there is nothing yet.
    pub(super) fn next(&self, user: &UserId, number: u64, waker: &Waker, now: Millis) -> Option<Sighting> {
        let mut users = self.users.lock();
        users.get_mut(user)?.next(number, waker, now)
    }

    /// Looks at the clock: who has left for good, heartbeats, and watchers that do not read, whose breakers it gives.
    pub(super) fn tick(&self, stall_ms: u64, now: Millis) -> Vec<Breaker> {
        if self.watchers.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        self.users.lock().values_mut().flat_map(|watched| watched.tick(stall_ms, now)).collect()
    }

    /// Ends all watches.
    pub(super) fn end(&self, reason: EndReason, now: Millis) {
        for watched in self.users.lock().values_mut() {
            for watcher in watched.watchers.values_mut() {
                watcher.ending.get_or_insert(reason);
                watcher.owe(now);
            }
        }
    }
}

impl Watched {
    fn publish(&mut self, change: Sighting, now: Millis) {
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
        self.next += 1;
        for watcher in self.watchers.values_mut() {
            watcher.owe(now);
        }
    }

    fn next(&mut self, number: u64, waker: &Waker, now: Millis) -> Option<Sighting> {
        let oldest = self.next - self.changes.len() as u64;
        let watcher = self.watchers.get_mut(&number)?;
        let sighting = match watcher.position {
            Some(position) if position >= oldest => {
                let index = usize::try_from(position - oldest).unwrap_or(usize::MAX);
                let change = self.changes.get(index).cloned();
                watcher.position = Some(position + u64::from(change.is_some()));
                change
            }
            _ => {
                watcher.position = Some(self.next);
                Some(Sighting::Devices(self.present.iter().cloned().collect()))
            }
        };
        let sighting = sighting
            .or_else(|| watcher.ending.map(Sighting::End))
            .or_else(|| watcher.pace.take_ping(now).then_some(Sighting::Ping));
        if sighting.is_some() {
            watcher.pace.give(now, now);
        } else {
            watcher.pace.rest();
            watcher.waker = Some(waker.clone());
        }
        sighting
    }

    fn tick(&mut self, stall_ms: u64, now: Millis) -> Vec<Breaker> {
        let gone: Vec<_> =
            self.left.iter().filter(|(_, at)| now.since(**at) >= GRACE_MS).map(|(id, _)| id.clone()).collect();
        for device in gone {
            self.left.remove(&device);
            self.present.remove(&device);
            self.publish(Sighting::Offline(device), now);
        }
        let mut stalled = Vec::new();
        for watcher in self.watchers.values_mut() {
            if watcher.pace.is_stalled(stall_ms, now) {
                watcher.ending.get_or_insert(EndReason::Stalled);
                watcher.wake();
                stalled.extend(watcher.breaker.take());
            } else if watcher.pace.beat(now) {
                watcher.wake();
            }
        }
        stalled
    }
}

impl Watcher {
    fn owe(&mut self, now: Millis) {
        self.pace.owe(now);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
