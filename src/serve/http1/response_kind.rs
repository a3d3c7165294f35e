//! What a response of HTTP/1.1 is: whole, or going on. Nobody has to say so, because its body tells when it is asked once.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use http::Response;
use hyper::body::{Frame, SizeHint};

use crate::serve::http2::response_body::PIECE;

/// A response whose body was asked once.
pub(in crate::serve) enum ResponseKind {
    /// All of it is there, or its length.
    Complete(Response<Body>),
    /// It goes on for as long as it likes.
    Streaming(StreamingResponse),
}

/// A response that goes on, and what its body gave already.
pub(in crate::serve) struct StreamingResponse {
    pub(in crate::serve) response: Response<Body>,
    pub(in crate::serve) first: Bytes,
    /// What it failed with after that.
    pub(in crate::serve) failed: Option<axum::Error>,
}

impl ResponseKind {
    /// Asks the body for what it has at once, up to a piece.
    pub(in crate::serve) async fn of(response: Response<Body>) -> Self {
        if response.body().is_end_stream() || response.body().size_hint().exact().is_some() {
            return Self::Complete(response);
        }
        let (head, mut body) = response.into_parts();
        let (mut first, mut failed) = (Vec::new(), None);
        let whole = poll_fn(|cx| {
            while first.len() < PIECE {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => return Poll::Ready(true),
                    // Trailers of HTTP/1.1 were announced by nobody.
                    Poll::Ready(Some(Ok(frame))) => first.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    Poll::Ready(Some(Err(error))) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            Poll::Ready(false)
        })
        .await;
        if whole {
            return Self::Complete(Response::from_parts(head, first.into()));
        }
        Self::Streaming(StreamingResponse { response: Response::from_parts(head, body), first: first.into(), failed })
    }
}

impl StreamingResponse {
    /// For whoever asks the body from its beginning.
    pub(in crate::serve) fn whole(self) -> Response<Body> {
        let Self { response, first, failed } = self;
        response.map(|body| Body::new(Resumed { first, failed, body }))
    }
}

/// A body with what it gave already.
struct Resumed {
    first: Bytes,
    failed: Option<axum::Error>,
    body: Body,
}

impl HttpBody for Resumed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::to_bytes;
    use tokio_stream::{StreamExt as _, iter, pending};

    use super::*;

    fn frames(frames: &'static [&'static str]) -> impl tokio_stream::Stream<Item = Result<Bytes, Infallible>> + Send {
        iter(frames).map(|frame| Ok(Bytes::from_static(frame.as_bytes())))
    }

    #[tokio::test]
    async fn a_body_that_ends_at_once_is_whole_and_any_other_goes_on() {
        let ends = ResponseKind::of(Response::new(Body::from_stream(frames(&["a", "", "b"])))).await;
        let ResponseKind::Complete(ends) = ends else { panic!("it ends") };
        assert_eq!(ends.body().size_hint().exact(), Some(2));
        assert_eq!(to_bytes(ends.into_body(), 9).await.expect("a body"), "ab");
        let goes_on = ResponseKind::of(Response::new(Body::from_stream(frames(&["a", "b"]).chain(pending())))).await;
        let ResponseKind::Streaming(goes_on) = goes_on else { panic!("it goes on") };
        assert_eq!(goes_on.first, "ab");
        let first = goes_on.whole().into_body().into_data_stream().next().await.expect("a frame").expect("no error");
        assert_eq!(first, "ab");
        assert!(matches!(
            ResponseKind::of(Response::new(Body::from_stream(pending::<Result<Bytes, Infallible>>()))).await,
            ResponseKind::Streaming(_)
        ));
        assert!(matches!(ResponseKind::of(Response::new(Body::from("known"))).await, ResponseKind::Complete(_)));
    }
}
