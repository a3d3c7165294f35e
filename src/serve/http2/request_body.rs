//! The body of an HTTP/2 request, which fails when the peer resets the stream before the end of the body.
//!
//! hyper reports `RST_STREAM(NO_ERROR)` as a normal end of body (RFC 9113, section 8.1). A server must not: it would accept
//! half a message as a whole one.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    BoxError,
    body::{Bytes, HttpBody},
};
use hyper::body::{Frame, Incoming, SizeHint};

pub(in crate::serve) struct CheckedBody(pub(in crate::serve) Incoming);

impl HttpBody for CheckedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(match frame {
            None if !self.0.is_end_stream() => Some(Err("the stream was reset before the end of its body".into())),
            frame => frame.map(|frame| frame.map_err(Into::into)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
