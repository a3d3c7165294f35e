//! A mailbox on its way to another node: what it holds, with ages instead of points in time. Plain data.

use super::log::ENTRY_BYTES;
use crate::model::{Message, Outcome};

/// A mailbox that left its node. Whoever has the higher term of its device may open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The random number of the mailbox, which its cursors carry.
    pub epoch: u64,
    /// The number of the newest page. 0: no stream was ever attached.
    pub newest_page: u32,
    /// The page of the newest stream.
    pub page: u32,
    /// The number of the newest stream.
    pub generation: u32,
    /// The highest number that any message got.
    pub last: u64,
    /// The highest number that was ever given to a stream.
    pub handed_over: u64,
    /// The highest number of a message that is missing.
    pub last_missing: u64,
    /// The lowest number that the device is not known to have got past.
    pub unconfirmed: u64,
    /// For how long the device has been away, in milliseconds.
    pub away_ms: u64,
    /// The messages of the log, in the order of their numbers.
    pub entries: Vec<ParcelEntry>,
    /// The outcomes of sends with an idempotency key, oldest first.
    pub repeats: Vec<Repeat>,
}

/// One message of a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParcelEntry {
    /// The number of the message.
    pub seq: u64,
    /// The message.
    pub message: Message,
    /// How long ago it was pushed or, once handed over, first handed over, in milliseconds.
    pub age_ms: u64,
    /// For how long it is held, in milliseconds. 0: it was sent to a live stream.
    pub ttl_ms: u64,
}

/// A message that waits, on its way to a newer mailbox of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The message.
    pub message: Message,
    /// For how long it waits there.
    pub waits: Waits,
    /// Its outcome, if its sender may repeat it.
    pub repeat: Option<Repeat>,
}

/// For how long a message waits for its device. Only the hub that takes it knows its resume window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It is held.
    Held {
        /// For so much longer, in milliseconds.
        rest_ms: u64,
    },
    /// It was sent to a live stream, so it waits until the resume window ends.
    Window {
        /// So much of the window is over, in milliseconds.
        over_ms: u64,
    },
}

/// The outcome of a send with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// 128 bits of a hash over the caller and the key.
    pub key: u128,
    /// The outcome.
    pub outcome: Outcome,
    /// The number of the message in the mailbox that took it.
    pub seq: u64,
    /// How long ago, in milliseconds.
    pub age_ms: u64,
}

impl Waiting {
    /// It has waited for so long, in milliseconds.
    pub fn grow_older(&mut self, ms: u64) {
        match &mut self.waits {
            Waits::Held { rest_ms } => *rest_ms = rest_ms.saturating_sub(ms),
            Waits::Window { over_ms } => *over_ms = over_ms.saturating_add(ms),
        }
        if let Some(repeat) = &mut self.repeat {
            repeat.age_ms = repeat.age_ms.saturating_add(ms);
        }
    }
}

