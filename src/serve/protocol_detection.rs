//! Reads the first bytes of a connection, which tell whether it speaks HTTP/1.1 or HTTP/2.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::filtered_io::{Filter, FilteredIo};

/// Every HTTP/2 connection begins with these bytes (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The size of the first read, in bytes. Most requests are shorter, so hyper gets a whole request at once.
const FIRST_READ: usize = 1024;

/// Reads until the protocol is known; `None` if the peer closes before. Has no deadline: the caller must set one.
pub(super) async fn detect<T: AsyncRead + Unpin>(mut io: T) -> io::Result<Option<(Protocol, Rewound<T>)>> {
    let mut first = Vec::with_capacity(FIRST_READ);
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        if io.read_buf(&mut first).await? == 0 {
            return Ok(None);
        }
    }
    let protocol = if first.starts_with(PREFACE) { Protocol::Http2 } else { Protocol::Http1 };
    Ok(Some((protocol, FilteredIo::new(io, FirstBytes(first.into())))))
}

/// A connection that gives its first bytes again, although [`detect`] has read them.
pub(super) type Rewound<T> = FilteredIo<T, FirstBytes>;

/// The bytes that [`detect`] has read. Reads take these first; their memory is freed after the last one.
pub(super) struct FirstBytes(Bytes);

impl Filter for FirstBytes {
    fn poll_read(
        &mut self,
        io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return io.poll_read(cx, buffer);
        }
        let length = self.0.len().min(buffer.remaining());
        buffer.put_slice(&self.0.split_to(length));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn detected(bytes: &[u8]) -> Option<(Protocol, Vec<u8>)> {
        let (protocol, mut rewound) = detect(bytes).await.unwrap()?;
        let mut all = Vec::new();
        rewound.read_to_end(&mut all).await.unwrap();
        Some((protocol, all))
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol_and_are_read_again() {
        for head in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"POST / HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\n\r\n", b"P0"] {
            assert_eq!(detected(head).await, Some((Protocol::Http1, head.to_vec())));
        }
        let http2 = [&PREFACE[..], b"\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(detected(&http2).await, Some((Protocol::Http2, http2)));
        assert_eq!(detected(b"PRI * H").await, None);
        assert_eq!(detected(b"").await, None);
    }
}
