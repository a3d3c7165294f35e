//! Limits the rate of control frames of one HTTP/2 connection. Parses the frame headers of everything that is read.
//!
//! h2 0.4 answers most control frames or walks all streams for them, and has no limit for them. Free are `WINDOW_UPDATE`, which
//! every client sends as it reads; PING without ACK, with which some clients measure round trips; DATA, `RST_STREAM` and CONTINUATION,
//! which h2 limits; and GOAWAY, which ends the connection.

use std::{io, num::NonZeroU32};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::frame_headers::{DATA, FrameHeaders, WINDOW_UPDATE};
use crate::{
    serve::{filtered_io::Filter, protocol_detection::PREFACE},
    telemetry::Metrics,
};

/// Reads frame headers (RFC 9113, section 4.1) and charges a token bucket for control frames.
pub(super) struct ControlFrames {
    bucket: DefaultDirectRateLimiter,
    /// How many more PRIORITY frames are free: one for each request so far, at most [`BURST`].
    free_priorities: u32,
    headers: FrameHeaders,
    metrics: Metrics,
}

impl ControlFrames {
    /// For a connection of which nothing was read yet.
    pub(super) fn new(metrics: Metrics) -> Self {
        let bucket = RateLimiter::direct(Quota::per_second(PER_SECOND).allow_burst(BURST));
        Self { bucket, free_priorities: 0, headers: FrameHeaders::after(PREFACE.len()), metrics }
    }

    /// Counts the frames that begin in these bytes. Returns whether they exceed the rate.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(frame) = self.headers.next(&mut bytes) {
            if self.charge(frame.kind, frame.flags) {
                return true;
            }
        }
        false
    }

    /// Counts one frame. Returns whether it exceeds the rate.
    fn charge(&mut self, kind: u8, flags: u8) -> bool {
        let price = match kind {
            HEADERS => {
                self.free_priorities = (self.free_priorities + 1).min(BURST.get());
                return false;
            }
            PRIORITY | PRIORITY_UPDATE if self.free_priorities > 0 => {
                self.free_priorities -= 1;
                return false;
            }
            SETTINGS if flags & ACK == 0 => SETTINGS_PRICE,
            PING if flags & ACK == 0 => return false,
            DATA | RST_STREAM | GOAWAY | WINDOW_UPDATE | CONTINUATION => return false,
            _ => NonZeroU32::MIN,
        };
        !matches!(self.bucket.check_n(price), Ok(Ok(())))
    }
}

impl Filter for ControlFrames {
    fn on_read(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.read(bytes) {
            self.metrics.connection_flooded();
            return Err(io::Error::other("too many control frames"));
        }
        Ok(())
    }
}

/// The token bucket. One token: an unknown frame, a PING or SETTINGS with ACK, and a PRIORITY or `PRIORITY_UPDATE` beyond one for
/// each request. Browsers send a priority with each request, and this server sends a PING only every 15 s.
const BURST: NonZeroU32 = NonZeroU32::new(2_000).expect("not zero");
const PER_SECOND: NonZeroU32 = NonZeroU32::new(100).expect("not zero");
/// Tokens of a SETTINGS frame, for which h2 walks all streams: 100 frames at once, then five a second. A client that adapts its
/// window to the bandwidth sends a few dozen in all.
const SETTINGS_PRICE: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

const ACK: u8 = 1;

pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// RFC 9218, section 7.1.
const PRIORITY_UPDATE: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a frame header.
    const HEADER: usize = 9;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).expect("short").to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + payload, 0);
        frame
    }

    fn connection(frames: &[u8]) -> Vec<u8> {
        [PREFACE, frames].concat()
    }

    #[test]
    fn frame_headers_are_found_however_the_reads_split_the_bytes() {
        let bytes = connection(&[frame(DATA, 0, 300), frame(SETTINGS, 0, 6).repeat(105)].concat());
        for at_a_time in [1, 2, 3, 7, 8, 9, 10, 100, 10_000] {
            let mut frames = ControlFrames::new(Metrics::new());
            let (mut read, mut ended) = (0, false);
            for part in bytes.chunks(at_a_time) {
                ended |= frames.read(part);
                read += part.len();
                if ended {
                    break;
                }
            }
            assert!(ended && read > PREFACE.len() + 309 + 100 * 15, "{at_a_time} at a time: {read} bytes");
        }
    }

    #[test]
    fn one_priority_for_each_request_is_free() {
        let both = [frame(HEADERS, 4, 20), frame(PRIORITY_UPDATE, 0, 10)].concat();
        assert!(!ControlFrames::new(Metrics::new()).read(&connection(&both.repeat(20_000))));
        assert!(ControlFrames::new(Metrics::new()).read(&connection(&frame(PRIORITY_UPDATE, 0, 10).repeat(20_000))));
    }
}
