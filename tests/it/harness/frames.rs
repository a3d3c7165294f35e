//! HTTP/2 frame by frame, for peers that do what no client library does.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{narrow, within};

/// A frame (RFC 9113, section 4.1).
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// RFC 9218.
pub const PRIORITY_UPDATE: u8 = 16;

/// The setting for the flow-control window of a new stream.
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// Of PING and SETTINGS.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A connection that answers nothing by itself: no SETTINGS, no PING.
pub struct Frames(pub tokio::net::TcpStream);

impl Frames {
    /// Connects with settings as pairs of identifier and value.
    pub async fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self(narrow(address).await);
        frames.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let pairs = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        frames.send(SETTINGS, 0, 0, &pairs.collect::<Vec<_>>()).await;
        frames
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        within(self.0.write_all(bytes)).await.expect("writable");
    }

    /// Writes until the server closes the connection, which is no failure.
    pub async fn flood(&mut self, bytes: &[u8]) {
        let _ = within(self.0.write_all(bytes)).await;
    }

    /// The next frame; `None` when the server has closed or reset the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within(self.0.read_exact(&mut head)).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within(self.0.read_exact(&mut payload)).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of a kind. Drops all frames before it.
    pub async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The error code of the next GOAWAY, and its debug data: the limit that was exceeded, if any.
    pub async fn goodbye(&mut self) -> (u32, String) {
        let frame = self.next_of(GOAWAY).await.expect("a GOAWAY before the end");
        let code = u32::from_be_bytes(frame.payload[4..8].try_into().expect("four bytes"));
        (code, String::from_utf8(frame.payload[8..].to_vec()).expect("UTF-8"))
    }

    /// Waits until the server has handled everything that was sent before.
    pub async fn caught_up(&mut self) {
        let mut ours = [0; 8];
        fastrand::fill(&mut ours);
        self.send(PING, 0, 0, &ours).await;
        while self.next_of(PING).await.expect("an answer to PING").payload != ours {}
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block (RFC 7541) of a GET with some headers. It adds nothing to the dynamic table.
pub fn get(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    head(0x82, path, headers)
}

/// The same for a POST.
pub fn post(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    head(0x83, path, headers)
}

fn head(method: u8, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    // The static table has the method and the scheme, and the names of the authority and the path.
    let mut block = vec![method, 0x86, 0x01];
    block.extend(string("localhost"));
    block.push(0x04);
    block.extend(string(path));
    block.extend(fields(headers));
    block
}

/// A header block of exactly these fields, in this order. They may be pseudo-header fields.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [vec![0], string(name), string(value)].concat()).collect()
}

/// The status at the beginning of a header block, as the server encodes it.
pub fn status(block: &[u8]) -> String {
    // Indexed fields of the static table (RFC 7541, appendix A).
    const INDEXED: [&str; 7] = ["200", "204", "206", "304", "400", "404", "500"];
    if let index @ 0x88..=0x8e = block[0] {
        return INDEXED[usize::from(index - 0x88)].to_owned();
    }
    assert_eq!(block[0] & 0x0f, 8, "a literal with the name :status: {block:?}");
    let value = &block[2..2 + usize::from(block[1] & 0x7f)];
    if block[1] & 0x80 == 0 {
        return String::from_utf8(value.to_vec()).expect("digits");
    }
    // Huffman codes of digits (RFC 7541, appendix B): 0 to 2 have 5 bits, 3 to 9 have 6 bits from 0b011001 on.
    let bits = value.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (32 - 8 * value.len());
    let (mut bits, mut digits) = (bits, String::new());
    for _ in 0..3 {
        let (digit, length) = if bits >> 27 < 3 { (bits >> 27, 5) } else { ((bits >> 26) - 0b01_1001 + 3, 6) };
        digits.push_str(&digit.to_string());
        bits <<= length;
    }
    digits
}

/// A string literal without Huffman coding.
fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(u8::try_from(rest).expect("short"));
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).expect("seven bits") | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).expect("seven bits"));
    }
    bytes.extend(text.as_bytes());
    bytes
}
