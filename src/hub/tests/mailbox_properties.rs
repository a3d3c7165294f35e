//! Random operations on a mailbox, compared with a simple model that keeps every message and marks the dropped ones.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use proptest::{collection::vec, prelude::*};

use super::{
    super::{
        Sending,
        deadlines::DeadlineKind,
        log::{ENTRY_BYTES, REPLAY, REPLAY_BYTES, REPLAY_MS, WAITING, WAITING_BYTES},
        mailbox::{Mailbox, Next, Outgoing},
        repeats::{REPEAT_BYTES, REPEAT_MS, REPEATS},
        shared_message::SharedMessage,
        time::Millis,
    },
    mailbox_operations::{Op, op},
};
use crate::{
    budget::Budget,
    model::{Continuity, Cursor, Data, Message, Outcome, Start},
};

pub(in crate::hub) const EPOCH: u64 = 0xe90c;
pub(in crate::hub) const WINDOW_MS: u64 = 60_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Waiting,
    HandedOver,
    Gone,
}

struct Record {
    seq: u64,
    bytes: usize,
    at: u64,
    ttl_ms: u64,
    fate: Fate,
}

/// A stream as its client sees it.
struct Client {
    generation: u32,
    page: u32,
    seen: u64,
    whole: bool,
    since: u64,
    /// The newest message that it got as a replay, or before which it was told of a gap, and when.
    replayed: Option<(u64, u64)>,
}

struct World {
    mailbox: Mailbox,
    records: Vec<Record>,
    now: u64,
    client: Option<Client>,
    /// The outcomes of pushes with a key, and until when they are remembered, in the order of the pushes.
    repeats: Vec<(u128, Outcome, u64)>,
    /// The newest cursor that any client has seen.
    cursor: Option<Cursor>,
    /// Something shows that the device got past this number. Less than every number when it was told `broken` since.
    confirmed: Option<u64>,
    left_at: u64,
}

impl World {
    fn new() -> Self {
        let mailbox = Mailbox::new(EPOCH, Millis(0));
        let (records, repeats) = (Vec::new(), Vec::new());
        Self { mailbox, records, now: 0, client: None, repeats, cursor: None, confirmed: Some(0), left_at: 0 }
    }

