//! The memory budget: how many bytes messages and unsent responses take together, counted by the hub and the transport.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A cheap handle to the one budget of this process.
///
/// The hub counts messages and makes room for new ones. The transport counts the bytes that wait for their peers, and cuts the
/// streams that have waited longest when the budget is exceeded.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limit: usize,
    messages: AtomicUsize,
    unsent: AtomicUsize,
}

impl Budget {
    /// An unused budget of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Counts { limit, messages: AtomicUsize::new(0), unsent: AtomicUsize::new(0) }))
    }

    /// The bytes that both kinds may take together.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// The bytes that messages take: in mailboxes, on their way into one, and while a stream still writes them.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.0.messages.load(Ordering::Relaxed)
    }

    /// The bytes of responses that their peers have not taken yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.0.unsent.load(Ordering::Relaxed)
    }

    /// Both kinds together take more than the limit, and unsent responses more than their share of it.
    ///
    /// Messages that are kept for replay may fill the budget, and go when a message needs room. So a few unsent bytes are no reason
    /// to cut a peer that is only slow.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        let (unsent, limit) = (self.unsent(), self.0.limit);
        self.messages() + unsent > limit && unsent > limit / UNSENT_SHARE
    }

    /// Counts bytes of messages that were so many before and are so many now.
    pub fn change_messages(&self, before: usize, now: usize) {
        if before != now {
            // Wrapping, so that less is added too.
            self.0.messages.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Counts bytes of messages.
    pub fn add_messages(&self, bytes: usize) {
        self.0.messages.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of messages no longer.
    pub fn remove_messages(&self, bytes: usize) {
        self.0.messages.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of a response that its peer has not taken yet.
    pub fn add_unsent(&self, bytes: usize) {
        self.0.unsent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes of a response no longer: its peer has taken them, or never will.
    pub fn remove_unsent(&self, bytes: usize) {
        self.0.unsent.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The part of the budget that unsent responses may always take: one in so many.
const UNSENT_SHARE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_unsent_responses_share_the_limit() {
        let budget = Budget::new(10);
        budget.add_messages(6);
        budget.add_unsent(4);
        assert!(!budget.is_exceeded());
        budget.add_unsent(1);
        assert!(budget.is_exceeded());
        budget.remove_messages(6);
        assert_eq!((budget.messages(), budget.unsent(), budget.is_exceeded()), (0, 5, false));
        budget.remove_unsent(3);
        budget.add_messages(10);
        assert!(!budget.is_exceeded(), "messages that fill the budget are no reason to cut a slow peer");
    }
}
