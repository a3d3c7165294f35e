//! Notices when request bodies that nobody reads use up what the streams of a connection share: half of its flow-control window, or
//! a quarter of h2's budget for small DATA frames.
//!
//! A `SendStream` call whose responses the peer does not read stops reading its requests, and their bytes stay in h2. Some such calls
//! would use up the window, and hold up every other request with a body. If their frames are small, they would use up the budget
//! first, and h2 would end the connection (`too_many_data_frames`).
//!
//! hyper does not tell how many bytes a stream holds. But the frames tell what is left of the window: DATA takes from it, and
//! `WINDOW_UPDATE` for stream 0 gives back. This relies on h2 0.4: it gives back what was read as soon as that is half of what is
//! left. So when less than a third is left, more than half of the window is held.
//!
//! The budget is counted as h2 0.4.20 counts it: a frame of less than [`SMALL`] bytes costs what it lacks until it is read, and a
//! larger frame refunds what it exceeds. What comes for a body that was dropped is never refunded, so a refused body is kept and read.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use super::{
    CONNECTION_WINDOW, STREAM_WINDOW,
    frame_headers::{DATA, END_STREAM, FrameHeader, WINDOW_UPDATE},
};

/// What request bodies that were not read yet hold of a connection.
#[derive(Clone)]
pub(in crate::serve) struct ReceiveWindow(Arc<Counts>);

struct Counts {
    /// What is left of the window, in bytes.
    left: AtomicI64,
    /// What small frames have used of h2's budget.
    small_frames: AtomicUsize,
}

impl ReceiveWindow {
    /// Of a new connection (RFC 9113, section 6.9.2).
    pub(super) fn new() -> Self {
        Self(Arc::new(Counts { left: AtomicI64::new(65_535), small_frames: AtomicUsize::new(0) }))
    }

    /// Counts a frame that was received.
    pub(super) fn on_received(&self, frame: &FrameHeader) {
        if frame.kind != DATA {
            return;
        }
        self.0.left.fetch_sub(frame.length.into(), Ordering::Relaxed);
        let payload = (frame.length - frame.padding) as usize;
        if frame.flags & END_STREAM != 0 || payload == 0 {
            return;
        }
        if payload < SMALL {
            self.0.small_frames.fetch_add(SMALL - payload, Ordering::Relaxed);
        } else {
            self.refund(payload - SMALL);
        }
    }

    /// Counts a frame that was written.
    pub(super) fn on_written(&self, frame: &FrameHeader) {
        if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
            self.0.left.fetch_add(frame.increment.into(), Ordering::Relaxed);
        }
    }

    /// A handler has read a DATA frame that was not the last one. Returns whether the connection must not read before that and may
    /// read now.
    pub(super) fn on_frame_read(&self, payload: usize) -> bool {
        payload > 0 && payload < SMALL && self.refund(SMALL - payload) >= PAUSE && !self.must_pause()
    }

    /// Takes all small frames as read. Some can never be read: h2 drops those of streams that it has forgotten, and hyper drops
    /// the body of a CONNECT. Counting them on would stop the connection again and again.
    pub(in crate::serve) fn forget_small_frames(&self) {
        self.0.small_frames.store(0, Ordering::Relaxed);
    }

    /// Returns what was used before.
    fn refund(&self, amount: usize) -> usize {
        let refund = |used: usize| Some(used.saturating_sub(amount));
        self.0.small_frames.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refund).unwrap_or_default()
    }

    /// How many calls must end so that the others can go on.
    pub(super) fn calls_to_end(&self) -> usize {
        // Bytes that are missing until a third of the window is left. Each call may hold the window of a whole stream.
        let missing = i64::from(CONNECTION_WINDOW / 3) - self.0.left.load(Ordering::Relaxed);
        let for_window = usize::try_from(missing).unwrap_or(0).div_ceil(STREAM_WINDOW as usize);
        // One at a time, because a single call may have sent all small frames.
        for_window.max((self.0.small_frames.load(Ordering::Relaxed) >= REPORT).into())
    }

    /// Whether small frames have used so much of the budget that the connection must not read before some of them are read.
    pub(super) fn must_pause(&self) -> bool {
        self.0.small_frames.load(Ordering::Relaxed) >= PAUSE
    }
}

/// A DATA frame with a shorter payload is small for h2.
const SMALL: usize = 256;
/// h2's budget for small frames.
const BUDGET: usize = CONNECTION_WINDOW as usize / 2;
/// From which use on calls are ended, and from which on the connection does not read. One read budget of 4 KiB has at most 104 KiB
/// of small frames.
const REPORT: usize = BUDGET / 4;
const PAUSE: usize = BUDGET / 2;

#[cfg(test)]
mod tests {
    use super::*;

    impl ReceiveWindow {
        pub(in crate::serve::http2) fn small_frames(&self) -> usize {
            self.0.small_frames.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn small_frames_are_counted_as_h2_counts_them() {
        let data = FrameHeader { kind: DATA, flags: 0, length: 100, stream: 1, increment: 0, padding: 0 };
        let window = ReceiveWindow::new();
        for (frame, used) in [
            (data, 156),
            (FrameHeader { flags: END_STREAM, ..data }, 156),
            (FrameHeader { length: 0, ..data }, 156),
            (FrameHeader { length: 301, padding: 201, ..data }, 312),
            (FrameHeader { length: 356, ..data }, 212),
            (FrameHeader { length: 1_000, ..data }, 0),
            (data, 156),
        ] {
            window.on_received(&frame);
            assert_eq!(window.small_frames(), used, "{frame:?}");
        }
        assert!(!window.on_frame_read(300) && window.small_frames() == 156);
        assert!(!window.on_frame_read(100) && window.small_frames() == 0);
    }
}
