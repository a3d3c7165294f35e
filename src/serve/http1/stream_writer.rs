//! Writes one streaming response to a connection without hyper: the head, then each frame of the body.
//!
//! HTTP/1.1 gets chunks (RFC 9112, section 7.1). HTTP/1.0 has no chunks: there the end of the connection is the end of the
//! body.
//!
//! An idle stream holds no buffer: only a chunk that is being written has one. A large chunk is not copied, because thousands of
//! streams may share its bytes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody as _};
use http::{Version, response::Parts};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::response_kind::StreamingResponse;
use crate::{
    serve::{
        connection_limit::ConnectionPermit,
        write_watchdog::{PIECE, UnsentBytes, Watchdog, with_count},
    },
    wall_clock,
};

/// Ends when the body ends, the peer leaves, or the socket fails.
pub(super) struct StreamWriter<T> {
    io: T,
    /// `None` after the body has ended.
    body: Option<Body>,
    pending: PendingWrite,
    /// Bytes that the peer has sent after its request.
    received: u16,
    is_chunked: bool,
    watchdog: Watchdog,
    /// Counts the connection until the response has ended.
    _permit: ConnectionPermit,
}

/// The bytes to write next.
enum PendingWrite {
    /// Anything in one buffer, such as a small chunk with its framing.
    Bytes(Bytes),
    /// A large chunk: the line with its size, its data, and the line end after them.
    Chunk(Box<[Bytes; 3]>),
}

impl<T: AsyncRead + AsyncWrite + Unpin> StreamWriter<T> {
    /// `streaming.response` has the version of its request. The head and the first chunk leave with one write.
    pub(super) fn new(io: T, streaming: StreamingResponse, watchdog: Watchdog, permit: ConnectionPermit) -> Self {
        let (head, body) = streaming.response.into_parts();
        let is_chunked = head.version > Version::HTTP_10;
        let mut head = head_bytes(&head, is_chunked);
        let pending = match framed(streaming.prefix, is_chunked) {
            PendingWrite::Bytes(bytes) => {
                head.extend_from_slice(&bytes);
                PendingWrite::Bytes(head.into())
            }
            PendingWrite::Chunk(mut buffers) => {
                head.extend_from_slice(&buffers[0]);
                buffers[0] = head.into();
                PendingWrite::Chunk(buffers)
            }
        };
        Self { io, body: Some(body), pending, received: 0, is_chunked, watchdog, _permit: permit }
    }

    /// Ready when the peer has left. Reads and drops what the peer sends, because only the end of input shows that the peer has
    /// left.
    fn poll_peer_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 256];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            let length = u16::try_from(buffer.filled().len()).unwrap_or(u16::MAX);
            let received = self.received.checked_add(length).filter(|received| *received <= MAX_RECEIVED);
            match (read, length, received) {
                (Ok(()), 1.., Some(received)) => self.received = received,
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Writes what the body gives. Ready when the body has ended and everything is written.
    fn poll_write_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write_pending(cx))?;
            if self.body.is_none() {
                return Pin::new(&mut self.io).poll_shutdown(cx);
            }
            let Poll::Ready(next) = self.poll_next(cx) else {
                ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                return Poll::Pending;
            };
            self.pending = next?;
        }
    }

    /// The next bytes to write: a frame of the body, or the last chunk when the body has ended.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<PendingWrite>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(PendingWrite::Bytes(Bytes::new()))) };
        let Some(frame) = ready!(Pin::new(body).poll_frame(cx)) else {
            self.body = None;
            let end = if self.is_chunked { LAST_CHUNK } else { b"" };
            return Poll::Ready(Ok(PendingWrite::Bytes(Bytes::from_static(end))));
        };
        // Trailers are dropped: no `Trailer` header has announced them.
        let data = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
        Poll::Ready(Ok(framed(counted(data, &self.watchdog), self.is_chunked)))
    }

    fn poll_write_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending.buffers().iter().any(|buffer| !buffer.is_empty()) {
            let mut length = ready!(poll_write(Pin::new(&mut self.io), cx, &self.pending))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            for buffer in self.pending.buffers() {
                let written = length.min(buffer.len());
                // `slice` and not `advance`: the slice of a finished buffer is empty and frees its memory.
                *buffer = buffer.slice(written..);
                length -= written;
            }
        }
        if let PendingWrite::Chunk(_) = self.pending {
            self.pending = PendingWrite::Bytes(Bytes::new());
        }
        Poll::Ready(Ok(()))
    }
}

