//! Limits the rate of control frames of one HTTP/2 connection.
//!
//! h2 0.4 answers most control frames or walks all streams for them, and has no limit for them. Free are `WINDOW_UPDATE`, which
//! every client sends as it reads; PING without ACK, with which some clients measure round trips; DATA, `RST_STREAM` and CONTINUATION,
//! which h2 limits; and GOAWAY, which ends the connection.

use std::{io, num::NonZeroU32};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::frame_headers::{DATA, FrameHeader, WINDOW_UPDATE};
use crate::telemetry::Metrics;

/// Charges a token bucket for control frames.
pub(super) struct ControlFrames {
    bucket: DefaultDirectRateLimiter,
    /// How many more PRIORITY frames are free: one for each request so far, at most [`BURST`].
    free_priorities: u32,
    metrics: Metrics,
}

impl ControlFrames {
    pub(super) fn new(metrics: Metrics) -> Self {
        let bucket = RateLimiter::direct(Quota::per_second(PER_SECOND).allow_burst(BURST));
        Self { bucket, free_priorities: 0, metrics }
    }

    /// Charges a frame that was received.
    ///
    /// # Errors
    /// When the frames exceed the rate. The connection must end.
    pub(super) fn charge(&mut self, frame: &FrameHeader) -> io::Result<()> {
        if self.exceeds_rate(frame.kind, frame.flags) {
            self.metrics.connection_flooded();
            return Err(io::Error::other("too many control frames"));
        }
        Ok(())
    }

    fn exceeds_rate(&mut self, kind: u8, flags: u8) -> bool {
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

    fn charged(frames: impl IntoIterator<Item = u8>) -> usize {
        let mut control = ControlFrames::new(Metrics::new());
        frames.into_iter().take_while(|kind| !control.exceeds_rate(*kind, 0)).count()
    }

    #[test]
    fn a_hundred_settings_are_free() {
        assert!((100..110).contains(&charged([DATA, SETTINGS].repeat(1_000)).div_ceil(2)));
    }

    #[test]
    fn one_priority_for_each_request_is_free() {
        assert_eq!(charged([HEADERS, PRIORITY_UPDATE].repeat(20_000)), 40_000);
        assert!(charged([PRIORITY_UPDATE].repeat(20_000)) < 20_000);
    }
}
