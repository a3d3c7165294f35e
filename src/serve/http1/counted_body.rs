//! The body of a response that hyper writes over HTTP/1.1: in pieces, and counted until hyper has taken them.
//!
//! hyper copies what it gets into a buffer. Of one large frame it would make a second one, for a peer that may not read.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http::Response;
use hyper::body::{Frame, SizeHint};

use crate::serve::{http2::response_body::PIECE, write_watchdog::Watchdog};

/// The body of a response.
pub(in crate::serve) struct CountedBody {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    charge: Option<Charge>,
}

/// Bytes that nobody has taken yet.
struct Charge {
    watchdog: Watchdog,
    bytes: usize,
}

impl CountedBody {
    /// One whose length is known is charged at once, unless it is a piece or less: that is counted when the socket leaves it.
    pub(in crate::serve) fn of(response: Response<Body>, watchdog: &Watchdog) -> Response<Self> {
        response.map(|body| {
            let known = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
            let charge = known.filter(|length| *length > PIECE).map(|bytes| {
                watchdog.charge(bytes);
                Charge { watchdog: watchdog.clone(), bytes }
            });
            Self { body, rest: Bytes::new(), charge }
        })
    }

    fn piece(&mut self) -> Bytes {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        if let Some(charge) = &mut self.charge {
            let taken = charge.bytes.min(piece.len());
            charge.watchdog.release(taken);
            charge.bytes -= taken;
        }
        piece
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)?) else { return Poll::Ready(None) };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.watchdog.release(self.bytes);
    }
}
