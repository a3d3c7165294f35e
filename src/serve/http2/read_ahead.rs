//! Reads an HTTP/2 request body ahead while its handler does not read, so that its frames do not hold up the connection.
//!
//! A `SendStream` call does not read its requests while its responses wait for the peer. The `WINDOW_UPDATE` that it waits for may
//! come behind thousands of small requests, more than h2 lets wait. If the connection stopped reading for them, it would never get
//! that frame, and a peer that reads would lose its call.

use std::{
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
};

use axum::body::{Bytes, HttpBody};
use bytes::BytesMut;
use hyper::body::{Frame, SizeHint};
use tokio::task::coop::poll_proceed;

use super::{CONNECTION_WINDOW, STREAM_WINDOW, received_body::ReceivedBody, streams::Streams};

type Item = Option<Result<Frame<Bytes>, hyper::Error>>;

/// A request body with a buffer for what was read ahead.
pub(super) struct ReadAhead {
    body: ReceivedBody,
    /// Without the limits of its frames, so that small frames take no more than their bytes.
    buffer: BytesMut,
    /// What came after the data in the buffer.
    end: Option<Item>,
    /// The handler has polled the body, and waits for its next frame, unless the response waits for the peer.
    is_awaited: bool,
}

impl ReadAhead {
    pub(super) fn new(body: ReceivedBody) -> Self {
        Self { body, buffer: BytesMut::new(), end: None, is_awaited: false }
    }

    /// Reads what has come, unless the handler waits for it. While the response waits for the peer, hyper does not poll the handler,
    /// and will poll it before it waits again. Returns whether more could not be read, because a limit is reached.
    ///
    /// Must be called after the handler was polled, by the same task: h2 wakes one task for the body.
    pub(super) fn poll_ahead(&mut self, is_unread: bool, cx: &mut Context<'_>) -> bool {
        // Within tokio's budget: a client may send faster than this reads.
        let may_read = is_unread || !self.is_awaited;
        while may_read && self.end.is_none() && !self.body.is_end_stream() {
            if self.buffer.len() >= MOST_OF_STREAM || self.body.streams().bytes_read_ahead() >= MOST_OF_CONNECTION {
                return true;
            }
            let Poll::Ready(progress) = poll_proceed(cx) else { break };
            let Poll::Ready(item) = Pin::new(&mut self.body).poll_frame(cx) else { break };
            progress.made_progress();
            match item.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    self.body.streams().add_read_ahead(data.len());
                    self.buffer.extend_from_slice(&data);
                }
                Some(Ok(Err(trailers))) => self.end = Some(Some(Ok(trailers))),
                Some(Err(error)) => self.end = Some(Some(Err(error))),
                None => self.end = Some(None),
            }
        }
        false
    }

    fn take_buffer(&mut self) -> Bytes {
        self.body.streams().remove_read_ahead(self.buffer.len());
        std::mem::take(&mut self.buffer).freeze()
    }
}

impl HttpBody for ReadAhead {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Item> {
        let this = &mut *self;
        if !this.buffer.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.take_buffer()))));
        }
        if let Some(end) = this.end.take() {
            return Poll::Ready(end);
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        this.is_awaited = polled.is_pending();
        Poll::Ready(ready!(polled))
    }

    fn is_end_stream(&self) -> bool {
        self.buffer.is_empty() && self.end.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, buffered) = (self.body.size_hint(), self.buffer.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(buffered));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(buffered));
        }
        hint
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.take_buffer();
    }
}

impl Streams {
    fn bytes_read_ahead(&self) -> usize {
        self.read_ahead.load(Ordering::Relaxed)
    }

    /// Counts bytes of a request body that were read ahead. They are in memory because a peer does not read, as unsent bytes are.
    fn add_read_ahead(&self, bytes: usize) {
        self.read_ahead.fetch_add(bytes, Ordering::Relaxed);
        self.watchdog().add_unsent(bytes);
    }

    /// Stops counting bytes: the handler has taken them, or never will.
    fn remove_read_ahead(&self, bytes: usize) {
        self.read_ahead.fetch_sub(bytes, Ordering::Relaxed);
        self.watchdog().remove_unsent(bytes);
    }
}

/// The most bytes for one stream: what may be on its way when its responses begin to wait, and as much again, which the peer may send
/// before it reads them.
const MOST_OF_STREAM: usize = 2 * STREAM_WINDOW as usize;
/// The most bytes for all streams of a connection: what may be on its way. One frame more may be read.
const MOST_OF_CONNECTION: usize = CONNECTION_WINDOW as usize;