impl PendingWrite {
    fn buffers(&mut self) -> &mut [Bytes] {
        match self {
            Self::Bytes(bytes) => std::slice::from_mut(bytes),
            Self::Chunk(buffers) => buffers.as_mut_slice(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for StreamWriter<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_peer_left(cx).is_ready() {
            return Poll::Ready(());
        }
        // Errors are not logged: the socket fails only when the peer has left or was cut, and the error of a body cuts the
        // response.
        self.poll_write_body(cx).map(drop)
    }
}

/// Counts a large frame as unsent until it is written, unless other streams share it. The socket counts a small frame when the
/// socket blocks.
fn counted(data: Bytes, watchdog: &Watchdog) -> Bytes {
    if data.len() <= PIECE || !data.is_unique() {
        return data;
    }
    let unsent = UnsentBytes::new(watchdog, data.len());
    with_count(data, unsent)
}

/// Offers at most a piece of each buffer: what the socket does not take counts as unsent, and the shared bytes of a large chunk
/// must not.
fn poll_write(io: Pin<&mut impl AsyncWrite>, cx: &mut Context<'_>, write: &PendingWrite) -> Poll<io::Result<usize>> {
    let begin = |bytes: &Bytes| bytes.len().min(PIECE);
    match write {
        PendingWrite::Bytes(bytes) => io.poll_write(cx, &bytes[..begin(bytes)]),
        PendingWrite::Chunk(buffers) => {
            let [size, data, end] = &**buffers;
            let end: &[u8] = if data.len() <= PIECE { end } else { &[] };
            io.poll_write_vectored(cx, &[IoSlice::new(size), IoSlice::new(&data[..begin(data)]), IoSlice::new(end)])
        }
    }
}

/// The data as a chunk, if there are chunks and any data. An empty chunk would be the last one.
fn framed(data: Bytes, is_chunked: bool) -> PendingWrite {
    if !is_chunked || data.is_empty() {
        return PendingWrite::Bytes(data);
    }
    let size = format!("{:x}\r\n", data.len());
    if data.len() > MAX_COPIED {
        return PendingWrite::Chunk(Box::new([size.into(), data, Bytes::from_static(b"\r\n")]));
    }
    let mut chunk = Vec::with_capacity(size.len() + data.len() + 2);
    chunk.extend_from_slice(size.as_bytes());
    chunk.extend_from_slice(&data);
    chunk.extend_from_slice(b"\r\n");
    PendingWrite::Bytes(chunk.into())
}

/// The head as hyper would write it, except that the connection closes after the response. Handlers must not set `date`,
/// `connection` or `transfer-encoding`: these headers would stand twice.
fn head_bytes(response: &Parts, is_chunked: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_CAPACITY);
    let mut line = |pieces: [&[u8]; 4]| pieces.into_iter().for_each(|piece| head.extend_from_slice(piece));
    let reason = response.status.canonical_reason().unwrap_or_default();
    let version: &[u8] = if is_chunked { b"HTTP/1.1 " } else { b"HTTP/1.0 " };
    line([version, response.status.as_str().as_bytes(), b" ", reason.as_bytes()]);
    for (name, value) in &response.headers {
        line([b"\r\n", name.as_str().as_bytes(), b": ", value.as_bytes()]);
    }
    let date = httpdate::fmt_http_date(wall_clock::now());
    let framing: &[u8] = if is_chunked { b"\r\ntransfer-encoding: chunked" } else { b"" };
    line([framing, b"\r\nconnection: close", b"\r\ndate: ", date.as_bytes()]);
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// Data up to this size is copied into one buffer with its framing: the copy is faster than a vectored write.
const MAX_COPIED: usize = 4 * 1024;

/// Bytes for a head and a small first chunk.
const HEAD_CAPACITY: usize = 1024;

/// The most bytes that a peer may send after its request. They are never read as another request, because the connection closes
/// after the response.
const MAX_RECEIVED: u16 = 32 * 1_024;

/// The last chunk, without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

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
        StreamingResponse { response, prefix: Bytes::from_static(first.as_bytes()), failed: None }
    }

    #[tokio::test]
    async fn a_large_chunk_is_written_like_a_small_one() {
        const LARGE: &str = match std::str::from_utf8(&[b'x'; 20_000]) {
            Ok(text) => text,
            Err(_) => "",
        };
        let permits = Arc::new(Semaphore::new(1));
        for (capacity, first) in [(100, LARGE), (5_000, LARGE), (100_000, LARGE), (64, ""), (30_000, "")] {
            let permit = permits.clone().try_acquire_owned().expect("given back by the last one");
            let (ours, mut theirs) = duplex(capacity);
            let frames: &[&str] = if first.is_empty() { &[LARGE, "a"] } else { &["a"] };
            let stream = StreamWriter::new(
                ours,
                response(Version::HTTP_11, first, frames),
                watchdog(),
                ConnectionPermit::new(permit, None),
            );
            let mut written = String::new();
            let (read, ()) = tokio::join!(theirs.read_to_string(&mut written), stream);
            read.expect("UTF-8");
            let (_, body) = written.split_once("\r\n\r\n").expect("a head");
            assert!(body == format!("4e20\r\n{LARGE}\r\n1\r\na\r\n0\r\n\r\n"), "{capacity} at a time");
        }
    }

    #[tokio::test]
    async fn a_response_is_the_same_however_little_the_socket_takes_at_a_time() {
        let permits = Arc::new(Semaphore::new(1));
        let chunks = "HTTP/1.1 200 OK\r\nx-test: 1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n";
        let expected = [
            (Version::HTTP_11, chunks, "5\r\nfirst\r\nc\r\na second one\r\n0\r\n\r\n"),
            (Version::HTTP_10, "HTTP/1.0 200 OK\r\nx-test: 1\r\nconnection: close\r\n", "firsta second one"),
        ];
        for (capacity, (version, start, expected_body)) in
            [1, 2, 3, 7, 64, 4_096].into_iter().flat_map(|capacity| expected.map(|case| (capacity, case)))
        {
            let permit = permits.clone().try_acquire_owned().expect("given back by the last one");
            let (ours, mut theirs) = duplex(capacity);
            let stream = StreamWriter::new(
                ours,
                response(version, "first", &["", "a second one"]),
                watchdog(),
                ConnectionPermit::new(permit, None),
            );
            let mut written = String::new();
            let (read, ()) = tokio::join!(theirs.read_to_string(&mut written), stream);
            read.expect("UTF-8");
            let (head, body) = written.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(start), "{head}");
            assert_eq!(body, expected_body, "{capacity} at a time");
        }
    }
}
