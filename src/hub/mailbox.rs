//! One device's mailbox: its log, the cursors into the log and the attached stream. Pure: time is an argument.
//!
//! The log is the queue, and a stream is a position in the log. A device that reconnects presents a cursor. It has lost nothing
//! when everything after the cursor is still in the log.

mod ending;
mod moving;
mod pushing;
mod upkeep;

use std::sync::Arc;

pub(super) use self::upkeep::{Checked, MAILBOX_BYTES};
use super::{
    backplane::Term,
    heartbeat::Heartbeat,
    latency::{AcceptedAt, is_sampled},
    log::{HandedOver, Log},
    repeats::Repeats,
    shared_message::SharedMessage,
    time::{Millis, Tick},
};
use crate::{
    error::Error,
    model::{Continuity, Cursor, EndReason, Start},
};

/// One device's log, and the stream that is attached to it.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// See [`Term`].
    term: Term,
    epoch: u64,
    /// The number of the newest page: see [`Cursor::page`]. 0: no stream was ever attached.
    newest_page: u32,
    /// The page of the newest stream. Less than `newest_page` when an older page resumed.
    page: u32,
    /// The number of the newest stream. A late call of an older stream has an older number and changes nothing.
    generation: u32,
    log: Log,
    repeats: Repeats,
    /// The lowest number that the device is not known to have got past. If it was handed over, or skipped because it is missing,
    /// a stream without a cursor is told `broken`. May be 0: a stream that began at 0 was told `broken`, and may not have read that.
    unconfirmed: u64,
    stream: Option<AttachedStream>,
    /// When the resume window began: when the last stream left. Begins again when held messages expire or waiting ones are evicted,
    /// because the next stream has to be told.
    left_at: Tick,
}

/// The stream that takes this mailbox's messages. It always has the newest generation.
#[derive(Debug)]
struct AttachedStream {
    position: u64,
    /// When the stream was attached, rounded down to a tick.
    since: Tick,
    /// The number of the newest replayed message that the stream took, and when, rounded up to a tick. A stream that was told `broken`
    /// begins with its first position: if it lives on, its device knows of the gap before that.
    replayed: u64,
    replayed_at: Option<Tick>,
    heartbeat: Heartbeat,
    ending: Option<EndReason>,
    /// It gets no more messages, only the reason of its end.
    only_ends: bool,
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
    Message(Outgoing),
    /// Write a ping.
    Ping,
    /// Nothing yet.
    Wait,
    /// Write the reason, then end.
    End(EndReason),
    /// End without a reason: the same page has another stream, or the mailbox was removed. The client comes back.
    Replaced,
}

/// A message for a stream to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) cursor: Cursor,
    pub(super) message: Arc<SharedMessage>,
    /// The log has another message for the stream.
    pub(super) has_more: bool,
    /// When the hub accepted the message, if its latency is measured.
    pub(super) measured: Option<AcceptedAt>,
}

impl Mailbox {
    pub(super) fn new(epoch: u64, now: Millis) -> Self {
        Self {
            term: 0,
            epoch,
            newest_page: 0,
            page: 0,
            generation: 0,
            log: Log::default(),
            repeats: Repeats::default(),
            unconfirmed: 1,
            stream: None,
            left_at: Tick::not_before(now),
        }
    }

    /// The mailbox of a device that has lost held messages: its first stream is told `broken`.
    pub(super) fn with_gap(epoch: u64, now: Millis) -> Self {
        Self { log: Log::with_gap(), ..Self::new(epoch, now) }
    }

