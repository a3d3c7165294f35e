//! Where one slot stands in the buckets, and where it has to be entered anew; pure.

use super::{
    deadlines::{FARTHEST_MS, Tick, Why},
    liveness::Millis,
    mailbox::Mailbox,
};

/// The first tick at which a slot stands in the buckets, for each reason.
pub(super) struct Schedule([Tick; Why::ALL.len()]);

impl Default for Schedule {
    fn default() -> Self {
        Self([Tick::NEVER; Why::ALL.len()])
    }
}

impl Schedule {
    /// An entry of the buckets has come; says whether it is the one that counts.
    pub(super) fn take(&mut self, why: Why, tick: Tick) -> bool {
        let entered = &mut self.0[why as usize];
        let counts = *entered == tick;
        if counts {
            *entered = Tick::NEVER;
        }
        counts
    }

    /// The slot stands in the buckets for everything that a live stream needs.
    pub(super) fn is_complete(&self) -> bool {
        self.0[Why::Stream as usize] != Tick::NEVER && self.0[Why::Replay as usize] != Tick::NEVER
    }

    /// The entries that the buckets need, because the slot stands there too late or not at all. Where nothing has `changed`, times
    /// only move to later ones, and an entry that is there is early enough.
    pub(super) fn update(
        &mut self,
        mailbox: &Mailbox,
        changed: bool,
        window_ms: u64,
        now: Millis,
    ) -> [Option<Tick>; Why::ALL.len()] {
        Why::ALL.map(|why| {
            let entered = &mut self.0[why as usize];
            if *entered != Tick::NEVER && !changed {
                return None;
            }
            let due = Tick::not_before(mailbox.due(why, window_ms)?.min(now.after(FARTHEST_MS)));
            (due < *entered).then(|| {
                *entered = due;
                due
            })
        })
    }
}
