//! Detaches an HTTP/1.1 connection from hyper when only one streaming response is left to write on it.
//!
//! hyper 1.12 keeps its read and write buffers for as long as a connection lives: an idle stream takes 9 KiB of memory with
//! hyper, and less than 1 KiB without. So the service holds a streaming response back. hyper waits for the response, and meanwhile
//! flushes earlier bytes such as `100 Continue`. After that flush the connection is taken apart, and a
//! [`StreamWriter`](super::stream_writer::StreamWriter) writes the response to the socket.
//!
//! This relies on hyper: it flushes the socket only when its own write buffer is empty. If hyper flushed earlier, the bytes in that
//! buffer would be lost.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http::{Request, Response, Version, header};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    rt::{Read, Write},
    server::conn::http1::Connection,
    service::HttpService,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    counted_body::CountedBody,
    response_kind::{ResponseKind, StreamingResponse},
};
use crate::{
    drain::Drain,
    serve::{
        discard::{Discard, discard},
        filtered_io::Filter,
    },
};

/// The state of detaching one connection. Its service, request body, socket filter and driver share this state.
#[derive(Clone, Default)]
pub(super) struct Detachment(Arc<State>);

#[derive(Default)]
struct State {
    stage: Mutex<Stage>,
    /// Whether the current request was read to its end.
    is_request_read: AtomicBool,
    /// What the handler left of the body of the current request, and until when that may take to arrive.
    leftover: Mutex<Option<(Incoming, Instant)>>,
}

#[derive(Default)]
enum Stage {
    /// hyper writes all responses.
    #[default]
    Attached,
    /// This response is held back. hyper may still have bytes to write before it.
    HeldBack(StreamingResponse),
    /// hyper has written all bytes before this response.
    Flushed(StreamingResponse),
}

impl Detachment {
    /// Whether the current request was read to its end. If not, hyper has to read the rest of the request.
    fn is_request_read(&self) -> bool {
        self.0.is_request_read.load(Ordering::Relaxed)
    }

    fn set_request_read(&self, is_read: bool) {
        self.0.is_request_read.store(is_read, Ordering::Relaxed);
    }

    /// Holds a streaming response back from hyper, and then never ends. Returns every other response.
    pub(super) async fn hold_back_stream(&self, response: Response<Body>, version: Version) -> Response<Body> {
        match ResponseKind::of(response).await {
            ResponseKind::Streaming(mut streaming) if self.is_request_read() && streaming.failed.is_none() => {
                *streaming.response.version_mut() = version;
                self.hold_back(streaming);
                pending().await
            }
            // Also a body that has failed already: hyper reports the error.
            ResponseKind::Streaming(streaming) => streaming.into_response(),
            ResponseKind::Complete(response) => response,
        }
    }

    fn hold_back(&self, response: StreamingResponse) {
        *self.0.stage.lock() = Stage::HeldBack(response);
    }

    /// Takes the response if hyper has written all bytes before it.
    fn take_flushed(&self) -> Option<StreamingResponse> {
        let mut stage = self.0.stage.lock();
        match std::mem::take(&mut *stage) {
            Stage::Flushed(response) => Some(response),
            other => {
                *stage = other;
                None
            }
        }
    }
}

impl Filter for Detachment {
    fn on_flush(&mut self) {
        let mut stage = self.0.stage.lock();
        *stage = match std::mem::take(&mut *stage) {
            Stage::HeldBack(response) => Stage::Flushed(response),
            other => other,
        };
    }
}

/// Drives an HTTP/1.1 connection until it ends (`None`), or until hyper has flushed everything before a held-back response.
///
/// Also discards what the handler left of a request body, while hyper writes the response. If hyper saw such a body dropped, it
/// would close the socket while the peer still writes.
pub(super) struct DetachableConnection<T, S: HttpService<Incoming>> {
    connection: Connection<T, S>,
    detachment: Detachment,
    discard: Option<Discard>,
    drain: Arc<Drain>,
}

