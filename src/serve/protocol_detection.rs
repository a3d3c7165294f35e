//! Which protocol a connection speaks, told by its first bytes, within a deadline.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Bytes of the first read. Most requests are shorter, and so hyper is given a whole one.
const FIRST: usize = 1024;

/// Reads until the protocol is known, or gives nothing when the peer leaves before; waits as long as the peer does.
pub(super) async fn detect<T: AsyncRead + Unpin>(mut io: T) -> io::Result<Option<(Protocol, Rewound<T>)>> {
    let mut seen = Vec::with_capacity(FIRST);
    while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
        if io.read_buf(&mut seen).await? == 0 {
            return Ok(None);
        }
    }
    let protocol = if seen.starts_with(PREFACE) { Protocol::Http2 } else { Protocol::Http1 };
    Ok(Some((protocol, Rewound { seen: seen.into(), io })))
}

/// A connection whose first bytes are read again.
pub(super) struct Rewound<T> {
    /// Lets go of its memory with the last of them.
    seen: Bytes,
    io: T,
}

impl<T> Rewound<T> {
    /// The connection itself, after its first bytes were read again.
    pub(super) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let length = self.seen.len().min(buffer.remaining());
        buffer.put_slice(&self.seen.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(bytes: &[u8]) -> Option<(Protocol, Vec<u8>)> {
        let (protocol, mut rewound) = detect(bytes).await.unwrap()?;
        let mut all = Vec::new();
        rewound.read_to_end(&mut all).await.unwrap();
        Some((protocol, all))
    }

    #[tokio::test]
    async fn the_first_bytes_tell_and_are_not_lost() {
        for head in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"POST / HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\n\r\n", b"P0"] {
            assert_eq!(of(head).await, Some((Protocol::Http1, head.to_vec())));
        }
        let http2 = [&PREFACE[..], b"\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(of(&http2).await, Some((Protocol::Http2, http2)));
        assert_eq!(of(b"PRI * H").await, None);
        assert_eq!(of(b"").await, None);
    }
}
