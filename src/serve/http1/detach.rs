//! Detaches an HTTP/1.1 connection from hyper when only one streaming response is left to write on it.
//!
//! hyper 1.12 keeps its read and write buffers for as long as a connection lives: an idle stream takes 9 KiB of memory with hyper,
//! and less than 1 KiB without. So the service holds a streaming response back, and hyper waits for it while it flushes the
//! responses to earlier requests. After that flush the connection is taken apart, and a
//! [`StreamWriter`](super::stream_writer::StreamWriter) writes the response to the socket.
//!
//! This is right as long as hyper flushes the socket only when its own write buffer is empty. If it flushed earlier, the bytes in
//! that buffer would be lost.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::body::{Bytes, HttpBody};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    rt::{Read, Write},
    server::conn::http1::Connection,
    service::HttpService,
};
use parking_lot::Mutex;

use super::{counted_body::CountedBody, response_kind::StreamingResponse};
use crate::serve::filtered_io::Filter;

/// What the service, the request body, the socket and the driver of one connection share about detaching it.
#[derive(Clone, Default)]
pub(super) struct Detachment(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The current request was read to its end.
    is_request_read: AtomicBool,
}

#[derive(Default)]
enum State {
    /// hyper writes all responses.
    #[default]
    Attached,
    /// This response is held back. hyper may still have bytes of earlier responses.
    HeldBack(StreamingResponse),
    /// hyper has written all earlier responses.
    Flushed(StreamingResponse),
}

impl Detachment {
    /// Whether the current request was read to its end. If not, hyper has to read the rest of the request.
    pub(super) fn is_request_read(&self) -> bool {
        self.0.is_request_read.load(Ordering::Relaxed)
    }

    fn set_request_read(&self, is_read: bool) {
        self.0.is_request_read.store(is_read, Ordering::Relaxed);
    }

    /// Holds a response back from hyper.
    pub(super) fn hold_back(&self, response: StreamingResponse) {
        *self.0.state.lock() = State::HeldBack(response);
    }

    /// Takes the response if hyper has written all earlier ones.
    fn take_flushed(&self) -> Option<StreamingResponse> {
        let mut state = self.0.state.lock();
        match std::mem::take(&mut *state) {
            State::Flushed(response) => Some(response),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl Filter for Detachment {
    fn on_flush(&mut self) {
        let mut state = self.0.state.lock();
        *state = match std::mem::take(&mut *state) {
            State::HeldBack(response) => State::Flushed(response),
            other => other,
        };
    }

    /// hyper then makes one buffer of each small response, and the system writes one buffer faster than a list.
    fn allows_vectored(&self) -> bool {
        false
    }
}

/// A connection of HTTP/1.1 until it ends or a response was held back and can be written without hyper.
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

/// The body of a request, which notes when it was read to its end.
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
