//! A mailbox that moves at any moment, beside one that does not: both do the same.

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*};

use super::{
    super::{
        Sending,
        deadlines::DeadlineKind,
        mailbox::{Attachment, Checked, Mailbox, Next, Outgoing},
        shared_message::SharedMessage,
        time::Millis,
    },
    mailbox_properties::{EPOCH, WINDOW_MS, message},
};
use crate::{
    error::Error,
    model::{Cursor, Data, Message, Start},
};

#[derive(Clone, Debug)]
pub(super) enum Op {
    Push {
        bytes: usize,
        ttl_ms: u64,
        key: Option<u128>,
    },
    Attach(Beginning),
    Read(usize),
    Detach,
    Wait(u64),
    EvictReplay,
    DropWaiting,
    /// The mailbox goes to a node whose clock shows this much, for a stream there or for none.
    Move {
        clock: u64,
        to: Option<Beginning>,
    },
}

/// Where a stream begins.
#[derive(Clone, Debug)]
pub(super) enum Beginning {
    Anew,
    /// After the newest cursor of a stream that was opened this many streams ago, less a few messages.
    Return {
        streams: usize,
        back: u64,
    },
    Stranger,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let beginning = || {
        prop_oneof![
            1 => Just(Beginning::Anew),
            4 => (0..3usize, 0..4u64).prop_map(|(streams, back)| Beginning::Return { streams, back }),
            1 => Just(Beginning::Stranger),
        ]
    };
    prop_oneof![
        8 => (prop_oneof![4 => 1..300usize, 1 => 40_000..100_000usize], prop_oneof![Just(0), 1..50_000u64], option::weighted(0.2, 0..9u128)).prop_map(|(bytes, ttl_ms, key)| Op::Push { bytes, ttl_ms, key }),
        2 => beginning().prop_map(Op::Attach),
        6 => (1..100usize).prop_map(Op::Read),
        1 => Just(Op::Detach),
        3 => prop_oneof![0..3_000u64, 10_000..70_000u64].prop_map(Op::Wait),
        1 => Just(Op::EvictReplay),
        1 => Just(Op::DropWaiting),
        3 => (0..40_000u64, option::of(beginning())).prop_map(|(clock, to)| Op::Move { clock, to }),
    ]
}

/// One mailbox that stays, and one that moves. `ahead` is how far the clock of the second one's node is ahead.
pub(super) struct World {
    pub(super) stays: Mailbox,
    moves: Mailbox,
    now: u64,
    ahead: u64,
    /// The attached stream, and the newest cursor of each stream that there was.
    stream: Option<Attachment>,
    cursors: Vec<Cursor>,
}

/// A clock is never behind the age of a message.
pub(super) const OLDEST: u64 = 10_000_000;

pub(super) fn read(
    (mailbox, now): (&mut Mailbox, Millis),
    stream: Attachment,
) -> Option<(Cursor, Arc<SharedMessage>, bool)> {
    match mailbox.next(stream.generation, stream.cursor.page, now) {
        Next::Message(Outgoing { cursor, message, has_more, .. }) => Some((cursor, message, has_more)),
        Next::Wait | Next::Ping => None,
        other => panic!("{other:?} of the attached stream"),
    }
}

impl World {
    pub(super) fn new() -> Self {
        let new = || Mailbox::new(EPOCH, Millis(OLDEST));
        Self::of(new(), new())
    }

    pub(super) fn of(stays: Mailbox, moves: Mailbox) -> Self {
        Self { stays, moves, now: OLDEST, ahead: 0, stream: None, cursors: Vec::new() }
    }

    /// Does the same to both, each at the time of its own node. Both have to answer the same.
    fn both<T: PartialEq + std::fmt::Debug>(&mut self, mut change: impl FnMut(&mut Mailbox, Millis) -> T) -> T {
        let stays = change(&mut self.stays, Millis(self.now));
        let moves = change(&mut self.moves, Millis(self.now + self.ahead));
        assert_eq!(moves, stays);
        stays
    }

    fn start(&self, beginning: &Beginning) -> Start {
        match *beginning {
            Beginning::Anew => Start::Anew,
            Beginning::Stranger => Start::After(Cursor { epoch: 1, page: 1, seq: 1 }),
            Beginning::Return { streams, back } => match self.cursors.iter().rev().nth(streams) {
                Some(cursor) => Start::After(Cursor { seq: cursor.seq.saturating_sub(back), ..*cursor }),
                None => Start::Anew,
            },
        }
    }

