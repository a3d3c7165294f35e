//! One device's log of numbered messages, the cursors into it and its bounds; pure, with time as an argument.
//!
//! The log is the queue. Every message gets the next number; `handed` is the highest number that was ever given to a stream.
//! Messages up to `handed` are kept for replay and may be evicted; those above it wait for a stream and may not:
//!
//! ```text
//!   gone | handed over, kept for replay | waiting
//!        ^ gap                          ^ handed  ^ last
//! ```
//!
//! A stream is a position in this log. It comes back with a cursor, and nothing is missing when `gap <= cursor <= handed`.

use std::{collections::VecDeque, sync::Arc};

use super::pace::{Millis, Pace};
use crate::{
    error::Error,
    model::{Continuity, Cursor, EndReason, Message, Outcome, Start},
};

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

/// One device's log, and the stream that is attached to it.
#[derive(Debug)]
pub(super) struct Mailbox {
    epoch: u64,
    /// The newest page; 0 before the first stream.
    page: u32,
    /// Names the newest stream, so that a late word of an older one is told apart.
    generation: u32,
    log: VecDeque<Entry>,
    last: u64,
    handed: u64,
    /// The highest number that is no longer in the log.
    gap: u64,
    /// Everything up to here is known to have reached the device.
    confirmed: u64,
    waiting: usize,
    waiting_bytes: usize,
    replay_bytes: usize,
    stream: Option<Attached>,
    /// The last stream that was cut because its peer did not read.
    stalled: Option<u32>,
    left_at: Millis,
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

/// The stream that takes this mailbox's messages.
#[derive(Debug)]
struct Attached {
    generation: u32,
    page: u32,
    position: u64,
    since: Millis,
    pace: Pace,
    ending: Option<EndReason>,
}

/// What a new stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) generation: u32,
    pub(super) cursor: Cursor,
    pub(super) continuity: Continuity,
    pub(super) replayed: u32,
}

/// The next thing a stream has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write this message.
    Message(Cursor, Arc<Message>),
    /// Write a heartbeat.
    Ping,
    /// Nothing yet.
    Wait,
    /// Say why, then end.
    End(EndReason),
    /// End without a word: the same page came back on another stream.
    Replaced,
}

/// What a look at the clock brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticked {
    /// The stream has something new to do.
    pub(super) wake: bool,
    /// The stream was cut because its peer does not read.
    pub(super) stalled: bool,
    /// Nobody needs this mailbox any more.
    pub(super) forget: bool,
}

impl Mailbox {
    pub(super) fn new(epoch: u64, now: Millis) -> Self {
        Self {
            epoch,
            page: 0,
            generation: 0,
            log: VecDeque::new(),
            last: 0,
            handed: 0,
            gap: 0,
            confirmed: 0,
            waiting: 0,
            waiting_bytes: 0,
            replay_bytes: 0,
            stream: None,
            stalled: None,
            left_at: now,
        }
    }

