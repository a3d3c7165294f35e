//! The numbered messages of one mailbox, and their limits. Pure: time is an argument.
//!
//! `handed_over` is the highest number that was ever given to a stream. Messages up to this number are kept for replay. Messages
//! after it wait for a stream, and no limit of the log drops them:
//!
//! ```text
//!   gone | handed over, kept for replay | waiting
//!                                       ^ handed_over  ^ last
//! ```

mod packing;

use std::{collections::VecDeque, sync::Arc};

use super::{shared_message::SharedMessage, time::Millis};
use crate::{error::Error, model::Message};

/// How many messages may wait for a stream. One more is refused.
pub(super) const WAITING: usize = 64;
/// How many bytes the waiting messages may have. A single message always fits: the body limit is not higher.
pub(crate) const WAITING_BYTES: usize = 256 * 1024;
/// How many messages are kept for replay after they were handed over.
pub(super) const REPLAY: usize = 256;
/// How many bytes the messages kept for replay may have.
pub(super) const REPLAY_BYTES: usize = 512 * 1024;
/// How long a message is kept for replay after it was handed over for the first time, in milliseconds. A replay does not renew it:
/// otherwise a message that makes its reader fail would come back at every attempt, for ever.
pub(crate) const REPLAY_MS: u64 = 60_000;
/// Bytes of memory that a mailbox needs for a message, without the message itself.
pub(super) const ENTRY_BYTES: usize = 64;

/// Messages in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The highest number that any message got.
    last: u64,
    handed_over: u64,
    /// The highest number of a message that was dropped. All later messages are in the log.
    last_missing: u64,
    /// Boxed, because most logs are empty most of the time.
    stored: Option<Box<Stored>>,
}

/// The messages of a log that is not empty.
#[derive(Debug, Default)]
struct Stored {
    entries: VecDeque<Entry>,
    waiting_bytes: usize,
    replay_bytes: usize,
    /// Bytes of memory of the messages that are held for an absent device.
    held_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    shared: Arc<SharedMessage>,
    /// When the message was pushed or, once handed over, first handed over.
    at: Millis,
    /// How long the message is held for an absent device. 0 for a message to a live stream: if the stream leaves without it, it waits
    /// until the resume window ends.
    ttl_ms: u64,
}

impl Entry {
    /// The bytes of memory that the message takes while it is held. 0 when it is not held.
    fn held(&self) -> usize {
        if self.ttl_ms > 0 { held_bytes(&self.shared) } else { 0 }
    }

    /// When the message expires, if it is held.
    fn hold_ends(&self) -> Option<Millis> {
        (self.ttl_ms > 0).then(|| self.at.after(self.ttl_ms))
    }
}

/// The bytes of memory that a message takes while it is held.
pub(super) fn held_bytes(message: &Message) -> usize {
    ENTRY_BYTES + message.memory_bytes()
}

/// A message that the log has given to a stream.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) seq: u64,
    pub(super) shared: Arc<SharedMessage>,
    /// The message was sent to a live stream and is handed over for the first time: not held, not replayed.
    pub(super) live: bool,
    /// Whether an earlier stream got this message, so that it is a replay now.
    pub(super) replayed: bool,
}

impl Log {
    /// A log whose first message is missing.
    pub(super) fn with_gap() -> Self {
        Self { last: 1, handed_over: 0, last_missing: 1, stored: None }
    }

    /// The highest number that was ever given to a stream.
    pub(super) fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// Whether no message after this number is missing.
    pub(super) fn is_whole_after(&self, seq: u64) -> bool {
        self.last_missing <= seq
    }

