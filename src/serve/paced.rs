//! A body that is asked for more only when what it gave before has been taken.
//!
//! hyper asks an HTTP/2 body for the next frame while the last one may still wait for the peer's window, so being asked proves
//! nothing. Here the last byte of every frame is a frame of its own: hyper takes that one only when all before it has room in
//! the window, and asks again only after that.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// The body of any response of HTTP/2; holds back the last byte of every frame of a lasting one.
pub(super) struct PacedBody {
    body: Body,
    paced: bool,
    last_byte: Option<u8>,
}

impl PacedBody {
    pub(super) fn new(body: Body, paced: bool) -> Self {
        Self { body, paced, last_byte: None }
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(last_byte) = self.last_byte.take() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&[last_byte])))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(mut data) if self.paced && data.len() > 1 => {
                    self.last_byte = data.last().copied();
                    data.truncate(data.len() - 1);
                    Frame::data(data)
                }
                Ok(data) => Frame::data(data),
                Err(trailers) => trailers,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.last_byte.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // A lasting body is of unknown length.
        if self.paced { SizeHint::default() } else { self.body.size_hint() }
    }
}