    /// A stream is attached and takes messages.
    pub(super) fn is_live(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.ending.is_none())
    }

    /// A stream is attached, if only to say its last words.
    pub(super) fn has_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// The bytes of all messages in the log.
    pub(super) fn bytes(&self) -> usize {
        self.waiting_bytes + self.replay_bytes
    }

    /// Numbers a message and stores it: for the live stream, or for at most `ttl_ms` when there is none.
    pub(super) fn push(&mut self, message: Arc<Message>, ttl_ms: u64, now: Millis) -> Result<Outcome, Error> {
        let live = self.is_live();
        if !live && ttl_ms == 0 {
            return Err(Error::NotConnected);
        }
        let cost = message.cost();
        if self.waiting >= WAITING || self.waiting_bytes + cost > WAITING_BYTES {
            return Err(Error::MailboxFull);
        }
        self.last += 1;
        self.waiting += 1;
        self.waiting_bytes += cost;
        self.log.push_back(Entry { seq: self.last, message, at: now, ttl_ms: if live { 0 } else { ttl_ms } });
        if let Some(stream) = &mut self.stream {
            stream.pace.owe(now);
        }
        Ok(if live { Outcome::Delivered } else { Outcome::Held })
    }

    /// Attaches a stream in place of the one before it, which finds out when it asks for more.
    pub(super) fn attach(&mut self, start: Start, heartbeat_ms: u32, now: Millis) -> Result<Attachment, Error> {
        let (page, after, continuity) = self.place(start)?;
        // Numbers between the position and the first message that is left are gone: skip them, so that they count as missing once.
        let position = self.log.get(self.index(after)).map_or(self.last, |entry| entry.seq - 1);
        if self.confirmed == self.handed {
            self.confirmed = self.confirmed.max(position);
        }
        self.handed = self.handed.max(position);
        self.page = self.page.max(page);
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let rhythm = Pace::new(heartbeat_ms, now);
        self.stream = Some(Attached { generation, page, position, since: now, pace: rhythm, ending: None });
        let replayed = u32::try_from(self.log.len() - self.index(position)).unwrap_or(u32::MAX);
        Ok(Attachment { generation, cursor: Cursor { epoch: self.epoch, page, seq: position }, continuity, replayed })
    }

    /// The page, the position and the continuity of a stream that wants to begin at `start`.
    fn place(&mut self, start: Start) -> Result<(u32, u64, Continuity), Error> {
        let anew = self.page + 1;
        match start {
            Start::After(cursor)
                if cursor.epoch == self.epoch && cursor.page <= self.page && cursor.seq <= self.handed =>
            {
                if self.stream.as_ref().is_some_and(|stream| stream.page > cursor.page) {
                    return Err(Error::Superseded);
                }
                self.confirmed = self.confirmed.max(cursor.seq);
                let whole = self.gap <= cursor.seq;
                Ok((cursor.page, cursor.seq, if whole { Continuity::Resumed } else { Continuity::Broken }))
            }
            // Whoever comes with a cursor that is not of this log is a new page here, and has lost something.
            Start::After(_) | Start::Lost => Ok((anew, self.handed, Continuity::Broken)),
            Start::Anew if self.handed > self.confirmed => Ok((anew, self.handed, Continuity::Broken)),
            Start::Anew if self.page == 0 => Ok((anew, self.handed, Continuity::New)),
            Start::Anew => Ok((anew, self.handed, Continuity::Resumed)),
        }
    }

    /// What the stream of this generation and page has to do next.
    pub(super) fn next(&mut self, generation: u32, page: u32, now: Millis) -> Next {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.generation == generation) else {
            return self.farewell(generation, page);
        };
        let at = self.log.partition_point(|entry| entry.seq <= stream.position);
        if let Some(entry) = self.log.get_mut(at) {
            stream.position = entry.seq;
            stream.pace.give(entry.at.max(stream.since), now);
            entry.at = now;
            if entry.seq > self.handed {
                self.handed = entry.seq;
                self.waiting -= 1;
                self.waiting_bytes -= entry.message.cost();
                self.replay_bytes += entry.message.cost();
            }
            let cursor = Cursor { epoch: self.epoch, page, seq: entry.seq };
            let message = entry.message.clone();
            self.evict(now);
            return Next::Message(cursor, message);
        }
        if let Some(reason) = stream.ending {
            self.detach(generation, now);
            return Next::End(reason);
        }
        if stream.pace.take_ping(now) {
            return Next::Ping;
        }
        stream.pace.rest();
        Next::Wait
    }

    /// Why a stream that is no longer attached has to end.
    fn farewell(&self, generation: u32, page: u32) -> Next {
        if self.stalled == Some(generation) {
            Next::End(EndReason::Stalled)
        } else if self.page > page {
            Next::End(EndReason::Superseded)
        } else {
            Next::Replaced
        }
    }

    /// Ends the attached stream after what it still has to write, and takes no more for it. Says whether there was one.
    pub(super) fn end(&mut self, reason: EndReason, now: Millis) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.ending.is_none()) else { return false };
        stream.ending = Some(reason);
        stream.pace.owe(now);
        true
    }

    /// The stream of this generation is over; an older one's late word changes nothing.
    pub(super) fn detach(&mut self, generation: u32, now: Millis) {
        if self.stream.as_ref().is_some_and(|stream| stream.generation == generation) {
            self.stream = None;
            self.left_at = now;
        }
    }

    /// Looks at the clock: heartbeats, a peer that does not read, messages and mailboxes whose time is over.
    pub(super) fn tick(&mut self, stall_ms: u64, window_ms: u64, now: Millis) -> Ticked {
        let mut ticked = Ticked::default();
        if let Some(stream) = &mut self.stream {
            if stream.pace.is_stalled(stall_ms, now) {
                let generation = stream.generation;
                self.stalled = Some(generation);
                self.detach(generation, now);
                ticked = Ticked { wake: true, stalled: true, forget: false };
            } else {
                ticked.wake = stream.pace.beat(now);
            }
        }
        self.evict(now);
        if self.stream.is_none() {
            self.expire(window_ms, now);
            ticked.forget = self.waiting == 0 && now.since(self.left_at) >= window_ms;
        }
        ticked
    }

    /// Drops handed messages that are too many, too large or too old, but none that the attached stream still has to write.
    fn evict(&mut self, now: Millis) {
        let limit = self.stream.as_ref().map_or(self.handed, |stream| stream.position.min(self.handed));
        while let Some(entry) = self.log.front().filter(|entry| entry.seq <= limit) {
            let old = now.since(entry.at) >= REPLAY_MS;
            if !old && self.log.len() - self.waiting <= REPLAY && self.replay_bytes <= REPLAY_BYTES {
                break;
            }
            // A stream that lived on for so long after it was given a message has a peer that read it.
            if old && self.stream.as_ref().is_some_and(|stream| stream.since <= entry.at) {
                self.confirmed = self.confirmed.max(entry.seq);
            }
            self.gap = self.gap.max(entry.seq);
            self.replay_bytes -= entry.message.cost();
            self.log.pop_front();
        }
        self.release();
    }

    /// Drops waiting messages whose time is over while no stream is attached.
    fn expire(&mut self, window_ms: u64, now: Millis) {
        let (handed, left) = (self.handed, now.since(self.left_at) >= window_ms);
        self.log.retain(|entry| {
            let over = if entry.ttl_ms == 0 { left } else { now.since(entry.at) >= entry.ttl_ms };
            let dropped = over && entry.seq > handed;
            if dropped {
                self.gap = self.gap.max(entry.seq);
                self.waiting -= 1;
                self.waiting_bytes -= entry.message.cost();
            }
            !dropped
        });
        self.release();
    }

    /// An empty log holds no buffer.
    fn release(&mut self) {
        if self.log.is_empty() && self.log.capacity() > 0 {
            self.log = VecDeque::new();
        }
    }

    /// Where in the log the messages after `seq` begin.
    fn index(&self, seq: u64) -> usize {
        self.log.partition_point(|entry| entry.seq <= seq)
    }
}
