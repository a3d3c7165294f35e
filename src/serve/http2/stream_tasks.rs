//! Runs the streams of one HTTP/2 connection as tasks that the watchdog can end.

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

/// The executor that hyper gives the streams of one connection to.
///
/// hyper does not say which request a future belongs to. This relies on hyper 1.12: it calls the service for a request, and gives
/// the future of that request to the executor before it calls the service again. So the waiter that was made last belongs to the
/// next future. Otherwise the watchdog would cut the wrong streams.
#[derive(Clone)]
pub(in crate::serve) struct StreamTasks {
    drain: Drain,
    limit: Arc<UnsentLimit>,
    next: Arc<Mutex<Option<OpenStream>>>,
}

impl StreamTasks {
    pub(in crate::serve) fn new(drain: Drain, limit: Arc<UnsentLimit>) -> Self {
        Self { drain, limit, next: Arc::default() }
    }

    /// Makes the waiter of the request for which hyper calls the service now.
    pub(super) fn open_stream(&self) -> Arc<Waiter> {
        let waiter = self.limit.open_stream();
        *self.next.lock() = Some(OpenStream(waiter.clone()));
        waiter
    }
}

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = self.next.lock().take().unwrap_or_else(|| OpenStream(self.limit.open_stream()));
        self.drain.spawn(StreamTask { stream, open });
    }
}

/// A stream that is open until this is dropped.
struct OpenStream(Arc<Waiter>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.close();
    }
}

pin_project! {
    /// The task of a stream. It ends when the stream ends or the watchdog cuts it. Then hyper's future is dropped, and h2 resets
    /// an unfinished stream with CANCEL.
    struct StreamTask<F> {
        #[pin]
        stream: F,
        open: OpenStream,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let waiter = &this.open.0;
        if waiter.is_cut() {
            return Poll::Ready(());
        }
        let polled = this.stream.poll(cx);
        if polled.is_pending() {
            waiter.task_is_pending(cx);
        }
        polled
    }
}
