//! Parses every frame header of an HTTP/2 connection once, for the rate of control frames and for the receive window.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
};

use super::{control_frames::ControlFrames, frame_headers::FrameHeaders, streams::Streams};
use crate::{
    serve::{filtered_io::Filter, protocol_detection::PREFACE},
    telemetry::Metrics,
};

pub(super) struct FrameFilter {
    received: FrameHeaders,
    written: FrameHeaders,
    control: ControlFrames,
    streams: Arc<Streams>,
}

impl FrameFilter {
    /// For a connection of which nothing was read or written yet.
    pub(super) fn new(metrics: Metrics, streams: Arc<Streams>) -> Self {
        let (received, written) = (FrameHeaders::after(PREFACE.len()), FrameHeaders::after(0));
        Self { received, written, control: ControlFrames::new(metrics), streams }
    }
}

impl Filter for FrameFilter {
    fn on_read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(frame) = self.received.next(&mut bytes) {
            self.streams.receive_window().on_received(&frame);
            self.control.charge(&frame)?;
        }
        Ok(())
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        _length: usize,
        write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = write(cx);
        self.streams.set_write_blocked(written.is_pending());
        written
    }

    fn on_written(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.written.next(&mut bytes) {
            self.streams.receive_window().on_written(&frame);
        }
    }
}
