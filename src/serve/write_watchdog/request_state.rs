//! What is known of the request body of an HTTP/2 stream: whether it may hold a part of the connection's receive window.

use std::sync::atomic::{AtomicU8, Ordering};

/// Begins without a body.
pub(in crate::serve) struct RequestState(AtomicU8);

impl RequestState {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(NO_BODY))
    }

    /// The request has a body that was not read to its end yet.
    pub(in crate::serve) fn set_open(&self) {
        self.0.store(OPEN_BODY, Ordering::Relaxed);
    }

    /// The body was read to its end.
    pub(in crate::serve) fn set_read(&self) {
        self.0.store(NO_BODY, Ordering::Relaxed);
    }

    /// No more of the open body can be read ahead of its handler, or more can be read again.
    pub(in crate::serve) fn set_full(&self, is_full: bool) {
        let (from, to) = if is_full { (OPEN_BODY, FULL_BODY) } else { (FULL_BODY, OPEN_BODY) };
        // Not a store, which could undo a refusal.
        let _ = self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The rest of the body must not be read.
    pub(super) fn refuse(&self) {
        self.0.store(REFUSED_BODY, Ordering::Release);
    }

    /// Whether frames of the body may wait in h2.
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FULL_BODY
    }

    pub(in crate::serve) fn is_refused(&self) -> bool {
        self.0.load(Ordering::Acquire) == REFUSED_BODY
    }
}

const NO_BODY: u8 = 0;
const OPEN_BODY: u8 = 1;
const FULL_BODY: u8 = 2;
const REFUSED_BODY: u8 = 3;
