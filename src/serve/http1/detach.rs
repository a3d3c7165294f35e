//! Takes a connection of HTTP/1.1 away from hyper when all that is left to do on it is to write one lasting response.
//!
//! hyper keeps about 24 KiB of buffers for a connection and cannot be told to keep fewer than 15; an idle stream needs none. So
//! the connection's service keeps a response that goes on back, and hyper goes on waiting for it while it flushes
//! what it still owes to requests before. Then [`DetachableConnection`] ends, the connection is taken apart, and a [`StreamWriter`](super::stream_writer::StreamWriter)
//! in a task of its own, because a task stays as large as it ever was, writes the response to the bare socket.

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

/// Where the service leaves a response for the connection's driver.
#[derive(Clone, Default)]
pub(in crate::serve) struct Detachment(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The request at hand was read to its end.
    whole_request: AtomicBool,
}

#[derive(Default)]
enum State {
    /// hyper writes all responses.
    #[default]
    Nothing,
    /// This one was kept back; responses before it may not be written yet.
    Kept(StreamingResponse),
    /// All before it is written.
    Free(StreamingResponse),
}

impl Detachment {
    /// Whether the request at hand was read to its end: only then is there nothing more to read for hyper.
    pub(in crate::serve) fn has_whole_request(&self) -> bool {
        self.0.whole_request.load(Ordering::Relaxed)
    }

    pub(in crate::serve) fn set_whole_request(&self, whole: bool) {
        self.0.whole_request.store(whole, Ordering::Relaxed);
    }

    /// Keeps a response back from hyper.
    pub(in crate::serve) fn keep(&self, response: StreamingResponse) {
        *self.0.state.lock() = State::Kept(response);
    }

    /// hyper has flushed the socket, which it does only when its own buffer is empty.
    pub(in crate::serve) fn flushed(&self) {
        let mut state = self.0.state.lock();
        *state = match std::mem::take(&mut *state) {
            State::Kept(response) => State::Free(response),
            other => other,
        };
    }

    /// The response, when nothing stands before it any more.
    fn take(&self) -> Option<StreamingResponse> {
        let mut state = self.0.state.lock();
        match std::mem::take(&mut *state) {
            State::Free(response) => Some(response),
            other => {
                *state = other;
                None
            }
        }
    }
}

/// A connection of HTTP/1.1 until its end, or until a response that was kept back may be written past hyper.
pub(in crate::serve) struct DetachableConnection<T, S: HttpService<Incoming>> {
    pub(in crate::serve) connection: Connection<T, S>,
    pub(in crate::serve) detachment: Detachment,
}

impl<T, S> DetachableConnection<T, S>
where
    T: Read + Write + Unpin,
    S: HttpService<Incoming, ResBody = CountedBody> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Lets it finish the requests in hand.
    pub(in crate::serve) fn graceful_shutdown(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
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
        let this = &mut *self;
        let polled = Pin::new(&mut this.connection).poll(cx);
        if let Some(response) = self.detachment.take() {
            return Poll::Ready(Ok(Some(response)));
        }
        ready!(polled)?;
        Poll::Ready(Ok(None))
    }
}

/// The body of a request, which tells the detachment when it was read to its end.
pub(in crate::serve) struct RequestBody {
    body: Incoming,
    detachment: Detachment,
}

impl RequestBody {
    pub(in crate::serve) fn new(body: Incoming, detachment: Detachment) -> Self {
        detachment.set_whole_request(body.is_end_stream());
        Self { body, detachment }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if self.body.is_end_stream() || matches!(frame, Poll::Ready(None)) {
            self.detachment.set_whole_request(true);
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
