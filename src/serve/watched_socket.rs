//! A socket whose peer the watchdog watches: the connection ends when the peer leaves bytes unread for too long.
//!
//! It stands below TLS. Above TLS it would see nothing, because TLS buffers bytes that the socket has not taken.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use super::{
    filtered_io::{Filter, FilteredIo},
    write_watchdog::{PIECE, Watchdog, as_u32, waiter::Waiter},
};

/// A socket that fails with [`io::ErrorKind::TimedOut`] when its peer stops reading.
pub(super) type WatchedSocket = FilteredIo<TcpStream, WriteWatch>;

/// Watches the writes of a socket.
///
/// After a write that the socket refused, the socket must take a piece within the stall timeout, or the whole write if that is
/// less. So a peer that reads single bytes is cut too.
pub(super) struct WriteWatch {
    watchdog: Watchdog,
    /// Exists from the first refused write until the socket is dropped: a socket whose peer always read has none.
    waiter: Option<Arc<Waiter>>,
    /// Bytes that the socket must still take before the peer counts as reading.
    bytes_to_progress: u32,
}

pub(super) fn wrap(socket: TcpStream, watchdog: Watchdog) -> WatchedSocket {
    FilteredIo::new(socket, WriteWatch { watchdog, waiter: None, bytes_to_progress: 0 })
}

impl WriteWatch {
    fn check(&self) -> io::Result<()> {
        match &self.waiter {
            Some(waiter) if waiter.is_cut() => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    /// The socket took nothing of a write of `length` bytes.
    fn on_blocked(&mut self, cx: &mut Context<'_>, length: usize) {
        let restart = self.bytes_to_progress == 0;
        if restart {
            self.bytes_to_progress = as_u32(length.min(PIECE));
        }
        let waiter = self.waiter.get_or_insert_with(Waiter::of_socket);
        waiter.start_waiting(&self.watchdog, restart, cx.waker());
        let before = waiter.set_unsent(as_u32(length)) as usize;
        self.watchdog.add_unsent(length);
        self.watchdog.remove_unsent(before);
    }

    fn stop(&self) {
        if let Some(waiter) = &self.waiter {
            waiter.stop_waiting();
            self.watchdog.remove_unsent(waiter.set_unsent(0) as usize);
        }
    }
}

impl Filter for WriteWatch {
    fn poll_read(
        &mut self,
        io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        io.poll_read(cx, buffer)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = write(cx);
        if written.is_pending() {
            self.on_blocked(cx, length);
        }
        written
    }

    fn on_written(&mut self, bytes: &[u8]) {
        if self.bytes_to_progress == 0 {
            return;
        }
        self.bytes_to_progress = self.bytes_to_progress.saturating_sub(as_u32(bytes.len()));
        if self.bytes_to_progress == 0 {
            self.stop();
        }
    }
}

impl Drop for WriteWatch {
    fn drop(&mut self) {
        self.stop();
    }
}
