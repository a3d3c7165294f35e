//! The numbered messages of one mailbox and their bounds; pure, with time as an argument.
//!
//! `handed` is the highest number that was ever given to a stream. Messages up to it are kept for replay and may be evicted;
//! those above it wait for a stream and may not:
//!
//! ```text
//!   gone | handed over, kept for replay | waiting
//!        ^ gap                          ^ handed  ^ last
//! ```

use std::{collections::VecDeque, sync::Arc};

use super::pace::Millis;
use crate::{error::Error, model::Message};

/// Messages that wait for a stream, at most; one more is refused.
pub(super) const WAITING: usize = 64;
/// Their bytes, at most. A single message is never larger than this: the body limit is not.
pub(crate) const WAITING_BYTES: usize = 256 * 1024;
/// Messages kept for replay after they were handed over, at most.
pub(super) const REPLAY: usize = 256;
/// Their bytes, at most.
pub(super) const REPLAY_BYTES: usize = 512 * 1024;
/// How long they are kept, at most.
pub(super) const REPLAY_MS: u64 = 60_000;

/// Messages in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Log {
    last: u64,
    handed: u64,
    gap: u64,
    /// Apart, because most logs are empty most of the time.
    kept: Option<Box<Kept>>,
}

/// The messages of a log that is not empty.
#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Entry>,
    waiting_bytes: usize,
    replay_bytes: usize,
    /// The footprints of all.
    memory: usize,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    message: Arc<Message>,
    /// When it was pushed; once it was handed over, when that was.
    at: Millis,
    /// How long it waits for an absent device. 0: as long as the mailbox remembers its last stream.
    ttl_ms: u64,
}

/// A message on its way to a stream.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) seq: u64,
    pub(super) message: Arc<Message>,
    /// When it was pushed or, on a replay, last handed over.
    pub(super) since: Millis,
}

impl Log {
    /// The highest number that was ever given to a stream.
    pub(super) fn handed(&self) -> u64 {
        self.handed
    }

    /// Nothing after this number is missing.
    pub(super) fn is_whole_after(&self, seq: u64) -> bool {
        self.gap <= seq
    }

    /// Messages wait for a stream.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting() > 0
    }

    fn waiting(&self) -> usize {
        self.count_after(self.handed)
    }

    /// The bytes of memory that all messages take.
    pub(super) fn memory(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.memory)
    }

    /// How many messages come after this number.
    pub(super) fn count_after(&self, seq: u64) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.entries.len() - kept.index(seq, self.last))
    }

    /// Gives a message the next number and keeps it.
    pub(super) fn push(&mut self, message: Arc<Message>, ttl_ms: u64, now: Millis) -> Result<(), Error> {
        let (cost, full) = (message.cost(), self.waiting() >= WAITING);
        let kept = self.kept.get_or_insert_default();
        if full || kept.waiting_bytes + cost > WAITING_BYTES {
            return Err(Error::MailboxFull);
        }
        self.last += 1;
        kept.waiting_bytes += cost;
        kept.memory += message.footprint();
        kept.entries.push_back(Entry { seq: self.last, message, at: now, ttl_ms });
        Ok(())
    }

    /// The position of a stream that has seen everything up to `seq`. Numbers that are gone are skipped, so that they count
    /// as missing once.
    pub(super) fn enter_after(&mut self, seq: u64) -> u64 {
        let next = self.kept.as_ref().and_then(|kept| kept.entries.get(kept.index(seq, self.last)));
        let position = next.map_or(self.last, |entry| entry.seq - 1);
        self.handed = self.handed.max(position);
        position
    }

    /// Hands over the message after this number.
    pub(super) fn hand_over(&mut self, seq: u64, now: Millis) -> Option<Handed> {
        let kept = self.kept.as_mut()?;
        let at = kept.index(seq, self.last);
        let entry = kept.entries.get_mut(at)?;
        if entry.seq > self.handed {
            self.handed = entry.seq;
            kept.waiting_bytes -= entry.message.cost();
            kept.replay_bytes += entry.message.cost();
        }
        let since = std::mem::replace(&mut entry.at, now);
        Some(Handed { seq: entry.seq, message: entry.message.clone(), since })
    }

    /// Drops handed messages up to `limit` that are too many, too large or too old. Tells `aged` the number and the time of
    /// handing over of each that was too old.
    pub(super) fn evict(&mut self, limit: u64, now: Millis, mut aged: impl FnMut(u64, Millis)) {
        let Some(kept) = &mut self.kept else { return };
        while let Some(entry) = kept.entries.front().filter(|entry| entry.seq <= limit.min(self.handed)) {
            let old = now.since(entry.at) >= REPLAY_MS;
            if !old && kept.index(self.handed, self.last) <= REPLAY && kept.replay_bytes <= REPLAY_BYTES {
                break;
            }
            if old {
                aged(entry.seq, entry.at);
            }
            self.gap = self.gap.max(entry.seq);
            kept.replay_bytes -= entry.message.cost();
            kept.memory -= entry.message.footprint();
            kept.entries.pop_front();
        }
        self.release();
    }

    /// Drops waiting messages whose time is over; those without a time of their own when `window_is_over`. Says how many.
    pub(super) fn expire(&mut self, window_is_over: bool, now: Millis) -> usize {
        let some = self.has_waiting();
        let Some(Kept { entries, waiting_bytes, memory, .. }) = self.kept.as_deref_mut().filter(|_| some) else {
            return 0;
        };
        let before = entries.len();
        entries.retain(|entry| {
            let over = if entry.ttl_ms == 0 { window_is_over } else { now.since(entry.at) >= entry.ttl_ms };
            let dropped = over && entry.seq > self.handed;
            if dropped {
                self.gap = self.gap.max(entry.seq);
                *waiting_bytes -= entry.message.cost();
                *memory -= entry.message.footprint();
            }
            !dropped
        });
        let dropped = before - entries.len();
        self.release();
        dropped
    }

    fn release(&mut self) {
        self.kept.take_if(|kept| kept.entries.is_empty());
    }
}

impl Kept {
    /// Where the messages after `seq` begin, when `last` is the number of the last one ever.
    fn index(&self, seq: u64, last: u64) -> usize {
        // As many messages as numbers come after it, but for those that expired: no need to search all that is kept.
        let numbers = usize::try_from(last.saturating_sub(seq)).unwrap_or(usize::MAX);
        let first = self.entries.len().saturating_sub(numbers);
        first + self.entries.range(first..).take_while(|entry| entry.seq <= seq).count()
    }
}