    /// Whether a stream is attached and takes messages.
    pub(super) fn is_live(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.ending.is_none())
    }

    /// The epoch and the page of the live stream.
    pub(super) fn live_page(&self) -> Option<(u64, u32)> {
        self.is_live().then_some((self.epoch, self.page))
    }

    /// Whether no stream was ever attached: the mailbox only holds messages.
    pub(super) fn only_holds(&self) -> bool {
        self.newest_page == 0
    }

    /// Whether a stream is attached. It may be ending.
    pub(super) fn has_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// The generation of the attached stream, if there is one.
    pub(super) fn attached_generation(&self) -> Option<u32> {
        self.has_stream().then_some(self.generation)
    }

    /// The bytes of memory that the log takes, without the messages in it, and that remembered outcomes take.
    pub(super) fn memory(&self) -> usize {
        self.log.memory() + self.repeats.memory()
    }

    /// The bytes of memory that are used because senders asked to hold messages.
    pub(super) fn held(&self) -> usize {
        self.log.held() + if self.only_holds() { MAILBOX_BYTES } else { 0 }
    }

    /// Attaches a new stream. The previous stream, if any, ends at its next poll.
    pub(super) fn attach(&mut self, start: Start, heartbeat_ms: u32, now: Millis) -> Result<Attachment, Error> {
        self.confirm_replayed(now);
        let (page, after, continuity) = self.resolve_start(start)?;
        // May skip missing messages and so raise `handed_over`. A cursor from after them shows that the device knows of the gap, or a
        // stream that lives for long enough after it was told.
        let position = self.log.start_after(after);
        self.newest_page = self.newest_page.max(page);
        self.page = page;
        self.generation = self.generation.wrapping_add(1);
        let heartbeat = Heartbeat::new(heartbeat_ms, now);
        let since = Tick::reached(now);
        let replayed_at = (continuity == Continuity::Broken).then(|| Tick::not_before(now));
        let (replayed, ending, only_ends) = (position, None, false);
        self.stream = Some(AttachedStream { position, since, replayed, replayed_at, heartbeat, ending, only_ends });
        let (generation, cursor) = (self.generation, Cursor { epoch: self.epoch, page, seq: position });
        let replayed = u32::try_from(self.log.count_after(position)).unwrap_or(u32::MAX);
        Ok(Attachment { generation, cursor, continuity, replayed })
    }

    /// Resolves where a new stream starts: its page, its position, and what it is told. Remembers what the cursor confirms, and that
    /// nothing confirms a `broken`.
    fn resolve_start(&mut self, start: Start) -> Result<(u32, u64, Continuity), Error> {
        let (page, handed_over) = (self.page_of(start)?, self.log.handed_over());
        match start {
            Start::After(cursor) if self.has_given(cursor) => {
                self.unconfirmed = self.unconfirmed.max(cursor.seq + 1);
                let whole = self.log.is_whole_after(cursor.seq);
                Ok((page, cursor.seq, if whole { Continuity::Resumed } else { Continuity::Broken }))
            }
            // The cursor is not of this mailbox: the stream is a new page here, and its device has lost messages.
            Start::After(_) | Start::Unreadable => {
                self.unconfirmed = self.unconfirmed.min(handed_over);
                Ok((page, handed_over, Continuity::Broken))
            }
            Start::Anew => {
                // Without a cursor the device cannot say what it has seen: messages that it never confirmed may be lost.
                let missing = handed_over >= self.unconfirmed || !self.log.is_whole_after(handed_over);
                Ok((page, handed_over, if missing { Continuity::Broken } else { Continuity::New }))
            }
        }
    }

    /// The page of a new stream.
    ///
    /// # Errors
    /// [`Error::Superseded`] when a newer page is attached.
    fn page_of(&self, start: Start) -> Result<u32, Error> {
        match start {
            Start::After(cursor) if self.has_given(cursor) => {
                let superseded = self.stream.is_some() && self.page > cursor.page;
                if superseded { Err(Error::Superseded) } else { Ok(cursor.page) }
            }
            _ => Ok(self.newest_page + 1),
        }
    }

    /// Whether a stream of this mailbox can have had this cursor.
    fn has_given(&self, cursor: Cursor) -> bool {
        cursor.epoch == self.epoch && cursor.page <= self.newest_page && cursor.seq <= self.log.handed_over()
    }

    /// What the stream of this generation and page has to do next.
    pub(super) fn next(&mut self, generation: u32, page: u32, now: Millis) -> Next {
        let Some(stream) = self.stream.as_mut().filter(|_| self.generation == generation) else {
            return self.end_reason(page).map_or(Next::Replaced, Next::End);
        };
        let handed = if stream.only_ends { None } else { self.log.hand_over(stream.position, now) };
        if let Some(handed) = handed {
            stream.heartbeat.reset(now);
            return Next::Message(self.hand_to_stream(handed, page, now));
        }
        if let Some(reason) = stream.ending {
            self.detach(generation, now);
            return Next::End(reason);
        }
        if stream.heartbeat.take(now) { Next::Ping } else { Next::Wait }
    }

    /// Another message, if there is one, for the stream of this generation and page to write together with the one before it.
    pub(super) fn more(&mut self, generation: u32, page: u32, now: Millis) -> Option<Outgoing> {
        let stream = self.stream.as_ref().filter(|stream| self.generation == generation && !stream.only_ends)?;
        let handed = self.log.hand_over(stream.position, now)?;
        Some(self.hand_to_stream(handed, page, now))
    }

    /// Moves the stream past a message, trims the log, and makes what the stream writes.
    fn hand_to_stream(&mut self, handed: HandedOver, page: u32, now: Millis) -> Outgoing {
        let HandedOver { seq, shared, live, replayed } = handed;
        if let Some(stream) = &mut self.stream {
            stream.position = seq;
            if replayed {
                (stream.replayed, stream.replayed_at) = (seq, Some(Tick::not_before(now)));
            }
        }
        self.trim_replay(now);
        let measured = (live && is_sampled(self.epoch, seq)).then_some(shared.accepted_at);
        Outgoing {
            cursor: Cursor { epoch: self.epoch, page, seq },
            message: shared,
            has_more: self.log.count_after(seq) > 0,
            measured,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Sending,
            tests::mailbox_properties::{EPOCH, message},
        },
        *,
    };
    use crate::model::Data;

    #[test]
    fn a_superseded_page_is_refused_while_the_newer_one_is_live_and_may_resume_when_it_is_gone() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let attach = |mailbox: &mut Mailbox, start| mailbox.attach(start, 15_000, Millis(0));
        let first = attach(&mut mailbox, Start::Anew).expect("free");
        let second = attach(&mut mailbox, Start::Anew).expect("takes over");
        assert!(second.cursor.page > first.cursor.page);
        assert!(attach(&mut mailbox, Start::After(first.cursor)).is_err());
        let again = attach(&mut mailbox, Start::After(second.cursor)).expect("the same page");
        assert_eq!(again.cursor.page, second.cursor.page);
        mailbox.detach(second.generation, Millis(0));
        assert!(mailbox.is_live(), "a late end of an older stream touches nothing");
        mailbox.detach(again.generation, Millis(0));
        assert_eq!(attach(&mut mailbox, Start::After(first.cursor)).map(|it| it.continuity), Ok(Continuity::Resumed));
        assert!(attach(&mut mailbox, Start::After(second.cursor)).is_ok(), "the newer page is never the one refused");
    }

    #[test]
    fn a_stream_ends_without_a_reason_when_its_page_resumes_even_after_a_newer_page() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let attach = |mailbox: &mut Mailbox, start| mailbox.attach(start, 15_000, Millis(0)).expect("free");
        let first = attach(&mut mailbox, Start::Anew);
        let second = attach(&mut mailbox, Start::Anew);
        mailbox.detach(second.generation, Millis(0));
        let back = attach(&mut mailbox, Start::After(first.cursor));
        attach(&mut mailbox, Start::After(back.cursor));
        assert_eq!(mailbox.next(back.generation, back.cursor.page, Millis(0)), Next::Replaced);
    }

    #[test]
    fn a_stream_whose_page_resumed_is_superseded_by_a_newer_page_also_after_that_left() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let attach = |mailbox: &mut Mailbox, start| mailbox.attach(start, 15_000, Millis(0)).expect("free");
        let first = attach(&mut mailbox, Start::Anew);
        let resumed = attach(&mut mailbox, Start::After(first.cursor));
        let newer = attach(&mut mailbox, Start::Anew);
        mailbox.detach(newer.generation, Millis(0));
        assert_eq!(mailbox.next(resumed.generation, resumed.cursor.page, Millis(0)), Next::End(EndReason::Superseded));
    }

    #[test]
    fn messages_that_are_written_together_are_numbered_one_by_one() {
        let mut mailbox = Mailbox::new(EPOCH, Millis(0));
        let stream = mailbox.attach(Start::Anew, 15_000, Millis(0)).expect("free");
        assert_eq!(mailbox.next(stream.generation, 1, Millis(0)), Next::Wait);
        for _ in 0..2 {
            mailbox
                .push(message(Data::new("candidate").expect("not empty")), Sending::default(), Millis(1_000))
                .expect("live");
        }
        let Next::Message(first) = mailbox.next(stream.generation, 1, Millis(4_500)) else { panic!("two wait") };
        let second = mailbox.more(stream.generation, 1, Millis(4_500)).expect("the other one");
        assert_eq!((first.cursor.seq, first.has_more, second.cursor.seq, second.has_more), (1, true, 2, false));
        assert_eq!(mailbox.more(stream.generation, 1, Millis(4_500)), None);
    }
}
