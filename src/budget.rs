//! The memory budget: counts the bytes of messages in the hub and of unsent responses in the transport against one limit.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A handle to the one budget of this process; a clone shares its counters.
///
/// The hub counts messages, and removes old ones when a new one does not fit. The transport counts the bytes that peers have not
/// read yet, and when the budget is exceeded it cuts the streams that have waited longest for their peers.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limit: usize,
    messages: AtomicUsize,
    unsent: AtomicUsize,
}

impl Budget {
    /// A budget with this limit in bytes, of which nothing is used.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Counts { limit, messages: AtomicUsize::new(0), unsent: AtomicUsize::new(0) }))
    }

    /// The bytes that messages and unsent responses may take together.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// The bytes of messages: in mailboxes, on their way into one, and while a stream still writes them.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.0.messages.load(Ordering::Relaxed)
    }

    /// The bytes of responses that their peers have not taken yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.0.unsent.load(Ordering::Relaxed)
    }

    /// How many unsent bytes are too many: as many as all bytes exceed the limit by, but never more than unsent bytes exceed a
    /// quarter of the limit by.
    ///
    /// Messages that are kept for replay may fill the whole budget; the hub removes them when a new message needs the memory.
    /// Without the quarter, a full budget would cut a peer that is only slow.
    #[must_use]
    pub fn excess(&self) -> usize {
        let (unsent, limit) = (self.unsent(), self.0.limit);
        (self.messages() + unsent).saturating_sub(limit).min(unsent.saturating_sub(limit / UNSENT_DIVISOR))
    }

    /// Counts `now` bytes of messages instead of the `before` bytes that were counted so far.
    pub fn change_messages(&self, before: usize, now: usize) {
        if before != now {
            // Wrapping, so that adding a negative difference subtracts.
            self.0.messages.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Counts bytes of messages.
    pub fn add_messages(&self, bytes: usize) {
        self.0.messages.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Stops counting bytes of messages.
    pub fn remove_messages(&self, bytes: usize) {
        self.0.messages.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of a response that its peer has not taken yet.
    pub fn add_unsent(&self, bytes: usize) {
        self.0.unsent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Stops counting bytes of a response: its peer has taken them, or the stream has ended.
    pub fn remove_unsent(&self, bytes: usize) {
        self.0.unsent.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Unsent responses may always take a quarter of the budget.
const UNSENT_DIVISOR: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_unsent_responses_share_the_limit() {
        let budget = Budget::new(10);
        budget.add_messages(6);
        budget.add_unsent(4);
        assert_eq!(budget.excess(), 0);
        budget.add_unsent(1);
        assert_eq!(budget.excess(), 1);
        budget.remove_messages(6);
        assert_eq!((budget.messages(), budget.unsent(), budget.excess()), (0, 5, 0));
        budget.remove_unsent(3);
        budget.add_messages(10);
        assert_eq!(budget.excess(), 0, "messages that fill the budget are no reason to cut a slow peer");
        budget.add_unsent(1);
        assert_eq!(budget.excess(), 1, "a quarter of the budget is always for unsent responses");
    }
}
