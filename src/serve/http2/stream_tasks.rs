//! Runs the streams of one HTTP/2 connection as tasks that the watchdog can end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::rt::Executor;
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use super::streams::Streams;
use crate::{drain::Drain, serve::write_watchdog::waiter::Waiter};

/// hyper's executor for one connection: runs each stream as a task.
///
/// hyper does not say which request a future belongs to. This relies on hyper 1.12: it calls the service for a request, and
/// gives the future of that request to the executor before it calls the service again. So the waiter that was made last belongs
/// to the next future. If hyper did this in another order, the watchdog would cut the wrong stream.
#[derive(Clone)]
pub(in crate::serve) struct StreamTasks {
    drain: Drain,
    streams: Arc<Streams>,
    opened: Arc<Mutex<Option<OpenStream>>>,
}

impl StreamTasks {
    pub(in crate::serve) fn new(drain: Drain, streams: Arc<Streams>) -> Self {
        Self { drain, streams, opened: Arc::default() }
    }

    /// Call this first in the service. Returns the waiter of the stream, for the response body.
    pub(super) fn open_stream(&self) -> Arc<Waiter> {
        let waiter = self.streams.open_stream();
        *self.opened.lock() = Some(OpenStream(waiter.clone()));
        waiter
    }
}

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // `over_limit` does not call `open_stream`.
        let open = self.opened.lock().take().unwrap_or_else(|| OpenStream(self.streams.open_stream()));
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
    /// The task of a stream. It ends when the stream ends or the watchdog cuts it. Then hyper's future is dropped, and h2
    /// resets an unfinished stream with CANCEL.
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
            waiter.on_pending(cx);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use axum::body::Body;
    use http::{Request, Response};
    use hyper::{body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::{
        budget::Budget,
        serve::{http2::testing, write_watchdog::Watchdog},
        telemetry::Metrics,
    };

    /// Two requests come with one read. hyper could call the service for both before it runs their tasks; this shows that it
    /// does not mix them up.
    #[tokio::test]
    async fn the_stream_that_is_cut_is_the_one_of_its_request() {
        for cut in [0, 1] {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            client.write_all(&testing::requests(2)).await.expect("space");
            let watchdog = Watchdog::new(Duration::from_secs(5), Budget::new(0), Metrics::new());
            let tasks = StreamTasks::new(Drain::new(), Streams::new(watchdog));
            let (opening, number) = (tasks.clone(), AtomicU32::new(0));
            let service = service_fn(move |_: Request<Incoming>| {
                let waiter = opening.open_stream();
                if number.fetch_add(1, Ordering::Relaxed) == cut {
                    waiter.cut();
                }
                async { Ok::<_, Infallible>(Response::new(Body::empty())) }
            });
            let mut connection = http2::Builder::new(tasks).serve_connection(TokioIo::new(server), service);
            let frames = async { [testing::next_answer(&mut client).await, testing::next_answer(&mut client).await] };
            let mut frames = tokio::select! {
                ended = &mut connection => panic!("{ended:?}"),
                frames = frames => frames,
            };
            frames.sort_unstable();
            let expected = [1, 3]
                .map(|stream| (stream, if stream == 1 + 2 * cut { testing::RST_STREAM } else { testing::HEADERS }));
            assert_eq!(frames, expected);
        }
    }
}