    fn opened(&mut self, attached: Result<Attachment, Error>) {
        let Ok(attached) = attached else { return };
        self.stream = Some(attached);
        self.cursors.push(attached.cursor);
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Push { bytes, ttl_ms, key } => {
                let shared = message(Data::new("x".repeat(bytes)).expect("not empty"));
                self.both(|mailbox, now| mailbox.push(shared.clone(), Sending { ttl_ms, key }, now)).ok();
            }
            Op::Attach(ref beginning) => {
                let start = self.start(beginning);
                let attached = self.both(|mailbox, now| mailbox.attach(start, 15_000, now));
                self.opened(attached);
            }
            Op::Read(most) => {
                for _ in 0..most {
                    let Some(stream) = self.stream else { return };
                    let Some((cursor, ..)) = self.both(|mailbox, now| read((mailbox, now), stream)) else { return };
                    self.cursors.last_mut().expect("of this stream").clone_from(&cursor);
                }
            }
            Op::Detach => {
                let Some(stream) = self.stream.take() else { return };
                self.both(|mailbox, now| mailbox.leave(stream.generation, stream.cursor.page, now));
            }
            Op::Wait(ms) => {
                self.now += ms;
                // Pings are on a grid of the node's own clock.
                let check = |mailbox: &mut Mailbox, now| Checked { wake: false, ..mailbox.check(WINDOW_MS, now) };
                if self.both(check).remove {
                    *self = Self::new();
                }
            }
            Op::EvictReplay => drop(self.both(|mailbox, _| mailbox.evict_oldest())),
            Op::DropWaiting => drop(self.both(Mailbox::drop_waiting)),
            Op::Move { clock, ref to } => self.go(clock, to.as_ref().map(|to| self.start(to))),
        }
        self.compare();
    }

    /// Moves one mailbox. Without a new stream, the attached one leaves the other mailbox at that moment.
    fn go(&mut self, clock: u64, start: Option<Start>) {
        let (here, old) = (Millis(self.now), self.stream);
        let departed = self.moves.depart(start, Millis(self.now + self.ahead));
        let Ok(parcel) = departed else {
            let refused = self.stays.attach(start.expect("it is refused"), 15_000, here);
            assert_eq!((refused, departed.map(|_| ())), (Err(Error::Superseded), Err(Error::Superseded)));
            return;
        };
        // The clocks show different times at the same tick, as a deadline is only as exact as a tick.
        self.ahead = 50 * clock;
        let there = Millis(self.now + self.ahead);
        let share = |message: Message, _| super::mailbox_properties::message(message.data);
        let mut left = std::mem::replace(&mut self.moves, Mailbox::restore(parcel, 7, there, share));
        self.stream = None;
        if let Some(start) = start {
            let attached = self.both(|mailbox, now| mailbox.attach(start, 15_000, now));
            self.opened(attached);
            if let Some(old) = old {
                let end = |mailbox: &mut Mailbox| mailbox.next(old.generation, old.cursor.page, here);
                assert_eq!(end(&mut left), end(&mut self.stays), "how the old stream ends");
            }
        } else if let Some(old) = old {
            self.stays.detach(old.generation, here);
            assert_eq!(left.next(old.generation, old.cursor.page, here), Next::Replaced);
        }
    }

    fn compare(&mut self) {
        let (ahead, page) = (self.ahead, |mailbox: &Mailbox| (mailbox.live_page(), mailbox.only_holds()));
        self.both(|mailbox, _| (mailbox.memory(), mailbox.held(), page(mailbox), mailbox.standing(0).number));
        for kind in DeadlineKind::ALL {
            let due = self.stays.due(kind, WINDOW_MS).map(|due| due.after(ahead));
            let is_ping = self.stays.has_stream() && kind == DeadlineKind::Stream;
            if !is_ping {
                assert_eq!(self.moves.due(kind, WINDOW_MS), due, "{kind:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mailbox_that_moves_at_any_moment_does_what_one_that_stays_does(ops in vec(op(), 1..150)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
    }
}