impl<T, S> DetachableConnection<T, S>
where
    T: Read + Write + Unpin,
    S: HttpService<Incoming, ResBody = CountedBody> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(connection: Connection<T, S>, detachment: Detachment, drain: Arc<Drain>) -> Self {
        Self { connection, detachment, discard: None, drain }
    }

    /// Ends the connection after the current request.
    pub(super) fn graceful_shutdown(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
    }

    /// Takes the connection apart. hyper holds no bytes to write; bytes that the peer sent after its request are dropped.
    pub(super) fn into_io(self) -> T {
        self.connection.into_parts().io
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) {
        if let Some((leftover, deadline)) = self.detachment.0.leftover.lock().take() {
            self.discard = Some(discard(leftover, deadline, self.drain.clone()));
        }
        if self.discard.as_mut().is_some_and(|discard| discard.as_mut().poll(cx).is_ready()) {
            self.discard = None;
            // hyper closes the connection now, or reads the next request.
            cx.waker().wake_by_ref();
        }
    }
}

impl<T, S> Future for DetachableConnection<T, S>
where
    T: Read + Write + Unpin,
    S: HttpService<Incoming, ResBody = CountedBody> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = hyper::Result<Option<StreamingResponse>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        if let Some(response) = self.detachment.take_flushed() {
            return Poll::Ready(Ok(Some(response)));
        }
        if polled.is_pending() {
            self.poll_discard(cx);
        }
        ready!(polled)?;
        Poll::Ready(Ok(None))
    }
}

/// The body of a request. Tells the detachment when the body was read to its end, or else leaves the rest to be discarded.
pub(super) struct ReadTrackedBody {
    /// Never `None` before the drop.
    body: Option<Incoming>,
    detachment: Detachment,
    deadline: Instant,
    /// The peer sends the body only after `100 Continue`, which hyper writes at the first poll.
    waits_for_continue: bool,
}

impl ReadTrackedBody {
    pub(super) fn wrap(request: Request<Incoming>, detachment: &Detachment, timeout: Duration) -> Request<Self> {
        let waits_for_continue = request.headers().contains_key(header::EXPECT);
        request.map(|body| {
            detachment.set_request_read(body.is_end_stream());
            let deadline = Instant::now() + timeout;
            Self { body: Some(body), detachment: detachment.clone(), deadline, waits_for_continue }
        })
    }
}

impl Drop for ReadTrackedBody {
    fn drop(&mut self) {
        // Nothing to wait for when the peer was never asked for its body.
        if !self.is_end_stream() && !self.detachment.is_request_read() && !self.waits_for_continue {
            *self.detachment.0.leftover.lock() = self.body.take().map(|body| (body, self.deadline));
        }
    }
}

impl HttpBody for ReadTrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits_for_continue = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *body).poll_frame(cx);
        if body.is_end_stream() || matches!(frame, Poll::Ready(None)) {
            self.detachment.set_request_read(true);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::to_bytes;
    use hyper::{server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{
        budget::Budget,
        serve::{filtered_io::FilteredIo, write_watchdog::Watchdog},
        telemetry::Metrics,
    };

    /// The socket takes 10 bytes at a time, so hyper still has bytes of `100 Continue` when the service holds the response
    /// back.
    #[tokio::test]
    async fn a_connection_detaches_only_when_hyper_has_written_all_bytes_before_the_response() {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let (mut client, server) = tokio::io::duplex(10);
        let watchdog = Watchdog::new(Duration::from_secs(5), Budget::new(0), Metrics::new());
        let detachment = Detachment::default();
        let holding = detachment.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (holding, watchdog) = (holding.clone(), watchdog.clone());
            async move {
                let body = ReadTrackedBody::wrap(request, &holding, Duration::from_secs(5)).into_body();
                let body = to_bytes(Body::new(body), 1024).await.expect("a body");
                assert!(body == "body" && holding.is_request_read());
                let response = Response::new(Body::empty());
                holding.hold_back(StreamingResponse { response, prefix: Bytes::new(), failed: None });
                std::future::pending::<()>().await;
                Ok::<_, Infallible>(CountedBody::wrap(Response::new(Body::empty()), &watchdog))
            }
        });
        let io = TokioIo::new(FilteredIo::new(server, detachment.clone()));
        let connection = http1::Builder::new().serve_connection(io, service);
        let mut connection = DetachableConnection::new(connection, detachment, Arc::default());
        let server = async {
            assert!((&mut connection).await.expect("no error").is_some());
            drop(connection.into_io());
        };
        let client = async {
            let request = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody";
            client.write_all(request).await.expect("space");
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.expect("no error");
            read
        };
        let ((), read) = tokio::join!(server, client);
        assert_eq!(read, CONTINUE);
    }
}
