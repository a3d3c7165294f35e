//! Counts what is in the hub.

use std::sync::atomic::Ordering;

use super::Hub;

/// How much is in the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Live streams.
    pub streams: usize,
    /// Mailboxes, with and without a stream.
    pub mailboxes: usize,
    /// Watches of a user's devices.
    pub watches: usize,
    /// About how many bytes of memory all messages take: in mailboxes, and until the last stream has written them.
    pub message_bytes: usize,
    /// The bytes of memory that held messages take, with the mailboxes that only hold messages.
    pub held_bytes: usize,
}

impl Hub {
    /// Counts what is in the hub now.
    #[must_use]
    pub fn census(&self) -> Census {
        let core = &self.0.core;
        Census {
            streams: core.totals.streams.load(Ordering::Relaxed),
            mailboxes: core.totals.mailboxes.load(Ordering::Relaxed),
            watches: core.presence.watches(),
            message_bytes: core.budget.messages(),
            held_bytes: core.totals.held_bytes.load(Ordering::Relaxed),
        }
    }
}
