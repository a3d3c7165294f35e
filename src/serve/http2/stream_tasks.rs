//! Runs the streams of one HTTP/2 connection as tasks that the watchdog can end, and that discard what a handler left of a request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, rt::Executor};
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use super::{
    request_body::{CheckedBody, SharedBody},
    streams::Streams,
};
use crate::{drain::Drain, serve::write_watchdog::waiter::Waiter};

/// hyper's executor for one connection: runs each stream as a task.
///
/// hyper does not say which request a future belongs to. This relies on hyper 1.12: it calls the service for a request, and
/// gives the future of that request to the executor before it calls the service again. So the waiter that was made last belongs
/// to the next future. If hyper did this in another order, the watchdog would cut the wrong stream.
#[derive(Clone)]
pub(in crate::serve) struct StreamTasks {
    drain: Arc<Drain>,
    body_timeout: Duration,
    streams: Arc<Streams>,
    opened: Arc<Mutex<Option<Opened>>>,
}

/// What the service knows of a stream that has no task yet.
struct Opened {
    stream: OpenStream,
    body: Option<SharedBody>,
}

impl StreamTasks {
    pub(in crate::serve) fn new(drain: Arc<Drain>, body_timeout: Duration, streams: Arc<Streams>) -> Self {
        Self { drain, body_timeout, streams, opened: Arc::default() }
    }

    /// Call this first in the service. Returns the request for the handler, and the waiter of the stream for the response body.
    pub(in crate::serve) fn open_stream(&self, request: Request<Incoming>) -> (Request<CheckedBody>, Arc<Waiter>) {
        let request = CheckedBody::of(request, self.body_timeout, &self.drain, &self.streams);
        let (waiter, body) = (self.streams.open_stream(), request.body().share());
        if body.is_some() {
            waiter.request.set_open();
        }
        *self.opened.lock() = Some(Opened { stream: OpenStream(waiter.clone()), body });
        (request, waiter)
    }
}

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Every future is that of a stream which the service has opened: the server accepts no CONNECT, whose tasks hyper would
        // spawn too.
        let opened = self.opened.lock().take();
        let (open, body) = opened.map_or((None, None), |opened| (Some(opened.stream), opened.body));
        self.drain.spawn(StreamTask { stream: Some(stream), open, body });
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
    /// The task of a stream. It runs hyper's future until the response is written, and then discards what the handler left of the
    /// request body. When the watchdog cuts the stream, hyper's future is dropped, and h2 resets an unfinished stream with CANCEL, as
    /// soon as its peer sends little.
    struct StreamTask<F> {
        // `None` when the response is written.
        #[pin]
        stream: Option<F>,
        open: Option<OpenStream>,
        body: Option<SharedBody>,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some(stream) = this.stream.as_mut().as_pin_mut() {
            if this.open.as_ref().is_some_and(|open| open.0.is_cut()) {
                this.stream.set(None);
                return this.body.as_ref().map_or(Poll::Ready(()), |body| body.poll_discard_until_quiet(cx));
            }
            if stream.poll(cx).is_pending() {
                if let Some(open) = this.open {
                    open.0.on_pending(cx);
                    // Early, because an event stream may go on for days: a body that nobody reads would hold its part of the
                    // connection's window, and then no request of the connection gets its body.
                    let is_over =
                        |body: &mut SharedBody| body.is_done() || body.is_left() && body.poll_discard(cx).is_ready();
                    if open.0.request.is_refused() {
                        if let Some(body) = this.body {
                            body.poll_refuse(cx);
                        }
                    } else if this.body.take_if(is_over).is_some() {
                        open.0.request.set_read();
                    } else if let Some(body) = this.body {
                        open.0.request.set_full(body.poll_ahead(open.0.waiting_since().is_some(), cx));
                    }
                }
                return Poll::Pending;
            }
            this.stream.set(None);
            *this.open = None;
        }
        // When this task ends, h2 resets the stream (with NO_ERROR, if the response was written), unless its request has ended.
        this.body.as_ref().map_or(Poll::Ready(()), |body| body.poll_discard(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU32, Ordering},
    };

    use axum::body::Body;
    use http::Response;
    use hyper::{server::conn::http2, service::service_fn};
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
            let tasks = StreamTasks::new(Arc::default(), Duration::from_secs(5), Streams::new(watchdog));
            let (opening, number) = (tasks.clone(), AtomicU32::new(0));
            let service = service_fn(move |request: Request<Incoming>| {
                let (_, waiter) = opening.open_stream(request);
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
