//! The tasks of one HTTP/2 connection's streams, which the watchdog can end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::rt::Executor;
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use super::unsent_limit::UnsentLimit;
use crate::{drain::Drain, serve::write_watchdog::waiter::Waiter};

/// Runs the streams of one connection as tracked tasks.
///
/// hyper calls the service and then at once executes the stream's future, both from the connection's task; so the waiter that
/// was made last belongs to the future that comes next.
#[derive(Clone)]
pub(in crate::serve) struct StreamTasks {
    drain: Drain,
    account: Arc<UnsentLimit>,
    next: Arc<Mutex<Option<Live>>>,
}

impl StreamTasks {
    pub(in crate::serve) fn new(drain: Drain, account: Arc<UnsentLimit>) -> Self {
        Self { drain, account, next: Arc::default() }
    }

    /// Makes the waiter of the request at hand.
    pub(in crate::serve) fn open(&self) -> Arc<Waiter> {
        let waiter = self.account.open();
        *self.next.lock() = Some(Live(waiter.clone()));
        waiter
    }
}

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let live = self.next.lock().take().unwrap_or_else(|| Live(self.account.open()));
        self.drain.spawn(WatchedStream { stream, live });
    }
}

/// A stream that is open until this is dropped.
struct Live(Arc<Waiter>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.leave();
    }
}

pin_project! {
    /// The task of a stream. It is over when the stream is, or when the watchdog has given up its peer: then hyper's future is
    /// dropped, and h2 resets the stream with CANCEL.
    struct WatchedStream<F> {
        #[pin]
        stream: F,
        live: Live,
    }
}

impl<F: Future<Output = ()>> Future for WatchedStream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let waiter = &this.live.0;
        if waiter.is_cut() {
            return Poll::Ready(());
        }
        let polled = this.stream.poll(cx);
        if polled.is_pending() {
            waiter.polled(cx);
        }
        polled
    }
}
