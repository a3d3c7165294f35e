//! Checks the frames of a request body before tonic reads them, so that a fault of the client gets the code of such a fault.
//!
//! tonic would drop the second message of a unary call, after it has acted on the first one, and answer INTERNAL to a body that is cut
//! short.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tonic::{Status, codegen::StdError};

use super::web_body::KeptError;
use crate::error::{Error, Invalid};

/// A request body. A fault in its frames becomes an error that is a `Status`.
pub struct RequestFrames<B> {
    body: B,
    /// Whether there may be any number of messages. If not, there must be exactly one.
    stream: bool,
    /// The most bytes of a message.
    limit: usize,
    /// The head of a frame, of which `filled` bytes have come.
    head: [u8; 5],
    filled: usize,
    /// The bytes of the current message that have not come yet.
    left: usize,
    begun: bool,
    /// The fault of the body. The messages before it are handed over first.
    fault: Option<Error>,
    over: bool,
    /// Over gRPC-Web: the error that the body gave to tonic-web, which would hide it.
    kept: Option<KeptError>,
}

impl<B> RequestFrames<B> {
    /// Adds these checks to the body of a call.
    pub(super) fn wrap(mut request: Request<B>, stream: bool, limit: usize) -> Request<Self> {
        let kept = KeptError::of(request.extensions_mut());
        request.map(|body| Self { kept, ..Self::new(body, stream, limit) })
    }

    fn new(body: B, stream: bool, limit: usize) -> Self {
        let (head, kept) = ([0; 5], None);
        Self { body, stream, limit, head, filled: 0, left: 0, begun: false, fault: None, over: false, kept }
    }

    /// Reads the heads of the frames in a piece of the body. Keeps the first fault. Returns how many bytes stand before it.
    fn check(&mut self, data: &[u8]) -> usize {
        let (mut at, mut frame) = (0, 0);
        while at < data.len() {
            let rest = &data[at..];
            if self.left > 0 {
                let length = self.left.min(rest.len());
                (self.left, at) = (self.left - length, at + length);
                continue;
            }
            if self.filled == 0 {
                frame = at;
            }
            let piece = &rest[..rest.len().min(self.head.len() - self.filled)];
            self.head[self.filled..][..piece.len()].copy_from_slice(piece);
            (self.filled, at) = (self.filled + piece.len(), at + piece.len());
            if let Err(error) = self.check_head() {
                self.fault = Some(error);
                return frame;
            }
        }
        data.len()
    }

    /// Checks the head of a frame as far as it has come. Begins the message of a whole head.
    fn check_head(&mut self) -> Result<(), Error> {
        if self.begun && !self.stream {
            return Err(Invalid::Body.into());
        }
        if self.filled < self.head.len() {
            return Ok(());
        }
        let [flags, length @ ..] = self.head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        // 1: the message is compressed. tonic refuses it with the code that the specification of gRPC names.
        if flags > 1 {
            return Err(Invalid::Body.into());
        }
        if length > self.limit {
            return Err(Error::TooLarge);
        }
        (self.filled, self.left, self.begun) = (0, length, true);
        Ok(())
    }

    /// Checks that the body may end here.
    fn check_end(&self) -> Result<(), Error> {
        let whole = self.filled == 0 && self.left == 0 && (self.begun || self.stream);
        if whole { Ok(()) } else { Err(Invalid::Body.into()) }
    }

    /// The fault as an error of the body, once.
    fn refuse(&mut self, fault: Error) -> Option<StdError> {
        (!std::mem::replace(&mut self.over, true)).then(|| Status::from(fault).into())
    }
}

impl<B: Body<Data = Bytes, Error: Into<StdError>> + Unpin> Body for RequestFrames<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        if let Some(fault) = this.fault {
            return Poll::Ready(this.refuse(fault).map(Err));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx)).transpose();
        let frame = frame.map_err(|error| this.kept.as_ref().map_or_else(|| error.into(), KeptError::take))?;
        let frame = match frame.map(Frame::into_data) {
            Some(Ok(mut data)) => {
                data.truncate(this.check(&data));
                Some(Frame::data(data))
            }
            end => {
                this.fault = this.check_end().err();
                end.and_then(Result::err)
            }
        };
        match this.fault {
            Some(fault) if frame.as_ref().and_then(Frame::data_ref).is_none_or(Bytes::is_empty) => {
                Poll::Ready(this.refuse(fault).map(Err))
            }
            _ => Poll::Ready(frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || (self.fault.is_none() && self.body.is_end_stream() && self.check_end().is_ok())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 3;

    /// The result for a body that comes in pieces of one size.
    fn result(body: &[u8], stream: bool, piece: usize) -> Result<(), Error> {
        let mut frames = RequestFrames::new((), stream, LIMIT);
        for piece in body.chunks(piece) {
            frames.check(piece);
            if let Some(fault) = frames.fault {
                return Err(fault);
            }
        }
        frames.check_end()
    }

    #[test]
    fn a_unary_body_has_one_whole_message_and_a_stream_any_number() {
        let (one, empty, refused) = ([0, 0, 0, 0, 2, 7, 7], [0; 5], Err(Error::Invalid(Invalid::Body)));
        let two = [&one[..], &empty].concat();
        for piece in [1, 2, 5, 6, 7, 100] {
            for (body, unary, stream) in [
                (&one[..], Ok(()), Ok(())),
                (&empty, Ok(()), Ok(())),
                (b"", refused, Ok(())),
                (&two, refused, Ok(())),
                (&two[..8], refused, refused),
                (&one[..6], refused, refused),
                (&one[..3], refused, refused),
                (&[2, 0, 0, 0, 0], refused, refused),
                (&[0, 0, 0, 0, 4, 7, 7, 7, 7], Err(Error::TooLarge), Err(Error::TooLarge)),
                (&[0, 255, 255, 255, 255], Err(Error::TooLarge), Err(Error::TooLarge)),
            ] {
                assert_eq!(result(body, false, piece), unary, "{body:?} in pieces of {piece}");
                assert_eq!(result(body, true, piece), stream, "{body:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_messages_before_a_fault_are_handed_over() {
        let (one, large) = ([0, 0, 0, 0, 2, 7, 7], [0, 0, 0, 0, 9]);
        let mut frames = RequestFrames::new((), true, LIMIT);
        assert_eq!(frames.check(&[&one[..], &one, &large].concat()), 2 * one.len());
        assert_eq!(frames.fault, Some(Error::TooLarge));
        let mut frames = RequestFrames::new((), false, LIMIT);
        assert_eq!((frames.check(&one[..6]), frames.check(&[7, 0])), (6, 1));
        assert_eq!(frames.fault, Some(Error::Invalid(Invalid::Body)));
    }
}
