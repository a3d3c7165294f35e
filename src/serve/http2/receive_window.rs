//! Notices when request bodies that nobody reads hold half of the flow-control window of a connection.
//!
//! A `SendStream` call whose responses the peer does not read stops reading its requests, and their bytes stay in h2. Some such calls
//! would use up the window that all streams of the connection share, and hold up every other request with a body.
//!
//! hyper does not tell how many bytes a stream holds. But the frames tell what is left of the window: DATA takes from it, and
//! `WINDOW_UPDATE` for stream 0 gives back. This relies on h2 0.4: it gives back what was read as soon as that is half of what is
//! left. So when less than a third is left, more than half of the window is held.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use super::frame_headers::{DATA, FrameHeader, WINDOW_UPDATE};

/// What is left of the window of a connection, in bytes.
#[derive(Clone)]
pub(super) struct ReceiveWindow(Arc<AtomicI64>);

impl ReceiveWindow {
    /// Of a new connection (RFC 9113, section 6.9.2).
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(65_535)))
    }

    /// Counts a frame that was received.
    pub(super) fn on_received(&self, frame: &FrameHeader) {
        if frame.kind == DATA {
            self.0.fetch_sub(frame.length.into(), Ordering::Relaxed);
        }
    }

    /// Counts a frame that was written.
    pub(super) fn on_written(&self, frame: &FrameHeader) {
        if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
            self.0.fetch_add(frame.increment.into(), Ordering::Relaxed);
        }
    }

    /// How many bytes are missing until a third of a window of `size` bytes is left. 0 if that much is left.
    pub(super) fn missing(&self, size: u32) -> usize {
        usize::try_from(i64::from(size / 3) - self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
