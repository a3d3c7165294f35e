//! The published list of one watched user's online devices, and which devices changed since it was published.
//!
//! A device that comes or goes is marked as changed. Later the timekeeper checks which of these devices are online then, and publishes
//! all differences from the list as one batch. A quiet board publishes at once, a busy one every [`PUBLISH_MS`]. A device that
//! leaves stays on the list for [`GRACE_MS`], so that a device that reconnects does not go offline and online again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, OnceLock},
    task::Waker,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    deadlines::Deadlines,
    time::{Millis, Tick},
};
use crate::{
    auth::TenantUser,
    model::{DeviceId, EndReason},
};

/// How long a device that left stays on the list, in milliseconds.
const GRACE_MS: u64 = 2_000;
/// The shortest time between two publications, in milliseconds. A device that comes and goes between them is not reported.
const PUBLISH_MS: u64 = 250;
/// How many changes a watcher may be behind. A watcher that is further behind gets the whole list again.
const CHANGES: usize = 256;

/// One change of a user's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The device came, or began a new page: what a peer had negotiated with the page before is gone.
    Online(DeviceId),
    /// The device went.
    Offline(DeviceId),
}

/// Changes that were published together. Each of their two texts is made once and shared by all streams.
#[derive(Debug)]
pub struct Changes {
    changes: Vec<Change>,
    texts: [OnceLock<Bytes>; 2],
}

/// Identifies the page that reads a device's live stream: the epoch of the mailbox, and the number of the page in that mailbox.
type Page = (u64, u32);

/// The board of one watched user.
pub(super) struct Board {
    pub(super) user: TenantUser,
    state: Mutex<State>,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct State {
    /// The online devices as last published.
    present: BTreeMap<DeviceId, Page>,
    /// `fill` has run: the devices that were live when the first watcher came are in `present`.
    filled: bool,
    /// Devices that came or went since the last check, with the time of the last change.
    changed: BTreeMap<DeviceId, Millis>,
    /// A device came or went since the last check began.
    changed_since_check: bool,
    /// A check is in progress.
    checking: bool,
    checked_at: Option<Millis>,
    /// The number of finished checks.
    checks: u64,
    /// The last batches: at most [`CHANGES`] changes, or one larger batch.
    batches: VecDeque<Arc<Changes>>,
    /// The number of changes in `batches`.
    kept_changes: usize,
    /// The number of batches that were ever published.
    published: u64,
    /// When the board is scheduled to be checked. `None`: it is not.
    scheduled_at: Option<Tick>,
    /// The wakers of watches that wait, by the id of the watch.
    wakers: HashMap<u64, Waker>,
    /// A new watcher waits for the next check, which completes its first list.
    list_wanted: bool,
    ending: Option<EndReason>,
}

/// What a watcher has got so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing.
    New,
    /// Nothing yet: this many checks had finished when the watcher asked, and its first list waits for one more.
    Waiting(u64),
    /// The list, up to and including the batch with this number.
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
    pub(super) fn new(user: TenantUser) -> Self {
        Self { user, state: Mutex::default() }
    }

