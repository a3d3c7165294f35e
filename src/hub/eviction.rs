//! Room for messages: what goes when the memory budget is full, and what is refused when nothing may go.

use std::sync::atomic::Ordering;

use super::{
    Evicted, Hub, HubEvent,
    deadlines::{DeadlineKind, Tick},
    log::ENTRY_COST,
    mailbox::MAILBOX_COST,
};
use crate::{error::Error, model::Address};

impl Hub {
    /// Makes room for so many bytes of a live message.
    ///
    /// First what is kept for replay goes, the oldest first, until messages and unsent responses are within the memory budget.
    /// Then what is held goes, the mailbox first whose hold ends soonest, until messages alone are: no message is refused or dropped
    /// for a peer that does not read. Whoever loses something is told `broken`.
    ///
    /// # Errors
    /// [`Error::OverBudget`] when nothing more may go: what is left waits for live streams.
    pub(super) fn make_room(&self, more: usize) -> Result<(), Error> {
        let budget = &self.0.core.budget;
        self.drop_replayed(more);
        let is_full = || budget.messages() + more > budget.limit();
        while is_full() && self.drop_oldest(DeadlineKind::Held, Evicted::Held) {}
        if is_full() { Err(Error::OverBudget) } else { Ok(()) }
    }

    /// Whether so many bytes more may be held. What is kept for replay makes room for them.
    ///
    /// # Errors
    /// [`Error::OverBudget`]: live traffic goes on.
    pub(super) fn admit_held(&self, bytes: usize) -> Result<(), Error> {
        let (core, limit) = (&self.0.core, self.0.core.limits.hold_budget);
        if limit > 0 && core.totals.held.load(Ordering::Relaxed) + bytes + MAILBOX_COST > limit {
            return Err(Error::OverBudget);
        }
        self.drop_replayed(ENTRY_COST);
        if core.budget.messages() + ENTRY_COST > core.budget.limit() { Err(Error::OverBudget) } else { Ok(()) }
    }

    fn drop_replayed(&self, more: usize) {
        let budget = &self.0.core.budget;
        while budget.messages() + budget.unsent() + more > budget.limit()
            && self.drop_oldest(DeadlineKind::Replay, Evicted::Replayed)
        {}
    }

    /// Drops messages of the first mailbox in the buckets; says whether there was one. Buckets are half a second or so apart.
    fn drop_oldest(&self, deadline: DeadlineKind, kind: Evicted) -> bool {
        let core = &self.0.core;
        let Some((tick, slots)) = core.deadlines.slots(deadline).take(Tick::LAST, 1) else { return false };
        for slot in slots {
            self.observe_evicted(&slot.address, kind, slot.evict(core, deadline, tick, self.now()));
        }
        true
    }

    pub(super) fn observe_evicted(&self, address: &Address, kind: Evicted, messages: usize) {
        if messages > 0 {
            self.observe(&HubEvent::Evicted { address, kind, messages });
        }
    }
}