    /// Whether messages wait for a stream.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting() > 0
    }

    fn waiting(&self) -> usize {
        self.count_after(self.handed_over)
    }

    /// The bytes of memory that all entries take, without the messages in them.
    pub(super) fn memory(&self) -> usize {
        self.stored.as_ref().map_or(0, |stored| stored.entries.len() * ENTRY_BYTES)
    }

    /// The bytes of memory that held messages take.
    pub(super) fn held(&self) -> usize {
        self.stored.as_ref().map_or(0, |stored| stored.held_bytes)
    }

    /// When the oldest message kept for replay becomes too old. Looks only at messages up to `limit`.
    pub(super) fn replay_ends(&self, limit: u64) -> Option<Millis> {
        let oldest = self.stored.as_ref()?.entries.front().filter(|entry| entry.seq <= limit.min(self.handed_over))?;
        Some(oldest.at.after(REPLAY_MS))
    }

    /// When the first held message expires.
    pub(super) fn hold_ends(&self) -> Option<Millis> {
        self.stored.as_ref().filter(|stored| stored.held_bytes > 0)?;
        self.waiting_entries().filter_map(Entry::hold_ends).min()
    }

    /// When the first waiting message expires. A message that is not held expires at `window`, when the resume window ends.
    pub(super) fn waiting_ends(&self, window: Millis) -> Option<Millis> {
        self.waiting_entries().map(|entry| entry.hold_ends().unwrap_or(window)).min()
    }

    fn waiting_entries(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.stored.iter().flat_map(|stored| &stored.entries);
        entries.filter(|entry| entry.seq > self.handed_over)
    }

    /// How many messages come after this number.
    pub(super) fn count_after(&self, seq: u64) -> usize {
        self.stored.as_ref().map_or(0, |stored| stored.entries.len() - stored.index(seq, self.last))
    }

    /// Gives a message the next number and keeps it. Returns the number.
    pub(super) fn push(&mut self, shared: Arc<SharedMessage>, ttl_ms: u64, now: Millis) -> Result<u64, Error> {
        let (bytes, full) = (shared.payload_bytes(), self.waiting() >= WAITING);
        let stored = self.stored.get_or_insert_default();
        if full || stored.waiting_bytes + bytes > WAITING_BYTES {
            return Err(Error::MAILBOX_FULL);
        }
        self.last += 1;
        stored.waiting_bytes += bytes;
        let entry = Entry { seq: self.last, shared, at: now, ttl_ms };
        stored.held_bytes += entry.held();
        stored.entries.push_back(entry);
        Ok(self.last)
    }

    /// Starts a stream that has seen everything up to `seq`. Returns its position: just before the next message that is still in the
    /// log. It skips missing messages, so each of them is reported once.
    pub(super) fn start_after(&mut self, seq: u64) -> u64 {
        let next = self.stored.as_ref().and_then(|stored| stored.entries.get(stored.index(seq, self.last)));
        let position = next.map_or(self.last, |entry| entry.seq - 1);
        self.handed_over = self.handed_over.max(position);
        position
    }

    /// Hands over the message after this number.
    pub(super) fn hand_over(&mut self, seq: u64, now: Millis) -> Option<HandedOver> {
        let stored = self.stored.as_mut()?;
        let at = stored.index(seq, self.last);
        let entry = stored.entries.get_mut(at)?;
        let first = entry.seq > self.handed_over;
        if first {
            self.handed_over = entry.seq;
            stored.waiting_bytes -= entry.shared.payload_bytes();
            stored.replay_bytes += entry.shared.payload_bytes();
            stored.held_bytes -= entry.held();
            entry.at = now;
        }
        let live = first && entry.ttl_ms == 0;
        Some(HandedOver { seq: entry.seq, shared: entry.shared.clone(), live, replayed: !first })
    }

    /// Drops messages kept for replay, with numbers up to `limit`, while they are too many, too large or too old. Calls `aged` for
    /// each that was too old, with its number and the time at which it was handed over.
    pub(super) fn trim_replay(&mut self, limit: u64, now: Millis, mut aged: impl FnMut(u64, Millis)) {
        let Some(stored) = &mut self.stored else { return };
        while let Some(entry) = stored.entries.front().filter(|entry| entry.seq <= limit.min(self.handed_over)) {
            let old = now.since(entry.at) >= REPLAY_MS;
            if !old && stored.index(self.handed_over, self.last) <= REPLAY && stored.replay_bytes <= REPLAY_BYTES {
                break;
            }
            if old {
                aged(entry.seq, entry.at);
            }
            self.last_missing = self.last_missing.max(entry.seq);
            stored.pop_replay();
        }
        self.free_if_empty();
    }

    /// Drops the oldest message kept for replay, with a number up to `limit`, to free memory: no limit of the log is exceeded. Says
    /// whether there was one.
    pub(super) fn evict_oldest(&mut self, limit: u64) -> bool {
        let Some(stored) = &mut self.stored else { return false };
        let Some(seq) = stored.entries.front().map(|entry| entry.seq).filter(|seq| *seq <= limit.min(self.handed_over))
        else {
            return false;
        };
        self.last_missing = self.last_missing.max(seq);
        stored.pop_replay();
        self.free_if_empty();
        true
    }

    /// Drops waiting messages that have expired. Messages that are not held expire when `window_is_over`. Returns how many were
    /// dropped.
    pub(super) fn expire(&mut self, window_is_over: bool, now: Millis) -> usize {
        self.drop_waiting_if(|entry| entry.hold_ends().map_or(window_is_over, |end| end <= now))
    }

    /// Drops all waiting messages. Returns how many.
    pub(super) fn drop_waiting(&mut self) -> usize {
        self.drop_waiting_if(|_| true)
    }

    fn drop_waiting_if(&mut self, is_over: impl Fn(&Entry) -> bool) -> usize {
        let has_waiting = self.has_waiting();
        let Some(Stored { entries, waiting_bytes, held_bytes, .. }) =
            self.stored.as_deref_mut().filter(|_| has_waiting)
        else {
            return 0;
        };
        let before = entries.len();
        entries.retain(|entry| {
            let dropped = entry.seq > self.handed_over && is_over(entry);
            if dropped {
                self.last_missing = self.last_missing.max(entry.seq);
                *waiting_bytes -= entry.shared.payload_bytes();
                *held_bytes -= entry.held();
            }
            !dropped
        });
        let dropped = before - entries.len();
        self.free_if_empty();
        dropped
    }

    fn free_if_empty(&mut self) {
        self.stored.take_if(|stored| stored.entries.is_empty());
    }
}

impl Stored {
    /// Drops the oldest message, which must have been handed over.
    fn pop_replay(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.replay_bytes -= entry.shared.payload_bytes();
        }
    }

    /// The index of the first message after `seq`. `last` is the highest number that any message ever had.
    fn index(&self, seq: u64, last: u64) -> usize {
        // At most `last - seq` messages come after `seq`, fewer when some expired. Only these have to be searched.
        let numbers = usize::try_from(last.saturating_sub(seq)).unwrap_or(usize::MAX);
        let first = self.entries.len().saturating_sub(numbers);
        first + self.entries.range(first..).take_while(|entry| entry.seq <= seq).count()
    }
}
