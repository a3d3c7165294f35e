//! The body of every response of HTTP/2: pieces that show whether the peer reads, and count what it has not taken.
//!
//! hyper asks for the next frame as soon as one byte of the last one has room in the peer's windows. So pieces are small, and the
//! last byte of every frame is a piece of its own: being asked after that one means that all before it had room. The task of a
//! stream lives until then, and the watchdog can cut it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http::Response;
use hyper::body::{Frame, SizeHint};

use crate::serve::write_watchdog::waiter::Waiter;

/// Bytes of a piece: a peer that reads takes one within `--stall-timeout`.
pub(in crate::serve) const PIECE: usize = 16 * 1024;

/// Bytes on their way to hyper and h2 that nobody shares. They are given back when h2 has written them, or never will.
struct Owned {
    bytes: Bytes,
    owner: Arc<Waiter>,
    charged: u32,
}

/// The body of a response.
pub(in crate::serve) struct ResponseBody {
    body: Body,
    waiter: Arc<Waiter>,
    /// What is left of the last frame, but for its last byte. Boxed, because nearly all streams are idle nearly all the time.
    rest: Option<Box<Bytes>>,
    /// Bytes that are charged and not in a piece yet.
    paid: u32,
    last_byte: Option<u8>,
    ended: bool,
}

impl ResponseBody {
    /// The response of a stream. One whose length is known is charged at once.
    pub(in crate::serve) fn of(response: Response<Body>, waiter: Arc<Waiter>) -> Response<Self> {
        response.map(|body| {
            let known = if body.is_end_stream() { None } else { body.size_hint().exact() };
            let paid = known.map_or(0, |length| u32::try_from(length).unwrap_or(u32::MAX));
            if paid > 0 {
                waiter.charge(paid);
            }
            Self { body, waiter, rest: None, paid, last_byte: None, ended: false }
        })
    }

    /// Cuts a frame: this piece, the rest, the last byte.
    fn cut(&mut self, mut frame: Bytes) -> Bytes {
        if self.paid == 0 && frame.is_unique() {
            self.paid = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            self.waiter.charge(self.paid);
        }
        if frame.len() > 1 {
            self.last_byte = frame.last().copied();
            frame.truncate(frame.len() - 1);
        }
        self.piece(frame)
    }

    fn piece(&mut self, mut rest: Bytes) -> Bytes {
        let bytes = rest.split_to(rest.len().min(PIECE));
        // The last byte is given back with the piece before it.
        let length = bytes.len() + usize::from(rest.is_empty() && self.last_byte.is_some());
        if !rest.is_empty() {
            self.rest = Some(Box::new(rest));
        }
        let charged = self.paid.min(u32::try_from(length).unwrap_or(u32::MAX));
        self.paid -= charged;
        self.waiter.gave();
        // The charge hides behind the bytes, because hyper keeps room for a piece as long as a stream lives.
        if charged == 0 { bytes } else { Bytes::from_owner(Owned { bytes, owner: self.waiter.clone(), charged }) }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // What is paid for is in memory already: only to be written makes room.
        if self.paid == 0 {
            ready!(self.waiter.poll_room(cx));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Some(rest) = this.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(this.piece(*rest)))));
        }
        if let Some(byte) = this.last_byte.take() {
            this.waiter.gave();
            return Poll::Ready(Some(Ok(Frame::data(one(byte)))));
        }
        this.waiter.asked();
        let Some(frame) = ready!(this.poll_body(cx)?) else {
            this.ended = true;
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => Frame::data(this.cut(data)),
            Err(frame) => frame,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.last_byte.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let whole = self.rest.is_none() && self.last_byte.is_none();
        if whole { self.body.size_hint() } else { SizeHint::default() }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.paid > 0 {
            self.waiter.release(self.paid);
        }
    }
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.owner.release(self.charged);
    }
}

/// A byte for which nothing is allocated.
fn one(byte: u8) -> Bytes {
    Bytes::from_static(std::slice::from_ref(&BYTES[usize::from(byte)]))
}

static BYTES: [u8; 256] = {
    let (mut bytes, mut byte) = ([0; 256], 0);
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        {
            bytes[byte] = byte as u8;
        }
        byte += 1;
    }
    bytes
};
