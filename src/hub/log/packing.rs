//! A log that leaves its node, or comes from another one: with ages instead of points in time. Pure: time is an argument.

use std::{mem, sync::Arc};

use super::{
    super::{Parcel, ParcelEntry, shared_message::SharedMessage, time::Millis},
    Entry, Log, REPLAY, REPLAY_BYTES, WAITING, WAITING_BYTES,
};
use crate::model::Message;

/// No mailbox counts so far. A parcel with a higher number is wrong, and its mailbox goes on from half of this: so it still has numbers
/// for new messages.
const HIGHEST: u64 = 1 << 62;

impl Log {
    /// The highest number that any message got.
    pub(in crate::hub) fn last(&self) -> u64 {
        self.last
    }

    /// The highest number of a message that is missing.
    pub(in crate::hub) fn last_missing(&self) -> u64 {
        self.last_missing
    }

    /// Marks that a message is missing that would have come now.
    pub(in crate::hub) fn mark_gap(&mut self) {
        self.last += 1;
        self.last_missing = self.last;
    }

    /// The messages with their ages.
    pub(in crate::hub) fn pack(&self, now: Millis) -> Vec<ParcelEntry> {
        let entry = |entry: &Entry| ParcelEntry {
            seq: entry.seq,
            message: Message::clone(&entry.shared),
            age_ms: now.since(entry.at),
            ttl_ms: entry.ttl_ms,
        };
        self.stored.iter().flat_map(|stored| &stored.entries).map(entry).collect()
    }

    /// The log of a parcel. `share` gets a message and its age. A message that does not fit, or whose number is wrong, is missing then.
    pub(in crate::hub) fn unpack(
        parcel: &mut Parcel,
        now: Millis,
        mut share: impl FnMut(Message, u64) -> Arc<SharedMessage>,
    ) -> Self {
        let last = if parcel.last > HIGHEST { HIGHEST / 2 } else { parcel.last };
        let last_missing = if last < parcel.last { last } else { parcel.last_missing.min(last) };
        let mut log = Self { last, handed_over: parcel.handed_over.min(last), last_missing, stored: None };
        let mut before = 0;
        for ParcelEntry { seq, message, age_ms, ttl_ms } in mem::take(&mut parcel.entries) {
            let is_next = before < seq && seq <= last;
            if !is_next || !log.has_room(seq, &message) {
                continue;
            }
            if before + 1 < seq {
                log.last_missing = log.last_missing.max(seq - 1);
            }
            let at = Millis(now.0.saturating_sub(age_ms));
            log.keep(Entry { seq, shared: share(message, age_ms), at, ttl_ms });
            before = seq;
        }
        if before < last {
            log.last_missing = last;
        }
        while log.replay_is_too_long() && log.evict_oldest(u64::MAX) {}
        log
    }

    /// Whether a message that waits fits. Messages for replay are trimmed later.
    fn has_room(&self, seq: u64, message: &Message) -> bool {
        let waiting_bytes = self.stored.as_ref().map_or(0, |stored| stored.waiting_bytes);
        seq <= self.handed_over || self.waiting() < WAITING && waiting_bytes + message.payload_bytes() <= WAITING_BYTES
    }

    fn keep(&mut self, entry: Entry) {
        let waits = entry.seq > self.handed_over;
        let stored = self.stored.get_or_insert_default();
        if waits {
            stored.waiting_bytes += entry.shared.payload_bytes();
            stored.held_bytes += entry.held();
        } else {
            stored.replay_bytes += entry.shared.payload_bytes();
        }
        stored.entries.push_back(entry);
    }

    fn replay_is_too_long(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| {
            stored.index(self.handed_over, self.last) > REPLAY || stored.replay_bytes > REPLAY_BYTES
        })
    }
}