    /// Fills the list for the first watcher with the devices that `live` finds. Also marks each device: one that leaves while `live`
    /// runs is then found at the next check.
    pub(super) fn fill(&self, now: Millis, live: impl FnOnce() -> Vec<(DeviceId, Page)>) {
        if self.state.lock().filled {
            return;
        }
        let live = live();
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.filled, true) {
            for (device, page) in live {
                state.changed.entry(device.clone()).or_insert(now);
                // If a check ran since `live` was called, its result is newer and stays.
                state.present.entry(device).or_insert(page);
            }
        }
    }

    /// Notes that a device came or went.
    pub(super) fn mark(&self, device: &DeviceId, now: Millis) {
        let mut state = self.state.lock();
        state.changed_since_check = true;
        state.changed.insert(device.clone(), now);
    }

    /// Schedules the next check if a device is marked as changed.
    pub(super) fn schedule(self: &Arc<Self>, deadlines: &Deadlines, now: Millis) {
        let mut state = self.state.lock();
        let next = if state.changed_since_check {
            Some(state.checked_at.map_or(now, |at| at.after(PUBLISH_MS)).max(now))
        } else {
            state.changed.values().min().map(|at| at.after(GRACE_MS))
        };
        let Some(tick) = next.map(Tick::not_before).filter(|tick| state.scheduled_at.is_none_or(|at| *tick < at))
        else {
            return;
        };
        state.scheduled_at = Some(tick);
        drop(state);
        deadlines.schedule_board(tick, self.clone());
    }

    /// Checks the changed devices and publishes the differences from the list. Returns the wakers of waiting watches. Does nothing
    /// if the entry is outdated: the board is not scheduled for `tick`. `page` finds the page of a device that is online.
    pub(super) fn check(&self, tick: Tick, now: Millis, page: impl Fn(&DeviceId) -> Option<Page>) -> Vec<Waker> {
        let mut state = self.state.lock();
        if state.scheduled_at != Some(tick) {
            return Vec::new();
        }
        (state.scheduled_at, state.changed_since_check, state.checking) = (None, false, true);
        let changed = std::mem::take(&mut state.changed);
        drop(state);
        // The lock of the board was released, because `page` takes locks of the registry.
        let checked: Vec<_> = changed.into_iter().map(|(device, at)| (page(&device), device, at)).collect();
        self.state.lock().apply(checked, now)
    }

    /// Gives a watcher its next item, or stores its waker. `heeds_end`: whether the end of this board ends the watch.
    pub(super) fn next(&self, progress: &mut Progress, id: u64, waker: &Waker, heeds_end: bool) -> BoardItem {
        let mut state = self.state.lock();
        match *progress {
            Progress::AfterBatch(seen) if seen == state.published => {}
            Progress::AfterBatch(seen) => {
                let behind = usize::try_from(state.published - seen).unwrap_or(usize::MAX);
                let Some(at) = state.batches.len().checked_sub(behind) else { return state.list(progress) };
                *progress = Progress::AfterBatch(seen + 1);
                return BoardItem::Changes(state.batches[at].clone());
            }
            // The first list waits for the check of changed devices, so that it has devices that came just before the watch.
            Progress::New if state.changed_since_check || state.checking => {
                *progress = Progress::Waiting(state.checks);
                state.list_wanted = true;
            }
            Progress::Waiting(since) if since == state.checks && state.ending.is_none() => {}
            Progress::New | Progress::Waiting(_) => return state.list(progress),
        }
        state.end_or_wait(id, waker, heeds_end)
    }

    /// As [`Board::next`] for a watcher that wants no changes yet.
    pub(super) fn end_or_wait(&self, id: u64, waker: &Waker, heeds_end: bool) -> BoardItem {
        self.state.lock().end_or_wait(id, waker, heeds_end)
    }

    /// Why the server has ended all watches of this user, if it has.
    pub(super) fn ending(&self) -> Option<EndReason> {
        self.state.lock().ending
    }

    /// Takes the waker of a watch, to wake the watch or to forget it.
    pub(super) fn take_waker(&self, id: u64) -> Option<Waker> {
        self.state.lock().wakers.remove(&id)
    }

    /// Ends all watches. Returns their wakers.
    pub(super) fn end(&self, reason: EndReason) -> Vec<Waker> {
        let mut state = self.state.lock();
        state.ending.get_or_insert(reason);
        state.take_wakers()
    }
}

impl State {
    fn end_or_wait(&mut self, id: u64, waker: &Waker, heeds_end: bool) -> BoardItem {
        if let Some(reason) = self.ending.filter(|_| heeds_end) {
            return BoardItem::End(reason);
        }
        self.wakers.insert(id, waker.clone());
        BoardItem::Wait
    }

