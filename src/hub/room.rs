//! Room for messages: what goes when the memory budget is full, and what is refused when nothing may go.

use std::sync::atomic::Ordering;

use super::{
    Hub,
    deadlines::{Tick, Why},
    mailbox::MAILBOX_COST,
};
use crate::error::Error;

impl Hub {
    /// Makes room until all messages, and so many bytes more, are within the memory budget: what was handed over and is kept for replay goes first, then
    /// what is held, the oldest of each first. Whoever loses something is told `broken`.
    ///
    /// # Errors
    /// [`Error::OverBudget`] when nothing more may go: what is left waits for live streams.
    pub(super) fn make_room(&self, more: usize) -> Result<(), Error> {
        let budget = &self.0.core.budget;
        let is_full = || budget.messages() + more > budget.limit();
        for (why, kind) in [(Why::Replay, "replayed"), (Why::Held, "held")] {
            while is_full() {
                let Some(dropped) = self.drop_oldest(why) else { break };
                self.0.metrics.evicted(kind, dropped);
            }
        }
        if is_full() { Err(Error::OverBudget) } else { Ok(()) }
    }

    /// Drops what is oldest, to half a second or so; `None` when there is nothing.
    fn drop_oldest(&self, why: Why) -> Option<usize> {
        let core = &self.0.core;
        // The buckets are in the order in which their messages came.
        let (tick, slots) = core.deadlines.slots(why).take(Tick::NEVER, 1)?;
        Some(slots.iter().map(|slot| slot.make_room(core, why, tick, self.now())).sum())
    }

    /// Whether so many bytes more may be held.
    ///
    /// # Errors
    /// [`Error::OverBudget`]: live traffic goes on.
    pub(super) fn admit_held(&self, bytes: usize) -> Result<(), Error> {
        let (core, budget) = (&self.0.core, self.0.core.limits.hold_budget);
        let over = budget > 0 && core.totals.held.load(Ordering::Relaxed) + bytes + MAILBOX_COST > budget;
        if over || core.budget.messages() > core.budget.limit() { Err(Error::OverBudget) } else { Ok(()) }
    }
}
