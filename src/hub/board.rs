//! The online devices of one watched user: the list as last published, and the devices that changed since.
//!
//! A change of liveness marks the device. Some time later the timekeeper looks at the marked devices as they are then, and
//! publishes the net change as one batch. A board that was quiet publishes at once, a busy one a few times a second. A device that
//! leaves stays on the board for a moment, so that one that resumes has not left.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, OnceLock},
    task::Waker,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    deadlines::{Deadlines, Tick},
    liveness::Millis,
};
use crate::model::{DeviceId, EndReason, UserId};

/// A device that comes back within this time has not left, in milliseconds.
const GRACE_MS: u64 = 2_000;
/// The least time between two publications, in milliseconds. A device that comes and goes within it is not reported.
const PUBLISH_MS: u64 = 250;
/// Changes that a watcher may be behind before it gets the whole list again.
const CHANGES: usize = 256;

/// One change of a user's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This device came.
    Online(DeviceId),
    /// This device went.
    Offline(DeviceId),
}

/// Changes that were published together. Their text for a format is made once, however many streams it goes to.
#[derive(Debug)]
pub struct Changes {
    changes: Vec<Change>,
    text: OnceLock<Bytes>,
}

/// The epoch and the page of a live stream: a device with another one began anew, also between two looks.
type Page = (u64, u32);

/// What is known of one watched user.
pub(super) struct Board {
    pub(super) user: UserId,
    state: Mutex<State>,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct State {
    /// As published.
    present: BTreeMap<DeviceId, Page>,
    /// `present` was filled with the devices that were live when the first watcher came.
    filled: bool,
    /// Devices that came or went since they were looked at, with the time of the last change.
    marked: BTreeMap<DeviceId, Millis>,
    /// A mark has come since the last look.
    fresh: bool,
    /// Marked devices are being looked at.
    checking: bool,
    checked_at: Option<Millis>,
    /// How often marked devices were looked at.
    checks: u64,
    /// The last batches, up to [`CHANGES`] changes or one batch.
    batches: VecDeque<Arc<Changes>>,
    /// How many changes `batches` has.
    kept: usize,
    /// How many batches there were.
    published: u64,
    /// The tick at which the board stands in the buckets.
    scheduled_at: Option<Tick>,
    /// Those who wait for something new, by the number of their watch.
    wakers: HashMap<u64, Waker>,
    /// Somebody waits for the next look.
    list_wanted: bool,
    ending: Option<EndReason>,
}

/// How far a watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has seen nothing yet.
    New,
    /// It waits for its first list, since so many looks.
    Waiting(u64),
    /// It has seen the list with so many batches.
    AfterBatch(u64),
}

/// What a watcher gets next.
pub(super) enum BoardItem {
    /// The whole list.
    List(Vec<DeviceId>),
    /// The next batch.
    Changes(Arc<Changes>),
    /// The server ends the watch.
    End(EndReason),
    /// Nothing yet.
    Wait,
}

impl Board {
    pub(super) fn new(user: UserId) -> Self {
        Self { user, state: Mutex::default() }
    }

