//! One response that goes on, on a bare socket: a head, then what the body gives, for as long as it gives any.
//!
//! It is written in chunks (RFC 9112, section 7.1); for a client of HTTP/1.0, which knows none, the end of the connection is the
//! end of it.
//!
//! This is what an idle stream costs, so it holds no buffer: there is one for a chunk that is being written, and none after it.
//! A large chunk is not copied, because thousands of streams may share its bytes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody as _};
use http::{Version, response::Parts};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};

use super::response_kind::StreamingResponse;
use crate::{
    hex,
    serve::{http2::response_body::PIECE, write_watchdog::Watchdog},
    wall_clock,
};

/// A response that is being written. Ends when the body does, when the peer leaves, or when the socket fails.
pub(in crate::serve) struct StreamWriter<T> {
    io: T,
    /// None when it has ended.
    body: Option<Body>,
    piece: Piece,
    /// How much the peer has sent behind its request.
    behind: u16,
    chunked: bool,
    watchdog: Watchdog,
    /// The place among the connections that is given back with it.
    _place: OwnedSemaphorePermit,
}

/// What is to be written next.
enum Piece {
    /// Bytes as they are.
    Plain(Bytes),
    /// A chunk in parts: what stands before its data, the data, and what stands behind.
    Large(Box<[Bytes; 3]>),
}

impl<T: AsyncRead + AsyncWrite + Unpin> StreamWriter<T> {
    /// The version of the response is that of its request. A client gets the head and the first chunk at once.
    pub(in crate::serve) fn new(
        io: T,
        going: StreamingResponse,
        watchdog: Watchdog,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let (parts, body) = going.response.into_parts();
        let chunked = parts.version > Version::HTTP_10;
        let mut head = head(&parts, chunked);
        let piece =
            match if chunked && !going.first.is_empty() { chunk(going.first) } else { Piece::Plain(going.first) } {
                Piece::Plain(bytes) => {
                    head.extend_from_slice(&bytes);
                    Piece::Plain(head.into())
                }
                Piece::Large(mut parts) => {
                    head.extend_from_slice(&parts[0]);
                    parts[0] = head.into();
                    Piece::Large(parts)
                }
            };
        Self { io, body: Some(body), piece, behind: 0, chunked, watchdog, _place: place }
    }

    /// Reads what nobody waits for, because the end of it is how a peer shows that it left.
    fn poll_peer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 256];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            let length = u16::try_from(buffer.filled().len()).unwrap_or(u16::MAX);
            let behind = self.behind.checked_add(length).filter(|behind| *behind <= BEHIND);
            match (read, length, behind) {
                (Ok(()), 1.., Some(behind)) => self.behind = behind,
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Writes pieces until the body has none; ready when there will be no more.
    fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_piece(cx))?;
            if self.body.is_none() {
                return Pin::new(&mut self.io).poll_shutdown(cx);
            }
            let Poll::Ready(next) = self.poll_next(cx) else {
                ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                return Poll::Pending;
            };
            self.piece = next?;
        }
    }

    /// What the body has for the peer; after its end nothing is left of it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Piece>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(Piece::Plain(Bytes::new()))) };
        let Some(frame) = ready!(Pin::new(body).poll_frame(cx)) else {
            self.body = None;
            return Poll::Ready(Ok(Piece::Plain(Bytes::from_static(if self.chunked { LAST } else { b"" }))));
        };
        Poll::Ready(Ok(match frame.map_err(io::Error::other)?.into_data() {
            // An empty chunk would be the last one.
            Ok(data) if self.chunked && !data.is_empty() => chunk(counted(data, &self.watchdog)),
            Ok(data) => Piece::Plain(counted(data, &self.watchdog)),
            // Trailers were announced by nobody.
            Err(_) => Piece::Plain(Bytes::new()),
        }))
    }

    /// Writes the piece at hand to its end, after which it is kept by nobody.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let parts = match &mut self.piece {
            Piece::Plain(bytes) => std::slice::from_mut(bytes),
            Piece::Large(parts) => parts.as_mut_slice(),
        };
        while parts.iter().any(|part| !part.is_empty()) {
            let mut length = ready!(poll_write(Pin::new(&mut self.io), cx, parts))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            for part in &mut *parts {
                let written = length.min(part.len());
                // Also lets go of what was written, when that was all.
                *part = part.slice(written..);
                length -= written;
            }
        }
        if let Piece::Large(_) = self.piece {
            self.piece = Piece::Plain(Bytes::new());
        }
        Poll::Ready(Ok(()))
    }
}

/// A large frame that nobody shares counts until it is written; a small one when the socket does not take it.
fn counted(data: Bytes, watchdog: &Watchdog) -> Bytes {
    if data.len() <= PIECE || !data.is_unique() {
        return data;
    }
    watchdog.charge(data.len());
    Bytes::from_owner(Counted { data, watchdog: watchdog.clone() })
}

/// Bytes that count until they are written, or never will be.
struct Counted {
    data: Bytes,
    watchdog: Watchdog,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.watchdog.release(self.data.len());
    }
}

/// Writes what is next of some parts, not more than a piece of each: what the socket does not take counts as the stream's own.
fn poll_write(io: Pin<&mut impl AsyncWrite>, cx: &mut Context<'_>, parts: &[Bytes]) -> Poll<io::Result<usize>> {
    let begin = |part: &Bytes| part.len().min(PIECE);
    match parts {
        [before, data, behind] => {
            let whole = data.len() <= PIECE;
            let behind: &[u8] = if whole { behind } else { &[] };
            io.poll_write_vectored(
                cx,
                &[IoSlice::new(before), IoSlice::new(&data[..begin(data)]), IoSlice::new(behind)],
            )
        }
        [part] => io.poll_write(cx, &part[..begin(part)]),
        _ => Poll::Ready(Ok(0)),
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for StreamWriter<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_peer(cx).is_ready() {
            return Poll::Ready(());
        }
        // A socket that fails belongs to a peer that is gone.
        self.poll_pieces(cx).map(drop)
    }
}

