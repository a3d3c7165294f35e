//! A response body for hyper over HTTP/1.1: splits large frames into pieces and counts unsent bytes.
//!
//! hyper copies each frame into its buffer. Without pieces, hyper would copy all of a large frame, even for a peer
//! that does not read.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use http::Response;
use hyper::body::{Frame, SizeHint};

use crate::serve::write_watchdog::{PIECE, UnsentBytes, Watchdog};

pub(super) struct CountedBody {
    body: Body,
    /// The part of the last frame that hyper did not take yet.
    remaining: Bytes,
    unsent: Option<UnsentBytes>,
}

impl CountedBody {
    /// Counts a body of known length as unsent from now on, if it is larger than a piece. `watched_socket` counts smaller bodies
    /// when the socket blocks.
    pub(super) fn wrap(response: Response<Body>, watchdog: &Watchdog) -> Response<Self> {
        response.map(|body| {
            let known = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
            let unsent = known.filter(|length| *length > PIECE).map(|length| UnsentBytes::new(watchdog, length));
            Self { body, remaining: Bytes::new(), unsent }
        })
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.remaining.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)?) else { return Poll::Ready(None) };
            match frame.into_data() {
                Ok(data) => this.remaining = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        let piece = this.remaining.split_to(this.remaining.len().min(PIECE));
        if let Some(unsent) = &mut this.unsent {
            unsent.remove(piece.len());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.remaining.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}
