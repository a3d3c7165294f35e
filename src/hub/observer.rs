//! The observer: the hub tells it what happens. The metrics are an observer.

use std::time::Duration;

use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    model::{Continuity, EndReason, Outcome},
};

/// One thing that happened in the hub. It carries no message data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A device opened a stream.
    Opened {
        /// The device.
        address: &'a TenantAddress,
        /// How the stream relates to the one before it.
        continuity: Continuity,
        /// How many stored messages the stream begins with.
        replayed: u32,
    },
    /// A stream or a watch was refused.
    StreamRefused {
        /// Why.
        error: Error,
    },
    /// A device's stream is over.
    Ended {
        /// The device.
        address: &'a TenantAddress,
        /// Why the server ended the stream. `None`: its client left, its page has another stream, or the mailbox was removed.
        reason: Option<EndReason>,
    },
    /// A watch of a user's devices is over.
    WatchEnded {
        /// The user.
        user: &'a TenantUser,
        /// Why the server ended the watch. `None`: its client left.
        reason: Option<EndReason>,
    },
    /// A message to one device was accepted or refused. A broadcast is one such event for each connected device of this node, and for
    /// each device of another node that got it.
    Sent {
        /// The device.
        to: &'a TenantAddress,
        /// What became of the message.
        outcome: Result<Outcome, Error>,
    },
    /// A stream has written a message. Only one live message in 16 of each mailbox is measured, and at most one of the messages that
    /// are written together.
    Written {
        /// The device.
        address: &'a TenantAddress,
        /// The time since the hub accepted the message.
        latency: Duration,
    },
    /// A broadcast was refused before it reached a device, no device was connected, or nobody knows what became of it on another node.
    BroadcastRefused {
        /// The user.
        to: &'a TenantUser,
        /// Why.
        error: Error,
    },
    /// Messages were dropped because their device did not take them in time.
    Expired {
        /// The device.
        address: &'a TenantAddress,
        /// How many.
        messages: usize,
    },
    /// Messages were dropped before their time, to make room.
    Evicted {
        /// The device.
        address: &'a TenantAddress,
        /// Which messages.
        kind: Evicted,
        /// How many.
        messages: usize,
    },
}

/// Which messages were dropped to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// Messages that were handed over and kept for replay.
    Replay,
    /// Messages that waited for an absent device.
    Waiting,
}

/// The hub tells its observer what happens.
///
/// The hub calls its observer on the thread that caused the event, with no lock held, and waits for it. So `observe` must return at
/// once and never block. An observer that works slowly, such as a webhook, puts the event into a bounded queue, and counts the
/// events that it drops when the queue is full. Events of different threads may arrive out of order.
pub trait Observer: Send + Sync + 'static {
    /// Takes note of one event.
    fn observe(&self, event: &Event<'_>);
}

/// Observes nothing.
impl Observer for () {
    fn observe(&self, _event: &Event<'_>) {}
}
