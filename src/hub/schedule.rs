//! For each deadline of one slot, the tick of its valid entry in the buckets. Pure.

use super::{
    deadlines::{DeadlineKind, FARTHEST_MS},
    mailbox::Mailbox,
    time::{Millis, Tick},
};

/// For each kind of deadline, the tick of the slot's valid entry in the buckets, if it has one.
#[derive(Default)]
pub(super) struct Schedule([Option<Tick>; DeadlineKind::ALL.len()]);

impl Schedule {
    /// Takes an entry that came up. Says whether it is the valid one. Other entries are outdated and must be ignored.
    pub(super) fn take(&mut self, kind: DeadlineKind, tick: Tick) -> bool {
        let scheduled = &mut self.0[kind as usize];
        scheduled.take_if(|scheduled| *scheduled == tick).is_some()
    }

    /// Whether an unchanged slot needs no new entry: the usual case of a live stream, which then computes no deadline.
    pub(super) fn is_complete(&self) -> bool {
        self.0[DeadlineKind::Stream as usize].is_some() && self.0[DeadlineKind::Replay as usize].is_some()
    }

    /// Returns the new entries that the buckets need: for a deadline without an entry, or earlier than its entry. When nothing has
    /// `changed`, deadlines only become later, so an entry that exists is early enough.
    pub(super) fn update(
        &mut self,
        mailbox: &Mailbox,
        changed: bool,
        window_ms: u64,
        now: Millis,
    ) -> [Option<Tick>; DeadlineKind::ALL.len()] {
        DeadlineKind::ALL.map(|kind| {
            let scheduled = &mut self.0[kind as usize];
            if scheduled.is_some() && !changed {
                return None;
            }
            let due = Tick::not_before(mailbox.due(kind, window_ms)?.min(now.after(FARTHEST_MS)));
            scheduled.is_none_or(|scheduled| due < scheduled).then(|| *scheduled.insert(due))
        })
    }
}