    fn with(&self, fate: Fate) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.fate == fate)
    }

    /// The highest number of a message that no longer waits: it was handed over, or it is gone.
    fn passed(&self) -> u64 {
        let passed = self.records.iter().filter(|record| record.fate != Fate::Waiting);
        passed.map(|record| record.seq).max().unwrap_or(0)
    }

    fn bytes(&self, fate: Fate) -> usize {
        self.with(fate).map(|record| record.bytes).sum()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Push { bytes, ttl_ms, key } => self.push(bytes, Sending { ttl_ms, key }),
            Op::Return { back } => {
                let Some(mut cursor) = self.cursor else { return };
                cursor.seq = cursor.seq.saturating_sub(back);
                self.attach(Start::After(cursor), true);
            }
            Op::Anew => self.attach(Start::Anew, true),
            Op::Stranger(start) => self.attach(start, false),
            // Three messages at a time.
            Op::Read(most) => {
                for at in 0..most {
                    self.read(at % 3 > 0);
                }
            }
            Op::Detach => {
                self.confirm_replayed();
                let Some(client) = self.client.take() else { return };
                self.mailbox.detach(client.generation, Millis(self.now));
                self.left_at = self.now;
            }
            Op::Wait(ms) => self.wait(ms),
        }
    }

    fn push(&mut self, bytes: usize, sending: Sending) {
        let Sending { ttl_ms, key } = sending;
        let seq = self.records.len() as u64 + 1;
        let text = seq.to_string();
        let data = Data::new("0".repeat(bytes.saturating_sub(text.len())) + &text).expect("not empty");
        let bytes = data.as_str().len();
        let live = self.client.is_some();
        let room = self.with(Fate::Waiting).count() < WAITING && self.bytes(Fate::Waiting) + bytes <= WAITING_BYTES;
        let pushed = self.mailbox.push(message(data), sending, Millis(self.now));
        let first = self.repeats.iter().find(|(of, _, until)| Some(*of) == key && *until > self.now);
        if let Some((_, outcome, _)) = first {
            assert_eq!(pushed, Ok(*outcome), "a repeat");
            return;
        }
        assert_eq!(pushed.is_ok(), room && (live || ttl_ms > 0), "{pushed:?}");
        if let (Ok(outcome), Some(key)) = (&pushed, key) {
            self.forget_old_repeats();
            self.repeats.push((key, *outcome, self.now + REPEAT_MS));
            let extra = self.repeats.len().saturating_sub(REPEATS);
            self.repeats.drain(..extra);
        }
        if pushed.is_ok() {
            let ttl_ms = if live { 0 } else { ttl_ms };
            self.records.push(Record { seq, bytes, at: self.now, ttl_ms, fate: Fate::Waiting });
        }
    }

    fn forget_old_repeats(&mut self) {
        self.repeats.retain(|(_, _, until)| *until > self.now);
    }

    /// A stream that is still attached a minute after a replay has read the replay.
    fn confirm_replayed(&mut self) {
        let replayed =
            self.client.as_mut().and_then(|client| client.replayed.take_if(|it| self.now - it.1 >= REPLAY_MS));
        self.confirmed = self.confirmed.max(replayed.map(|(seq, _)| seq).or(self.confirmed));
    }

    fn attach(&mut self, start: Start, known: bool) {
        self.confirm_replayed();
        let attached = self.mailbox.attach(start, 15_000, Millis(self.now)).expect("no newer page is here");
        let began = attached.cursor.seq;
        match start {
            Start::After(cursor) if known => {
                self.confirmed = self.confirmed.max(Some(cursor.seq));
                let gone = self.with(Fate::Gone).any(|record| record.seq > cursor.seq);
                let expected = if gone { Continuity::Broken } else { Continuity::Resumed };
                assert_eq!(attached.continuity, expected);
                assert_eq!(attached.cursor.page, cursor.page);
                assert!(gone || began == cursor.seq);
            }
            Start::After(_) | Start::Unreadable => {
                assert_eq!(attached.continuity, Continuity::Broken);
                self.confirmed = self.confirmed.min(self.passed().checked_sub(1));
            }
            Start::Anew => {
                let may_miss = self.confirmed.is_none_or(|confirmed| self.passed() > confirmed);
                let expected = if may_miss { Continuity::Broken } else { Continuity::New };
                assert_eq!(attached.continuity, expected);
            }
        }
        let later = self.records.iter().filter(|record| record.seq > began && record.fate != Fate::Gone);
        assert_eq!(attached.replayed as usize, later.count());
        let whole = attached.continuity == Continuity::Resumed;
        let page = attached.cursor.page;
        let (generation, since) = (attached.generation, self.now);
        // A device that was told, and whose stream lives on, knows of the gap.
        let replayed = (attached.continuity == Continuity::Broken).then_some((began, self.now));
        self.client = Some(Client { generation, page, seen: began, whole, since, replayed });
        self.cursor = Some(attached.cursor);
    }

    /// Reads the next message, alone or together with the message before it. Says whether there was one.
    fn read(&mut self, together: bool) -> bool {
        let Some(client) = &mut self.client else { return false };
        let (generation, page, now) = (client.generation, client.page, Millis(self.now));
        let next = if together {
            self.mailbox.more(generation, page, now).map_or(Next::Wait, Next::Message)
        } else {
            self.mailbox.next(generation, page, now)
        };
        let expected = self.records.iter_mut().find(|record| record.seq > client.seen && record.fate != Fate::Gone);
        match (next, expected) {
            (Next::Message(Outgoing { cursor, message, has_more, .. }), Some(record)) => {
                assert_eq!(cursor.seq, record.seq, "in order, nothing twice, nothing skipped");
                assert!(!client.whole || cursor.seq == client.seen + 1, "after `resumed` no message is missing");
                assert_eq!(message.data.as_str().parse(), Ok(record.seq));
                if record.fate == Fate::Waiting {
                    (record.fate, record.at) = (Fate::HandedOver, self.now);
                } else {
                    client.replayed = Some((record.seq, self.now));
                }
                client.seen = cursor.seq;
                self.cursor = Some(cursor);
                self.evict();
                let later = self.records.iter().any(|record| record.seq > cursor.seq && record.fate != Fate::Gone);
                assert_eq!(has_more, later, "whether another one is there");
                true
            }
            (Next::Wait | Next::Ping, None) => false,
            (next, expected) => panic!("{next:?} instead of {:?}", expected.map(|record| record.seq)),
        }
    }

    fn wait(&mut self, ms: u64) {
        // An attached client reads everything before time passes.
        while self.read(false) {}
        self.now += ms;
        let checked = self.mailbox.check(WINDOW_MS, Millis(self.now));
        self.evict();
        self.forget_old_repeats();
        let over = self.client.is_none() && self.now - self.left_at >= WINDOW_MS;
        if self.client.is_none() {
            for record in self.records.iter_mut().filter(|record| record.fate == Fate::Waiting) {
                let late = if record.ttl_ms == 0 { over } else { self.now - record.at >= record.ttl_ms };
                record.fate = if late { Fate::Gone } else { Fate::Waiting };
                if late && record.ttl_ms > 0 {
                    self.left_at = self.now;
                }
            }
        }
        let over = self.client.is_none() && self.now - self.left_at >= WINDOW_MS;
        let forget = over && self.with(Fate::Waiting).count() == 0;
        assert_eq!(checked.remove, forget);
        for kind in DeadlineKind::ALL {
            let due = self.mailbox.due(kind, WINDOW_MS);
            assert!(forget || due.is_none_or(|due| due > Millis(self.now)), "{kind:?} is due after a check: {due:?}");
        }
        if forget {
            assert_eq!(self.mailbox.memory(), 0);
            *self = Self::new();
        }
    }

    /// Drops the oldest messages kept for replay while a limit is exceeded, but none that the client still has to get.
    fn evict(&mut self) {
        self.confirm_replayed();
        let seen = self.client.as_ref().map_or(u64::MAX, |client| client.seen);
        let since = self.client.as_ref().map_or(u64::MAX, |client| client.since);
        loop {
            let (count, bytes) = (self.with(Fate::HandedOver).count(), self.bytes(Fate::HandedOver));
            let now = self.now;
            let Some(oldest) = self.records.iter_mut().find(|record| record.fate != Fate::Gone) else { return };
            let over = count > REPLAY || bytes > REPLAY_BYTES || now - oldest.at >= REPLAY_MS;
            if oldest.fate != Fate::HandedOver || oldest.seq > seen || !over {
                return;
            }
            oldest.fate = Fate::Gone;
            if now - oldest.at >= REPLAY_MS && since <= oldest.at {
                self.confirmed = self.confirmed.max(Some(oldest.seq));
            }
        }
    }
}

pub(in crate::hub) fn message(data: Data) -> Arc<SharedMessage> {
    let message = Message { from: None, event: None, data, sent_at: SystemTime::UNIX_EPOCH };
    Arc::new(SharedMessage::new(message, 1, Duration::ZERO, Budget::new(usize::MAX)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_repeated_or_reordered_and_every_gap_is_reported(ops in vec(op(), 1..200)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
            let kept = world.with(Fate::Waiting).count() + world.with(Fate::HandedOver).count();
            prop_assert_eq!(world.mailbox.memory(), kept * ENTRY_BYTES + world.repeats.len() * REPEAT_BYTES);
            prop_assert!(world.with(Fate::Waiting).count() <= WAITING && world.bytes(Fate::Waiting) <= WAITING_BYTES);
        }
    }
}