    /// The first watcher brings the devices that are live. Each is marked, so that one that left in this moment is looked at again.
    pub(super) fn fill(&self, now: Millis, live: impl FnOnce() -> Vec<(DeviceId, Page)>) {
        if self.state.lock().filled {
            return;
        }
        let live = live();
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.filled, true) {
            for (device, page) in live {
                state.marked.entry(device.clone()).or_insert(now);
                // A look that came first knows better.
                state.present.entry(device).or_insert(page);
            }
        }
    }

    pub(super) fn mark(&self, device: &DeviceId, now: Millis) {
        let mut state = self.state.lock();
        state.fresh = true;
        state.marked.insert(device.clone(), now);
    }

    /// Enters the buckets for the next publication, if there is something to look at.
    pub(super) fn schedule(self: &Arc<Self>, deadlines: &Deadlines, now: Millis) {
        let mut state = self.state.lock();
        let next = if state.fresh {
            Some(state.checked_at.map_or(now, |at| at.after(PUBLISH_MS)).max(now))
        } else {
            state.marked.values().min().map(|at| at.after(GRACE_MS))
        };
        let Some(tick) = next.map(Tick::not_before).filter(|tick| state.scheduled_at.is_none_or(|at| *tick < at))
        else {
            return;
        };
        state.scheduled_at = Some(tick);
        drop(state);
        deadlines.schedule_board(tick, self.clone());
    }

    /// Publishes the net change and gives the wakers of those who wait for it. Ignores a stale entry of the buckets. `page` tells how a
    /// device is now.
    pub(super) fn check(&self, tick: Tick, now: Millis, page: impl Fn(&DeviceId) -> Option<Page>) -> Vec<Waker> {
        let mut state = self.state.lock();
        if state.scheduled_at != Some(tick) {
            return Vec::new();
        }
        (state.scheduled_at, state.fresh, state.checking) = (None, false, true);
        let marked = std::mem::take(&mut state.marked);
        drop(state);
        // The registry has locks of its own.
        let seen: Vec<_> = marked.into_iter().map(|(device, at)| (page(&device), device, at)).collect();
        self.state.lock().apply(seen, now)
    }

    /// What a watcher gets next; keeps its waker when there is nothing yet.
    pub(super) fn next(&self, progress: &mut Progress, number: u64, waker: &Waker) -> BoardItem {
        let mut state = self.state.lock();
        match *progress {
            Progress::AfterBatch(seen) if seen == state.published => {}
            Progress::AfterBatch(seen) => {
                let behind = usize::try_from(state.published - seen).unwrap_or(usize::MAX);
                let Some(at) = state.batches.len().checked_sub(behind) else { return state.list(progress) };
                *progress = Progress::AfterBatch(seen + 1);
                return BoardItem::Changes(state.batches[at].clone());
            }
            // The first list includes devices that came just before the watch, so it waits until marks are looked at.
            Progress::New if state.fresh || state.checking => {
                *progress = Progress::Waiting(state.checks);
                state.list_wanted = true;
            }
            Progress::Waiting(since) if since == state.checks && state.ending.is_none() => {}
            Progress::New | Progress::Waiting(_) => return state.list(progress),
        }
        if let Some(reason) = state.ending {
            return BoardItem::End(reason);
        }
        state.wakers.insert(number, waker.clone());
        BoardItem::Wait
    }

    /// Why the server has ended all watches of this user.
    pub(super) fn ending(&self) -> Option<EndReason> {
        self.state.lock().ending
    }

    /// The waker of a watcher that waits.
    pub(super) fn take_waker(&self, number: u64) -> Option<Waker> {
        self.state.lock().wakers.remove(&number)
    }

    /// Ends all watches; gives those to wake.
    pub(super) fn end(&self, reason: EndReason) -> Vec<Waker> {
        let mut state = self.state.lock();
        state.ending.get_or_insert(reason);
        state.take_wakers()
    }
}

impl State {
    /// Publishes the net change of some devices; gives those to wake.
    fn apply(&mut self, seen: Vec<(Option<Page>, DeviceId, Millis)>, now: Millis) -> Vec<Waker> {
        let mut changes = Vec::new();
        for (page, device, at) in seen {
            match page {
                Some(page) => {
                    if self.present.insert(device.clone(), page).is_none() {
                        changes.push(Change::Online(device));
                    }
                }
                None if !self.present.contains_key(&device) => {}
                None if now.since(at) >= GRACE_MS => {
                    self.present.remove(&device);
                    changes.push(Change::Offline(device));
                }
                // It may come back in time. A mark that came meanwhile is newer.
                None => drop(self.marked.entry(device).or_insert(at)),
            }
        }
        (self.checked_at, self.checking) = (Some(now), false);
        self.checks += 1;
        let list_wanted = std::mem::take(&mut self.list_wanted);
        if changes.is_empty() {
            return if list_wanted { self.take_wakers() } else { Vec::new() };
        }
        self.kept += changes.len();
        self.batches.push_back(Arc::new(Changes { changes, text: OnceLock::new() }));
        self.published += 1;
        while self.kept > CHANGES && self.batches.len() > 1 {
            self.kept -= self.batches.pop_front().map_or(0, |batch| batch.changes.len());
        }
        self.take_wakers()
    }

    fn list(&self, progress: &mut Progress) -> BoardItem {
        *progress = Progress::AfterBatch(self.published);
        BoardItem::List(self.present.keys().cloned().collect())
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers).into_values().collect()
    }
}

impl Changes {
    /// One by one, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// The text of all of them. The first stream makes it and all others share it.
    pub fn text(&self, make: impl FnOnce(&[Change]) -> String) -> Bytes {
        self.text.get_or_init(|| make(&self.changes).into()).clone()
    }
}
