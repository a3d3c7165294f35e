//! Watches streams whose task has ended while h2 still holds unsent bytes of them.
//!
//! hyper ends the task of a stream when h2 has capacity for the whole response. A peer can take capacity back with a smaller
//! window, and then the bytes stay in h2. h2 gives no way to reset such a stream from outside, so the connection ends instead.

use std::{sync::Arc, task::Waker};

use super::streams::Streams;
use crate::serve::write_watchdog::{PIECE, waiter::Waiter};

/// The closed streams of one connection that h2 still holds bytes of.
pub(super) struct UnflushedStreams {
    streams: Arc<Streams>,
    waiters: Vec<Arc<Waiter>>,
    /// The value of [`Streams::removed`] when the peer last took a whole piece.
    removed: usize,
}

impl UnflushedStreams {
    pub(super) fn new(streams: Arc<Streams>) -> Self {
        Self { streams, waiters: Vec::new(), removed: 0 }
    }

    /// Call this after each poll of the connection. Returns whether the watchdog has cut one of these streams; then the
    /// connection must end.
    pub(super) fn check(&mut self, waker: &Waker) -> bool {
        self.streams.take_unflushed(&mut self.waiters, waker);
        if self.waiters.is_empty() {
            return false;
        }
        self.waiters.retain(|waiter| {
            let is_unflushed = waiter.unsent() > 0;
            if !is_unflushed {
                waiter.stop_waiting();
            }
            is_unflushed
        });
        let removed = self.streams.removed();
        let peer_reads = removed.wrapping_sub(self.removed) >= PIECE;
        if peer_reads || self.waiters.is_empty() {
            self.removed = removed;
        }
        self.waiters.iter().for_each(|waiter| waiter.start_waiting(self.streams.watchdog(), peer_reads, waker));
        self.waiters.iter().any(|waiter| waiter.is_cut())
    }
}

impl Drop for UnflushedStreams {
    fn drop(&mut self) {
        self.streams.end_unflushed().iter().chain(&self.waiters).for_each(|waiter| waiter.stop_waiting());
    }
}
