//! Where one slot stands in the buckets, and where it has to be entered anew; pure.

use super::{
    deadlines::{DeadlineKind, FARTHEST_MS, Tick},
    liveness::Millis,
    mailbox::Mailbox,
};

/// The first tick at which a slot stands in the buckets, for each reason.
#[derive(Default)]
pub(super) struct Schedule([Option<Tick>; DeadlineKind::ALL.len()]);

impl Schedule {
    /// An entry of the buckets has come; says whether it is the one that counts.
    pub(super) fn take(&mut self, kind: DeadlineKind, tick: Tick) -> bool {
        let scheduled = &mut self.0[kind as usize];
        scheduled.take_if(|scheduled| *scheduled == tick).is_some()
    }

    /// The slot stands in the buckets for everything that a live stream needs.
    pub(super) fn is_complete(&self) -> bool {
        self.0[DeadlineKind::Stream as usize].is_some() && self.0[DeadlineKind::Replay as usize].is_some()
    }

    /// The entries that the buckets need, because the slot stands there too late or not at all. Where nothing has `changed`, times
    /// only move to later ones, and an entry that is there is early enough.
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