/// A chunk: its size in hexadecimal, its data, and a line's end after each.
fn chunk(data: Bytes) -> Piece {
    let (size, mut digits) = (data.len() as u64, [0; SIZE_DIGITS]);
    let length = hex::write(&mut digits, size, hex::length(size));
    let copied = if data.len() > COPIED { 0 } else { data.len() + 2 };
    let mut chunk = Vec::with_capacity(length + 2 + copied);
    chunk.extend_from_slice(&digits[..length]);
    chunk.extend_from_slice(b"\r\n");
    if copied == 0 {
        return Piece::Large(Box::new([chunk.into(), data, Bytes::from_static(b"\r\n")]));
    }
    chunk.extend_from_slice(&data);
    chunk.extend_from_slice(b"\r\n");
    Piece::Plain(chunk.into())
}

/// The head as hyper would write it, but that the connection ends with the stream.
fn head(parts: &Parts, chunked: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD);
    let mut line = |parts: [&[u8]; 4]| parts.into_iter().for_each(|part| head.extend_from_slice(part));
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let version: &[u8] = if chunked { b"HTTP/1.1 " } else { b"HTTP/1.0 " };
    line([version, parts.status.as_str().as_bytes(), b" ", reason.as_bytes()]);
    for (name, value) in &parts.headers {
        line([b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()]);
    }
    let date = httpdate::fmt_http_date(wall_clock::now());
    let framing: &[u8] = if chunked { b"\r\ntransfer-encoding: chunked" } else { b"" };
    line([framing, b"\r\nconnection: close", b"\r\ndate: ", date.as_bytes()]);
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// Bytes of data that are copied, because a write of three parts costs more than a copy of so few.
const COPIED: usize = 4 * 1024;

/// Room for a head and the chunk that is written with it, in bytes.
const HEAD: usize = 1024;

/// Bytes that a listener may send behind its request. Nobody takes them for another one, because the connection ends with the
/// stream.
const BEHIND: u16 = 32 * 1_024;

/// Digits of a chunk's size, at most.
const SIZE_DIGITS: usize = 16;

/// The chunk that says that there are no more, without trailers.
const LAST: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, duplex},
        sync::Semaphore,
    };

    use http::Response;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::{budget::Budget, telemetry::Metrics};

    fn watchdog() -> Watchdog {
        Watchdog::new(Duration::from_secs(5), Budget::new(0), Metrics::new())
    }

    fn response(version: Version, first: &'static str, frames: &'static [&'static str]) -> StreamingResponse {
        let frames = tokio_stream::iter(frames).map(|frame| Ok::<_, Infallible>(Bytes::from_static(frame.as_bytes())));
        let response = Response::builder().version(version).header("x-test", "1");
        let response = response.body(Body::from_stream(frames)).expect("a response");
        StreamingResponse { response, first: Bytes::from_static(first.as_bytes()), failed: None }
    }

    #[tokio::test]
    async fn a_large_chunk_is_the_same_as_in_one_piece() {
        const LARGE: &str = match std::str::from_utf8(&[b'x'; 20_000]) {
            Ok(text) => text,
            Err(_) => "",
        };
        let places = Arc::new(Semaphore::new(1));
        for (takes, first) in [(100, LARGE), (5_000, LARGE), (100_000, LARGE), (64, ""), (30_000, "")] {
            let place = places.clone().try_acquire_owned().expect("given back by the last one");
            let (ours, mut theirs) = duplex(takes);
            let frames: &[&str] = if first.is_empty() { &[LARGE, "a"] } else { &["a"] };
            let stream = StreamWriter::new(ours, response(Version::HTTP_11, first, frames), watchdog(), place);
            let mut written = String::new();
            let (read, ()) = tokio::join!(theirs.read_to_string(&mut written), stream);
            read.expect("UTF-8");
            let (_, body) = written.split_once("\r\n\r\n").expect("a head");
            assert!(body == format!("4e20\r\n{LARGE}\r\n1\r\na\r\n0\r\n\r\n"), "{takes} at a time");
        }
    }

    #[tokio::test]
    async fn a_response_is_the_same_however_little_the_socket_takes_at_a_time() {
        let places = Arc::new(Semaphore::new(1));
        let chunks = "HTTP/1.1 200 OK\r\nx-test: 1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n";
        let expected = [
            (Version::HTTP_11, chunks, "5\r\nfirst\r\nc\r\na second one\r\n0\r\n\r\n"),
            (Version::HTTP_10, "HTTP/1.0 200 OK\r\nx-test: 1\r\nconnection: close\r\n", "firsta second one"),
        ];
        for (takes, (version, start, whole)) in
            [1, 2, 3, 7, 64, 4_096].into_iter().flat_map(|takes| expected.map(|what| (takes, what)))
        {
            let place = places.clone().try_acquire_owned().expect("given back by the last one");
            let (ours, mut theirs) = duplex(takes);
            let stream = StreamWriter::new(ours, response(version, "first", &["", "a second one"]), watchdog(), place);
            let mut written = String::new();
            let (read, ()) = tokio::join!(theirs.read_to_string(&mut written), stream);
            read.expect("UTF-8");
            let (head, body) = written.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(start), "{head}");
            assert_eq!(body, whole, "{takes} at a time");
        }
    }
}
