//! Wraps an `AsyncRead + AsyncWrite` with a filter that may change or count its reads and writes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A filter for the I/O of one connection. The default of each method passes the call on.
pub(super) trait Filter {
    fn poll_read(
        &mut self,
        io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        io.poll_read(cx, buffer)
    }

    /// Calls `write`, which offers `length` bytes to the socket and returns how many it took.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        _length: usize,
        write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        write(cx)
    }

    /// Called with the bytes that were read. An error ends the connection.
    fn on_read(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Called with the bytes that the socket took.
    fn on_written(&mut self, _bytes: &[u8]) {}

    /// Called before each flush.
    fn on_flush(&mut self) {}
}

/// A connection with a filter.
pub(super) struct FilteredIo<T, F> {
    io: T,
    filter: F,
}

impl<T, F> FilteredIo<T, F> {
    pub(super) fn new(io: T, filter: F) -> Self {
        Self { io, filter }
    }

    /// The connection below the filter.
    pub(super) fn get_ref(&self) -> &T {
        &self.io
    }

    /// The connection without the filter.
    pub(super) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin, F: Filter + Unpin> AsyncRead for FilteredIo<T, F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, filter } = self.get_mut();
        let before = buffer.filled().len();
        ready!(filter.poll_read(Pin::new(io), cx, buffer))?;
        Poll::Ready(filter.on_read(&buffer.filled()[before..]))
    }
}

impl<T: AsyncWrite + Unpin, F: Filter + Unpin> AsyncWrite for FilteredIo<T, F> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { io, filter } = self.get_mut();
        let written = ready!(filter.poll_write(cx, bytes.len(), |cx| Pin::new(io).poll_write(cx, bytes)))?;
        filter.on_written(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, filter } = self.get_mut();
        let length = buffers.iter().map(|buffer| buffer.len()).sum();
        let written = ready!(filter.poll_write(cx, length, |cx| Pin::new(io).poll_write_vectored(cx, buffers)))?;
        let mut left = written;
        for buffer in buffers {
            let taken = left.min(buffer.len());
            filter.on_written(&buffer[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.filter.on_flush();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
