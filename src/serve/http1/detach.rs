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
};

use axum::body::{Body, Bytes, HttpBody};
use http::{Response, Version};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    rt::{Read, Write},
    server::conn::http1::Connection,
    service::HttpService,
};
use parking_lot::Mutex;

use super::{
    counted_body::CountedBody,
    response_kind::{ResponseKind, StreamingResponse},
};
use crate::serve::filtered_io::Filter;

/// The state of detaching one connection. Its service, request body, socket filter and driver share this state.
#[derive(Clone, Default)]
pub(super) struct Detachment(Arc<State>);

#[derive(Default)]
struct State {
    stage: Mutex<Stage>,
    /// Whether the current request was read to its end.
    is_request_read: AtomicBool,
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
pub(super) struct DetachableConnection<T, S: HttpService<Incoming>> {
    pub(super) connection: Connection<T, S>,
    pub(super) detachment: Detachment,
}

impl<T, S> DetachableConnection<T, S>
where
    T: Read + Write + Unpin,
    S: HttpService<Incoming, ResBody = CountedBody> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Ends the connection after the current request.
    pub(super) fn graceful_shutdown(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
    }

    /// Takes the connection apart. hyper holds no bytes to write; bytes that the peer sent after its request are dropped.
    pub(super) fn into_io(self) -> T {
        self.connection.into_parts().io
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
        ready!(polled)?;
        Poll::Ready(Ok(None))
    }
}

/// The body of a request. Tells the detachment when the body was read to its end.
pub(super) struct ReadTrackedBody {
    body: Incoming,
    detachment: Detachment,
}

impl ReadTrackedBody {
    pub(super) fn new(body: Incoming, detachment: Detachment) -> Self {
        detachment.set_request_read(body.is_end_stream());
        Self { body, detachment }
    }
}

impl HttpBody for ReadTrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if self.body.is_end_stream() || matches!(frame, Poll::Ready(None)) {
            self.detachment.set_request_read(true);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use axum::body::to_bytes;
    use http::Request;
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
                let body = ReadTrackedBody::new(request.into_body(), holding.clone());
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
        let mut connection = DetachableConnection { connection, detachment };
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
