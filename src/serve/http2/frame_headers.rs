//! Finds the frame headers (RFC 9113, section 4.1) in the bytes of one direction of an HTTP/2 connection.

/// What a frame header says, with the increment of a `WINDOW_UPDATE` frame and the padding of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) length: u32,
    pub(super) stream: u32,
    /// 0 for every frame but `WINDOW_UPDATE`.
    pub(super) increment: u32,
    /// Bytes of padding with their length. 0 for every frame but DATA.
    pub(super) padding: u32,
}

/// Parses the frames of one direction, however reads or writes split them.
pub(super) struct FrameHeaders {
    /// The header that is being read, then the increment or the length of the padding, and how many of these bytes have come.
    bytes: [u8; HEADER + INCREMENT],
    known: usize,
    /// Bytes until the next frame header.
    skip: usize,
}

impl FrameHeaders {
    /// `skip` bytes come before the first frame.
    pub(super) fn after(skip: usize) -> Self {
        Self { bytes: [0; HEADER + INCREMENT], known: 0, skip }
    }

    /// Takes bytes off `bytes` until the next frame header is whole. `None` if it needs more bytes.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<FrameHeader> {
        let skipped = self.skip.min(bytes.len());
        (self.skip, *bytes) = (self.skip - skipped, &bytes[skipped..]);
        self.fill(HEADER, bytes);
        if self.known < HEADER {
            return None;
        }
        let wanted = HEADER + self.wanted_payload();
        self.fill(wanted, bytes);
        (self.known >= wanted).then(|| self.finish())
    }

    /// Takes bytes until `wanted` are known.
    fn fill(&mut self, wanted: usize, bytes: &mut &[u8]) {
        let length = wanted.saturating_sub(self.known).min(bytes.len());
        self.bytes[self.known..self.known + length].copy_from_slice(&bytes[..length]);
        (self.known, *bytes) = (self.known + length, &bytes[length..]);
    }

    /// How many bytes of the payload are read with the header.
    fn wanted_payload(&self) -> usize {
        match self.bytes {
            [0, 0, 4, WINDOW_UPDATE, ..] => INCREMENT,
            [a, b, c, DATA, flags, ..] if flags & PADDED != 0 && [a, b, c] != [0; 3] => PADDING_LENGTH,
            _ => 0,
        }
    }

    /// The frame whose header has come whole.
    fn finish(&mut self) -> FrameHeader {
        let (length, stream) = (self.number(0) >> 8, self.number(5) & LOWER_31_BITS);
        let (kind, flags, read) = (self.bytes[3], self.bytes[4], self.known - HEADER);
        let (increment, padding) = match read {
            INCREMENT => (self.number(HEADER) & LOWER_31_BITS, 0),
            PADDING_LENGTH => (0, (1 + u32::from(self.bytes[HEADER])).min(length)),
            _ => (0, 0),
        };
        (self.skip, self.known) = (length as usize - read, 0);
        FrameHeader { kind, flags, length, stream, increment, padding }
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }
}

/// Bytes of a frame header, of the payload of `WINDOW_UPDATE`, and of the length of the padding of DATA.
const HEADER: usize = 9;
const INCREMENT: usize = 4;
const PADDING_LENGTH: usize = 1;
/// Without the reserved bit.
const LOWER_31_BITS: u32 = u32::MAX >> 1;

pub(super) const DATA: u8 = 0;
pub(super) const WINDOW_UPDATE: u8 = 8;

/// Flags of DATA.
pub(super) const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_split() {
        let data = [&[0, 1, 44, DATA, 1, 0, 0, 0, 5][..], &[7; 300]].concat();
        let padded = [&[0, 0, 8, DATA, PADDED, 0, 0, 0, 5, 5][..], &[0; 7]].concat();
        let update = [0, 0, 4, WINDOW_UPDATE, 0, 0x80, 0, 0, 0, 0x80, 1, 0, 2];
        let bytes = [b"before", &data[..], &update, &padded, &data, &update].concat();
        let found_data = FrameHeader { kind: DATA, flags: 1, length: 300, stream: 5, increment: 0, padding: 0 };
        let found_padded = FrameHeader { flags: PADDED, length: 8, padding: 6, ..found_data };
        let found_update =
            FrameHeader { kind: WINDOW_UPDATE, flags: 0, length: 4, stream: 0, increment: 65_538, padding: 0 };
        for at_a_time in [1, 2, 3, 4, 7, 8, 9, 10, 12, 13, 100, 10_000] {
            let (mut headers, mut found) = (FrameHeaders::after(6), Vec::new());
            for mut part in bytes.chunks(at_a_time) {
                found.extend(std::iter::from_fn(|| headers.next(&mut part)));
            }
            let expected = [found_data, found_update, found_padded, found_data, found_update];
            assert_eq!(found, expected, "{at_a_time} at a time");
        }
    }
}
