//! What can happen to a mailbox, at random.

use proptest::prelude::*;

use super::mailbox_properties::EPOCH;
use crate::model::{Cursor, Start};

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// With a key that an earlier push may have had.
    Push {
        bytes: usize,
        ttl_ms: u64,
        key: Option<u128>,
    },
    /// Attach with the last cursor that the client has seen, less a few messages.
    Return {
        back: u64,
    },
    Anew,
    Stranger(Start),
    /// Take at most this many messages.
    Read(usize),
    Detach,
    Wait(u64),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let stranger = prop_oneof![
        Just(Start::Unreadable),
        (0..200u64).prop_map(|seq| Start::After(Cursor { epoch: 1, page: 1, seq })),
        Just(Start::After(Cursor { epoch: EPOCH, page: 1, seq: 1 << 40 })),
        Just(Start::After(Cursor { epoch: EPOCH, page: 1 << 30, seq: 0 })),
    ];
    prop_oneof![
        8 => (
            prop_oneof![4 => 1..300usize, 1 => 40_000..100_000usize],
            prop_oneof![Just(0), 1_000..50_000u64],
            prop_oneof![Just(None), (0..9u128).prop_map(Some), (0..200u128).prop_map(Some)],
        )
            .prop_map(|(bytes, ttl_ms, key)| Op::Push { bytes, ttl_ms, key }),
        2 => (0..4u64).prop_map(|back| Op::Return { back }),
        1 => Just(Op::Anew),
        1 => stranger.prop_map(Op::Stranger),
        6 => (1..100usize).prop_map(Op::Read),
        1 => Just(Op::Detach),
        2 => prop_oneof![0..60u64, 200..1_400u64].prop_map(|steps| Op::Wait(50 * steps)),
    ]
}
