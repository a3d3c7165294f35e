//! Eviction: which messages are dropped when the memory budget is full, and when a new message is refused.

use std::sync::atomic::Ordering;

use super::{
    Event, Evicted, Hub,
    deadlines::DeadlineKind,
    log::{ENTRY_BYTES, held_bytes},
    mailbox::MAILBOX_BYTES,
    time::Tick,
};
use crate::{auth::TenantAddress, error::Error, model::Message};

impl Hub {
    /// Makes room for `more` bytes. A message asks only for [`ENTRY_BYTES`]: its own bytes count since its `SharedMessage` was made.
    ///
    /// First drops messages that are kept for replay, the oldest first, until messages and unsent responses together fit into the
    /// memory budget. Then drops the waiting messages of absent devices, mailbox by mailbox, roughly in the order in which they
    /// expire, until the messages alone fit. Unsent responses do not count in this second step: a peer that does not read must not
    /// cost another peer its messages. A device that lost a message is told `broken`.
    ///
    /// # Errors
    /// [`Error::OverBudget`] when the messages that are left wait for live streams and may not be dropped.
    pub(super) fn make_room(&self, more: usize) -> Result<(), Error> {
        self.drop_replay(more);
        while self.is_full(more) && self.drop_oldest(Evicted::Waiting) {}
        if self.is_full(more) { Err(Error::OVER_BUDGET) } else { Ok(()) }
    }

    /// Checks that a message may be held for a device. Drops replayable messages to make room. The memory budget has
    /// counted the message already, the hold budget has not.
    ///
    /// # Errors
    /// [`Error::OverBudget`] when one of the two budgets is full. Live messages are still accepted.
    pub(super) fn admit_held(&self, to: &TenantAddress, message: &Message) -> Result<(), Error> {
        let (core, limit) = (&self.0.core, self.0.core.limits.hold_budget);
        let mailbox = if core.registry.find(to).is_none() { MAILBOX_BYTES } else { 0 };
        if limit > 0 && core.totals.held_bytes.load(Ordering::Relaxed) + held_bytes(message) + mailbox > limit {
            return Err(Error::OVER_HOLD_BUDGET);
        }
        self.drop_replay_for(ENTRY_BYTES)
    }

    /// As [`Hub::make_room`], but drops only messages that are kept for replay.
    ///
    /// # Errors
    /// [`Error::OverBudget`] when that is not enough.
    pub(super) fn drop_replay_for(&self, more: usize) -> Result<(), Error> {
        self.drop_replay(more);
        if self.is_full(more) { Err(Error::OVER_BUDGET) } else { Ok(()) }
    }

    /// Whether messages alone, with `more` bytes, exceed the memory budget.
    fn is_full(&self, more: usize) -> bool {
        self.0.core.budget.messages() + more > self.0.core.budget.limit()
    }

    fn drop_replay(&self, more: usize) {
        let budget = &self.0.core.budget;
        while budget.messages() + budget.unsent() + more > budget.limit() && self.drop_oldest(Evicted::Replay) {}
    }

    /// Drops messages of the mailbox with the earliest deadline of a kind. Says whether there is such a mailbox.
    fn drop_oldest(&self, kind: Evicted) -> bool {
        let core = &self.0.core;
        let Some((tick, slots)) = core.deadlines.slots(kind.into()).take(Tick::LAST, 1) else { return false };
        for slot in slots {
            self.observe_evicted(&slot.address, kind, slot.evict(core, kind, tick, self.now()));
        }
        true
    }

    pub(super) fn observe_evicted(&self, address: &TenantAddress, kind: Evicted, messages: usize) {
        if messages > 0 {
            self.observe(&Event::Evicted { address, kind, messages });
        }
    }
}

/// The deadline that finds the mailboxes with such messages.
impl From<Evicted> for DeadlineKind {
    fn from(kind: Evicted) -> Self {
        match kind {
            Evicted::Replay => Self::Replay,
            Evicted::Waiting => Self::Waiting,
        }
    }
}
