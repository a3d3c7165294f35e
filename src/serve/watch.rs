//! The watchdog of one connection: bytes that its peer leaves unread for too long end it.
//!
//! hyper does not poll a response body while the socket takes nothing, so a time-out in the body would sleep for ever. It
//! does poll the socket, and that is where this stands.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{takeover::Handover, turns::Turns};
use crate::telemetry::Metrics;

/// What a connection speaks, and so what shows that its peer still reads.
pub(super) enum Speaks {
    /// The proof is that all is written that was to be written when the socket took no more: there is one response at a time, so
    /// that a byte a second is no reading. The handover, if any, learns of every flush.
    Http1(Option<Handover>),
    /// The proof is any progress: a busy connection may have something to write at all times, and a single stream that does
    /// not read is cut by itself. It is read in bites.
    Http2(Turns),
}

/// What is the same for all connections, in one place, because every idle stream has it.
pub(super) struct Rules {
    /// How long a peer may leave written bytes unread.
    pub(super) patience: Duration,
    /// Where a connection that was ended is counted.
    pub(super) metrics: Metrics,
}

/// A connection that fails with [`io::ErrorKind::TimedOut`] when its peer stops reading.
pub(super) struct Watched<T> {
    io: T,
    speaks: Speaks,
    rules: Arc<Rules>,
    /// Runs from the first write that the socket did not take until the proof.
    alarm: Option<Box<Alarm>>,
}

struct Alarm {
    time: Pin<Box<Sleep>>,
    /// Bytes that the socket has to take for the proof.
    owed: usize,
}

impl<T> Watched<T> {
    pub(super) fn new(io: T, speaks: Speaks, rules: Arc<Rules>) -> Self {
        Self { io, speaks, rules, alarm: None }
    }

    /// The same watchdog for what is inside of a connection of HTTP/1.1.
    pub(super) fn unwrap<U>(self, inner: impl FnOnce(T) -> U) -> Watched<U> {
        let Self { io, rules, alarm, .. } = self;
        Watched { io: inner(io), speaks: Speaks::Http1(None), rules, alarm }
    }

    fn watch(&mut self, cx: &mut Context<'_>, all: usize, taken: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(length)) = taken {
            self.alarm.take_if(|alarm| {
                alarm.owed = alarm.owed.saturating_sub(length);
                alarm.owed == 0
            });
        }
        if taken.is_ready() {
            return taken;
        }
        let rules = &self.rules;
        let alarm = self.alarm.get_or_insert_with(|| {
            let owed = if let Speaks::Http1(_) = self.speaks { all } else { 1 };
            Box::new(Alarm { time: Box::pin(sleep(rules.patience)), owed })
        });
        ready!(alarm.time.as_mut().poll(cx));
        rules.metrics.connection_stalled();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let io = Pin::new(&mut this.io);
        match &this.speaks {
            Speaks::Http1(_) => io.poll_read(cx, buffer),
            Speaks::Http2(turns) => turns.poll_read(io, cx, buffer),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(cx, bytes.len(), taken)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.watch(cx, bytes.iter().map(|part| part.len()).sum(), taken)
    }

    /// Responses of HTTP/1.1 are small: hyper then makes one buffer of each, which the system takes faster than a list.
    fn is_write_vectored(&self) -> bool {
        matches!(self.speaks, Speaks::Http2(_)) && self.io.is_write_vectored()
    }

    /// Called when nothing is left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Speaks::Http1(Some(handover)) = &self.speaks {
            handover.flushed();
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
