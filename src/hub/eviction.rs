//! Eviction: which messages are dropped when the memory budget is full, and when a new message is refused.

use std::sync::atomic::Ordering;

use super::{Evicted, Hub, HubEvent, deadlines::DeadlineKind, log::ENTRY_BYTES, mailbox::MAILBOX_BYTES, time::Tick};
use crate::{error::Error, model::Address};

impl Hub {
    /// Makes room for `more` bytes of a live message.
    ///
    /// First drops messages that are kept for replay, the oldest first, until messages and unsent responses together fit into the
    /// memory budget. Then drops held messages, the next to expire first, until the messages alone fit: no message is lost or
    /// refused because another peer does not read. A device that lost a message is told `broken`.
    ///
    /// # Errors
    /// [`Error::OverBudget`] when the messages that are left wait for live streams and may not be dropped.
    pub(super) fn make_room(&self, more: usize) -> Result<(), Error> {
        let budget = &self.0.core.budget;
        self.drop_replay(more);
        let is_full = || budget.messages() + more > budget.limit();
        while is_full() && self.drop_oldest(DeadlineKind::Waiting, Evicted::Waiting) {}
        if is_full() { Err(Error::OVER_BUDGET) } else { Ok(()) }
    }

    /// Checks that `bytes` more may be held. Drops messages that are kept for replay to make room.
    ///
    /// # Errors
    /// [`Error::OverBudget`] when one of the two budgets is full. Live messages are still accepted.
    pub(super) fn admit_held(&self, bytes: usize) -> Result<(), Error> {
        let (core, limit) = (&self.0.core, self.0.core.limits.hold_budget);
        if limit > 0 && core.totals.held_bytes.load(Ordering::Relaxed) + bytes + MAILBOX_BYTES > limit {
            return Err(Error::OVER_BUDGET);
        }
        self.drop_replay(ENTRY_BYTES);
        if core.budget.messages() + ENTRY_BYTES > core.budget.limit() { Err(Error::OVER_BUDGET) } else { Ok(()) }
    }

    fn drop_replay(&self, more: usize) {
        let budget = &self.0.core.budget;
        while budget.messages() + budget.unsent() + more > budget.limit()
            && self.drop_oldest(DeadlineKind::Replay, Evicted::Replay)
        {}
    }

    /// Drops messages of the mailbox with the earliest deadline of a kind. Says whether there is such a mailbox.
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
