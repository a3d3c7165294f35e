//! Parses every frame header of an HTTP/2 connection once, for the rate of control frames and for the receive window.

use std::io;

use super::{control_frames::ControlFrames, frame_headers::FrameHeaders, receive_window::ReceiveWindow};
use crate::{
    serve::{filtered_io::Filter, protocol_detection::PREFACE},
    telemetry::Metrics,
};

pub(super) struct FrameFilter {
    received: FrameHeaders,
    written: FrameHeaders,
    control: ControlFrames,
    window: ReceiveWindow,
}

impl FrameFilter {
    /// For a connection of which nothing was read or written yet.
    pub(super) fn new(metrics: Metrics, window: ReceiveWindow) -> Self {
        let (received, written) = (FrameHeaders::after(PREFACE.len()), FrameHeaders::after(0));
        Self { received, written, control: ControlFrames::new(metrics), window }
    }
}

impl Filter for FrameFilter {
    fn on_read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(frame) = self.received.next(&mut bytes) {
            self.window.on_received(&frame);
            self.control.charge(&frame)?;
        }
        Ok(())
    }

    fn on_written(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.written.next(&mut bytes) {
            self.window.on_written(&frame);
        }
    }
}
