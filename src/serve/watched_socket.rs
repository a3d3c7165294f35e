//! A socket whose peer is watched: bytes that it leaves untaken for too long end the connection.
//!
//! It stands below TLS, which takes bytes from its user before the socket does.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    http2::response_body::PIECE,
    write_watchdog::{Watchdog, waiter::Waiter},
};

/// A socket that fails with [`io::ErrorKind::TimedOut`] when its peer stops reading.
///
/// The proof that a peer reads is the first piece of what the socket did not take, or all of it where that is less: a byte a
/// second is no reading.
pub(super) struct WatchedSocket<T> {
    io: T,
    watchdog: Watchdog,
    /// Made when the socket takes no more, and let go of when the watchdog has forgotten it.
    waiter: Option<Arc<Waiter>>,
    /// Bytes that the socket has to take for the proof.
    owed: u32,
}

impl<T> WatchedSocket<T> {
    pub(super) fn new(io: T, watchdog: Watchdog) -> Self {
        Self { io, watchdog, waiter: None, owed: 0 }
    }

    fn is_cut(&self) -> bool {
        self.waiter.as_ref().is_some_and(|waiter| waiter.is_cut())
    }

    fn watch(&mut self, cx: &mut Context<'_>, all: usize, taken: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &taken {
            Poll::Pending => self.wait(cx, all),
            Poll::Ready(Ok(length)) => self.took(*length),
            Poll::Ready(Err(_)) => {}
        }
        taken
    }

    fn wait(&mut self, cx: &mut Context<'_>, all: usize) {
        let anew = self.owed == 0;
        if anew {
            self.owed = small(all.min(PIECE));
        }
        let waiter = self.waiter.get_or_insert_with(Waiter::of_socket);
        waiter.wait(&self.watchdog, anew, cx.waker());
        let before = waiter.set_owned(small(all)) as usize;
        self.watchdog.charge(all);
        self.watchdog.release(before);
    }

    fn took(&mut self, length: usize) {
        if self.owed == 0 {
            return;
        }
        self.owed = self.owed.saturating_sub(small(length));
        if self.owed == 0
            && let Some(waiter) = &self.waiter
        {
            waiter.rest();
            self.watchdog.release(waiter.set_owned(0) as usize);
            self.waiter.take_if(|waiter| Arc::strong_count(waiter) == 1);
        }
    }
}

impl<T> Drop for WatchedSocket<T> {
    fn drop(&mut self) {
        if let Some(waiter) = &self.waiter {
            waiter.rest();
            self.watchdog.release(waiter.set_owned(0) as usize);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedSocket<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let taken = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(cx, bytes.len(), taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let taken = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.watch(cx, bytes.iter().map(|part| part.len()).sum(), taken)
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

fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
