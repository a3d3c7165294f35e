//! Deadlines: what the timekeeper has to check, and when. Nothing in the hub runs at a fixed rate.
//!
//! Items are in buckets by the tick at which they are due. Each item remembers the tick of its valid entry. If the item becomes
//! due later, the entry stays, and the item is scheduled again when the entry comes up. If the item becomes due earlier, a second
//! entry is added, and the first one is ignored when it comes up.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{board::Board, expiry::Expiry, slot::Slot, time::Tick, watch::WaitingWatch};

/// How far ahead an entry may be, in milliseconds. An entry keeps its item alive, so a far entry would keep a removed mailbox in
/// memory until then. A deadline farther away is checked at this distance and scheduled again.
pub(super) const FARTHEST_MS: u64 = 120_000;

/// What is due in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadlineKind {
    /// The ping of its stream. Without a stream: when the mailbox may be removed.
    Stream,
    /// The oldest message that is kept for replay.
    Replay,
    /// The waiting message that expires first.
    Waiting,
}

impl DeadlineKind {
    pub(super) const ALL: [Self; 3] = [Self::Stream, Self::Replay, Self::Waiting];
}

/// Items by the tick at which they are due.
pub(super) struct Buckets<T>(Mutex<BTreeMap<Tick, Vec<T>>>);

impl<T> Default for Buckets<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Buckets<T> {
    fn insert(&self, tick: Tick, item: T) {
        self.0.lock().entry(tick).or_default().push(item);
    }

    /// The tick of the first bucket.
    fn first(&self) -> Option<Tick> {
        self.0.lock().first_key_value().map(|(tick, _)| *tick)
    }

    /// Takes at most `most` items out of the first bucket, if its tick is not after `until`.
    pub(super) fn take(&self, until: Tick, most: usize) -> Option<(Tick, Vec<T>)> {
        let mut buckets = self.0.lock();
        let mut first = buckets.first_entry().filter(|first| *first.key() <= until)?;
        let tick = *first.key();
        let items = first.get_mut();
        let taken = items.split_off(items.len().saturating_sub(most));
        if items.is_empty() {
            first.remove();
        }
        Some((tick, taken))
    }
}

/// The deadlines of everything in the hub.
#[derive(Default)]
pub(super) struct Deadlines {
    slots: [Buckets<Arc<Slot>>; DeadlineKind::ALL.len()],
    pub(super) boards: Buckets<Arc<Board>>,
    pub(super) watches: Buckets<WaitingWatch>,
    pub(super) expiries: Buckets<Expiry>,
    /// The tick until which the timekeeper sleeps.
    alarm: AtomicU32,
    earlier_entry: Notify,
}

impl Deadlines {
    pub(super) fn slots(&self, kind: DeadlineKind) -> &Buckets<Arc<Slot>> {
        &self.slots[kind as usize]
    }

    pub(super) fn schedule_slot(&self, kind: DeadlineKind, tick: Tick, slot: Arc<Slot>) {
        self.slots(kind).insert(tick, slot);
        self.wake_if_earlier(tick);
    }

    pub(super) fn schedule_board(&self, tick: Tick, board: Arc<Board>) {
        self.boards.insert(tick, board);
        self.wake_if_earlier(tick);
    }

    pub(super) fn schedule_watch(&self, tick: Tick, watch: WaitingWatch) {
        self.watches.insert(tick, watch);
        self.wake_if_earlier(tick);
    }

    pub(super) fn schedule_expiry(&self, tick: Tick, expiry: Expiry) {
        self.expiries.insert(tick, expiry);
        self.wake_if_earlier(tick);
    }

    /// Wakes the timekeeper if it would sleep past a tick.
    fn wake_if_earlier(&self, tick: Tick) {
        if tick.0.get() < self.alarm.load(Ordering::SeqCst) {
            self.earlier_entry.notify_one();
        }
    }

    /// Sets the alarm to the next deadline and returns it. From now on an entry that is earlier ends [`Deadlines::earlier_entry`].
    pub(super) fn set_alarm(&self) -> Option<Tick> {
        // Until the alarm is set, every new entry counts as earlier. Otherwise an entry inserted during the computation could be missed.
        self.alarm.store(u32::MAX, Ordering::SeqCst);
        let slots = self.slots.iter().filter_map(Buckets::first);
        let first = slots.chain(self.boards.first()).chain(self.watches.first()).chain(self.expiries.first()).min();
        self.alarm.store(first.unwrap_or(Tick::LAST).0.get(), Ordering::SeqCst);
        first
    }

    /// Waits for an entry that is earlier than the alarm.
    pub(super) async fn earlier_entry(&self) {
        self.earlier_entry.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_the_order_of_their_ticks_and_none_too_early() {
        let buckets = Buckets::default();
        for (tick, item) in [(3, 'd'), (1, 'a'), (2, 'b'), (2, 'c')] {
            buckets.insert(Tick::at_step(tick), item);
        }
        assert_eq!(buckets.first(), Some(Tick::at_step(1)));
        assert_eq!(buckets.take(Tick::at_step(0), 9), None);
        assert_eq!(buckets.take(Tick::at_step(2), 9), Some((Tick::at_step(1), vec!['a'])));
        assert_eq!(buckets.take(Tick::at_step(2), 1), Some((Tick::at_step(2), vec!['c'])));
        assert_eq!(buckets.take(Tick::at_step(2), 1), Some((Tick::at_step(2), vec!['b'])));
        assert_eq!(buckets.take(Tick::at_step(2), 9), None);
        assert_eq!(buckets.first(), Some(Tick::at_step(3)));
    }
}
