//! How many control frames one HTTP/2 connection may send, counted where its bytes are read.
//!
//! h2 answers or walks through all streams for each of them, and counts none. `WINDOW_UPDATE` and requests of PING are free: every
//! client sends them as it reads, and some measure the line with them.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Reads frame heads (RFC 9113, section 4.1) as bytes go by.
pub(in crate::serve) struct ControlFrames {
    bucket: DefaultDirectRateLimiter,
    /// Priorities that requests have paid for.
    priorities: u32,
    /// The beginning of a head.
    head: [u8; HEAD],
    seen: usize,
    /// Bytes until the next head.
    skip: usize,
}

impl ControlFrames {
    /// Of a connection whose first bytes are still to be read.
    pub(in crate::serve) fn new() -> Self {
        let bucket = RateLimiter::direct(Quota::per_second(PER_SECOND).allow_burst(BURST));
        Self { bucket, priorities: 0, head: [0; HEAD], seen: 0, skip: PREFACE }
    }

    /// Counts what is in some bytes; says whether it was too much.
    pub(in crate::serve) fn are_too_many(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
            let length = (HEAD - self.seen).min(bytes.len());
            if length == 0 {
                return false;
            }
            self.head[self.seen..self.seen + length].copy_from_slice(&bytes[..length]);
            (self.seen, bytes) = (self.seen + length, &bytes[length..]);
            if self.seen == HEAD {
                let [a, b, c, kind, flags, ..] = self.head;
                (self.seen, self.skip) = (0, u32::from_be_bytes([0, a, b, c]) as usize);
                if self.is_too_much(kind, flags) {
                    return true;
                }
            }
        }
    }

    fn is_too_much(&mut self, kind: u8, flags: u8) -> bool {
        let price = match kind {
            HEADERS => {
                self.priorities = (self.priorities + 1).min(BURST.get());
                return false;
            }
            PRIORITY | PRIORITY_UPDATE if self.priorities > 0 => {
                self.priorities -= 1;
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

/// What every connection begins with, in bytes.
const PREFACE: usize = 24;
/// Bytes of a frame's head.
const HEAD: usize = 9;

/// Frames that cost one: unknown ones, PING with ACK, and PRIORITY and `PRIORITY_UPDATE` beyond one for each request.
/// Browsers send one of those with a request, and a server that only asks every 15 s gets few of the others.
const BURST: NonZeroU32 = NonZeroU32::new(2_000).expect("not zero");
const PER_SECOND: NonZeroU32 = NonZeroU32::new(100).expect("not zero");
/// SETTINGS is dear, because h2 walks through all streams for it: 100 at once, then five a second. A client that adapts its
/// window to the line sends a few dozen in its life.
const SETTINGS_PRICE: NonZeroU32 = NonZeroU32::new(20).expect("not zero");

const ACK: u8 = 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// RFC 9218, section 7.1.
const PRIORITY_UPDATE: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).expect("short").to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + payload, 0);
        frame
    }

    fn connection(frames: &[u8]) -> Vec<u8> {
        [&[0; PREFACE], frames].concat()
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = connection(&[frame(DATA, 0, 300), frame(SETTINGS, 0, 6).repeat(105)].concat());
        for at_a_time in [1, 2, 3, 7, 8, 9, 10, 100, 10_000] {
            let mut frames = ControlFrames::new();
            let (mut read, mut ended) = (0, false);
            for part in bytes.chunks(at_a_time) {
                ended |= frames.are_too_many(part);
                read += part.len();
                if ended {
                    break;
                }
            }
            assert!(ended && read > PREFACE + 309 + 100 * 15, "{at_a_time} at a time: {read} bytes");
        }
    }

    #[test]
    fn a_priority_for_each_request_is_free() {
        let both = [frame(HEADERS, 4, 20), frame(PRIORITY_UPDATE, 0, 10)].concat();
        assert!(!ControlFrames::new().are_too_many(&connection(&both.repeat(20_000))));
        assert!(ControlFrames::new().are_too_many(&connection(&frame(PRIORITY_UPDATE, 0, 10).repeat(20_000))));
    }
}