    /// Publishes the differences from the list. Returns the wakers of waiting watches.
    fn apply(&mut self, checked: Vec<(Option<Page>, DeviceId, Millis)>, now: Millis) -> Vec<Waker> {
        let mut changes = Vec::new();
        for (page, device, at) in checked {
            match page {
                Some(page) => {
                    if self.present.insert(device.clone(), page) != Some(page) {
                        changes.push(Change::Online(device));
                    }
                }
                None if !self.present.contains_key(&device) => {}
                None if now.since(at) >= GRACE_MS => {
                    self.present.remove(&device);
                    changes.push(Change::Offline(device));
                }
                // The device may still come back, so it stays marked. If it was marked again meanwhile, that mark is newer and stays.
                None => drop(self.changed.entry(device).or_insert(at)),
            }
        }
        (self.checked_at, self.checking) = (Some(now), false);
        self.checks += 1;
        let list_wanted = std::mem::take(&mut self.list_wanted);
        if changes.is_empty() {
            return if list_wanted { self.take_wakers() } else { Vec::new() };
        }
        self.kept_changes += changes.len();
        self.batches.push_back(Arc::new(Changes { changes, texts: Default::default() }));
        self.published += 1;
        while self.kept_changes > CHANGES && self.batches.len() > 1 {
            self.kept_changes -= self.batches.pop_front().map_or(0, |batch| batch.changes.len());
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
    /// The changes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// The text of all changes, as it is for a watch of one user, or with the name of the user in each event. The first stream makes
    /// the text and all others share it.
    pub fn text(&self, with_user: bool, make: impl FnOnce(&[Change]) -> String) -> Bytes {
        self.texts[usize::from(with_user)].get_or_init(|| make(&self.changes).into()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::TenantAddress, model::Address};

    /// Publishes that devices have come online.
    fn publish(board: &Arc<Board>, deadlines: &Deadlines, devices: std::ops::Range<u64>) {
        let now = Millis(1_000 * devices.start);
        for device in devices {
            board.mark(&DeviceId::new(&device.to_string()).expect("an id"), now);
        }
        board.schedule(deadlines, now);
        let (tick, _) = deadlines.boards.take(Tick::LAST, 1).expect("it is scheduled");
        board.check(tick, now, |_| Some((1, 1)));
    }

    /// What a watcher gets, with its size.
    #[derive(Debug, PartialEq, Eq)]
    enum Got {
        List(usize),
        Batch(usize),
    }

    fn read_all(board: &Board, progress: &mut Progress) -> Vec<Got> {
        let mut got = Vec::new();
        loop {
            match board.next(progress, 1, Waker::noop(), true) {
                BoardItem::List(devices) => got.push(Got::List(devices.len())),
                BoardItem::Changes(changes) => got.push(Got::Batch(changes.iter().count())),
                BoardItem::End(_) | BoardItem::Wait => return got,
            }
        }
    }

    #[test]
    fn a_watcher_that_is_too_many_changes_behind_gets_the_list_again() {
        let (board, deadlines) = (
            Arc::new(Board::new(TenantAddress::of(&Address::new("bob", "phone").expect("ids")).user)),
            Deadlines::default(),
        );
        board.fill(Millis(0), Vec::new);
        let mut slow = Progress::New;
        assert_eq!(read_all(&board, &mut slow), [Got::List(0)]);
        publish(&board, &deadlines, 0..200);
        publish(&board, &deadlines, 200..256);
        let mut fast = slow;
        assert_eq!(read_all(&board, &mut fast), [Got::Batch(200), Got::Batch(56)]);
        publish(&board, &deadlines, 256..257);
        assert_eq!(read_all(&board, &mut slow), [Got::List(257)]);
        assert_eq!(read_all(&board, &mut fast), [Got::Batch(1)]);
        // A batch that is larger than the limit is kept alone.
        publish(&board, &deadlines, 257..557);
        assert_eq!(read_all(&board, &mut slow), [Got::Batch(300)]);
        for first in [557, 657, 757] {
            publish(&board, &deadlines, first..first + 100);
        }
        assert_eq!(read_all(&board, &mut fast), [Got::List(857)]);
        assert_eq!(read_all(&board, &mut slow), [Got::List(857)]);
        publish(&board, &deadlines, 857..858);
        publish(&board, &deadlines, 858..859);
        assert_eq!(
            read_all(&board, &mut slow),
            [Got::Batch(1), Got::Batch(1)],
            "changes that were dropped no longer count against the limit"
        );
    }
}