impl Parcel {
    /// About how many bytes the parcel has.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let entries = self.entries.iter().map(|entry| entry.message.memory_bytes() + ENTRY_BYTES);
        ENTRY_BYTES + entries.sum::<usize>()
    }

    /// Drops the oldest messages that were handed over, until the parcel has at most `most` bytes: the mailbox then has a gap.
    pub fn shrink_to(&mut self, most: usize) {
        let (mut bytes, mut dropped) = (self.memory_bytes(), 0);
        for entry in &self.entries {
            if bytes <= most || entry.seq > self.handed_over {
                break;
            }
            bytes -= entry.message.memory_bytes() + ENTRY_BYTES;
            self.last_missing = self.last_missing.max(entry.seq);
            dropped += 1;
        }
        self.entries.drain(..dropped);
    }

    /// It has waited for so long, in milliseconds: all in it is older by that.
    pub fn grow_older(&mut self, ms: u64) {
        let ages = self.entries.iter_mut().map(|entry| &mut entry.age_ms);
        let ages = ages.chain(self.repeats.iter_mut().map(|repeat| &mut repeat.age_ms));
        ages.chain([&mut self.away_ms]).for_each(|age_ms| *age_ms = age_ms.saturating_add(ms));
    }

    /// Whether messages were accepted of which nobody knows that the device has them.
    #[must_use]
    pub fn may_lose(&self) -> bool {
        self.handed_over >= self.unconfirmed || self.last_missing >= self.unconfirmed || self.last > self.handed_over
    }

    /// The messages that no stream was given, with the rest of their time.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        let waiting = self.entries.iter().filter(|entry| entry.seq > self.handed_over);
        let waits = |entry: &ParcelEntry| match entry.ttl_ms {
            0 => Waits::Window { over_ms: self.away_ms },
            ttl_ms => Waits::Held { rest_ms: ttl_ms.saturating_sub(entry.age_ms) },
        };
        let repeat = |entry: &ParcelEntry| self.repeats.iter().find(|repeat| repeat.seq == entry.seq).copied();
        waiting
            .map(|entry| Waiting { message: entry.message.clone(), waits: waits(entry), repeat: repeat(entry) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::Data;

    fn parcel(handed_over: u64) -> Parcel {
        let data = || Data::new("x".repeat(1_000)).expect("not empty");
        let message = || Message { from: None, event: None, data: data(), sent_at: SystemTime::UNIX_EPOCH };
        let entries = (1..=4).map(|seq| ParcelEntry { seq, message: message(), age_ms: 7, ttl_ms: 0 });
        Parcel {
            epoch: 1,
            newest_page: 1,
            page: 1,
            generation: 1,
            last: 4,
            handed_over,
            last_missing: 0,
            unconfirmed: 1,
            away_ms: 0,
            entries: entries.collect(),
            repeats: Vec::new(),
        }
    }

    #[test]
    fn a_parcel_that_is_too_large_drops_its_oldest_replay_and_nothing_that_waits() {
        for (handed_over, most, first, missing) in [(3, 4_900, 1, 0), (3, 2_500, 3, 2), (3, 0, 4, 3), (0, 0, 1, 0)] {
            let mut parcel = parcel(handed_over);
            parcel.shrink_to(most);
            let seqs: Vec<_> = parcel.entries.iter().map(|entry| entry.seq).collect();
            assert_eq!((seqs, parcel.last_missing), ((first..=4).collect(), missing), "{handed_over} within {most}");
        }
    }

    #[test]
    fn what_waits_in_a_parcel_has_the_rest_of_its_time() {
        let mut parcel = parcel(2);
        parcel.entries[3].ttl_ms = 10;
        parcel.away_ms = 5;
        let waits: Vec<_> = parcel.waiting().iter().map(|waiting| waiting.waits).collect();
        assert_eq!(waits, [Waits::Window { over_ms: 5 }, Waits::Held { rest_ms: 3 }]);
    }

    #[test]
    fn a_parcel_that_waits_and_all_in_it_grow_older() {
        let mut parcel = parcel(2);
        parcel.entries[3].ttl_ms = 50;
        parcel.repeats = vec![Repeat { key: 1, outcome: Outcome::Held, seq: 4, age_ms: 7 }];
        parcel.grow_older(20);
        assert_eq!((parcel.away_ms, parcel.repeats[0].age_ms), (20, 27));
        assert!(parcel.entries.iter().all(|entry| entry.age_ms == 27));
        let mut waiting = parcel.waiting();
        for waiting in &mut waiting {
            waiting.grow_older(20);
        }
        let waits: Vec<_> = waiting.iter().map(|waiting| waiting.waits).collect();
        assert_eq!(waits, [Waits::Window { over_ms: 40 }, Waits::Held { rest_ms: 3 }]);
        assert_eq!(waiting[1].repeat.map(|repeat| repeat.age_ms), Some(47));
        waiting[1].grow_older(9);
        assert_eq!(waiting[1].waits, Waits::Held { rest_ms: 0 });
    }
}
