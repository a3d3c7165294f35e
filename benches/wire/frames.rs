//! One connection of HTTP/2, frame by frame (RFC 9113), as far as the load needs it.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Methods, by their index in the static table of HPACK (RFC 7541).
pub const GET: u8 = 0x82;
pub const POST: u8 = 0x83;

/// A frame that came.
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

/// The client's side of a connection. What is queued leaves with [`Connection::flush`].
pub struct Connection {
    address: SocketAddr,
    io: TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
    next_stream: u32,
}

impl Connection {
    /// Connects, with windows that do not end within a run.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Self::open_with(address, 0x7fff_ffff).await
    }

    /// Connects; a stream brings at most so many bytes, the connection as many as there are.
    pub async fn open_with(address: SocketAddr, window: u32) -> io::Result<Self> {
        let io = TcpStream::connect(address).await?;
        io.set_nodelay(true)?;
        let mut connection =
            Self { address, io, out: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), input: Vec::new(), next_stream: 1 };
        connection.set_window(window);
        connection.frame(WINDOW_UPDATE, 0, 0, &0x7ffe_0000_u32.to_be_bytes());
        Ok(connection)
    }

    /// Queues another initial window for all streams, those that are open included.
    pub fn set_window(&mut self, window: u32) {
        let [a, b, c, d] = window.to_be_bytes();
        self.frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d]);
    }

    /// Queues any frame.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        frame(&mut self.out, kind, flags, stream, payload);
    }

    /// Bytes that are queued.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Queues a request's head; gives its stream.
    pub fn request(&mut self, method: u8, path: &str, headers: &[(&str, &str)], end: bool) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        // HPACK without the dynamic table: method and scheme by index, authority and path by their name's.
        let mut block = vec![method, 0x86, 0x01];
        text(&mut block, &self.address.to_string());
        block.push(0x04);
        text(&mut block, path);
        for (name, value) in headers {
            block.push(0);
            text(&mut block, name);
            text(&mut block, value);
        }
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block);
        stream
    }

    /// Queues a piece of a request's body.
    pub fn data(&mut self, stream: u32, payload: &[u8], end: bool) {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, payload);
    }

    /// Writes what is queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.io.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Reads what there is and gives every whole frame; answers what has to be answered at the next flush.
    pub async fn read(&mut self, take: impl FnMut(Frame<'_>)) -> io::Result<()> {
        self.input.reserve(PIECE);
        if self.io.read_buf(&mut self.input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.give(take)
    }

    /// Writes or reads a piece, whatever is possible first, so that neither side waits for the other for ever.
    pub async fn turn(&mut self, take: impl FnMut(Frame<'_>)) -> io::Result<()> {
        self.input.reserve(PIECE);
        let (mut reader, mut writer) = self.io.split();
        tokio::select! {
            read = reader.read_buf(&mut self.input) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            written = writer.write(&self.out), if !self.out.is_empty() => drop(self.out.drain(..written?)),
        }
        self.give(take)
    }

    /// Gives every whole frame that was read.
    fn give(&mut self, mut take: impl FnMut(Frame<'_>)) -> io::Result<()> {
        let mut from = 0;
        while let [a, b, c, kind, flags, id @ ..] = &self.input[from..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((id, rest)) = id.split_first_chunk::<4>() else { break };
            let Some(payload) = rest.get(..length) else { break };
            let frame = Frame { kind: *kind, flags: *flags, stream: u32::from_be_bytes(*id), payload };
            match frame.kind {
                SETTINGS | PING if frame.flags & ACK == 0 => {
                    let echo = if frame.kind == PING { payload } else { &[] };
                    self::frame(&mut self.out, frame.kind, ACK, 0, echo);
                }
                GOAWAY => return Err(io::Error::other("the server said goodbye")),
                _ => take(frame),
            }
            from += 9 + length;
        }
        self.input.drain(..from);
        Ok(())
    }
}

/// What is read at once.
const PIECE: usize = 16 * 1_024;

/// Writes a frame.
fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    into.extend_from_slice(&length[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// A string literal of HPACK without Huffman coding, below 16,384 bytes.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn text(into: &mut Vec<u8>, value: &str) {
    match value.len() {
        length @ ..127 => into.push(length as u8),
        length @ ..255 => into.extend_from_slice(&[127, (length - 127) as u8]),
        length => into.extend_from_slice(&[127, (length - 127) as u8 | 128, ((length - 127) >> 7) as u8]),
    }
    into.extend_from_slice(value.as_bytes());
}
