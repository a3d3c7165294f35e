//! Tells a streaming response from a complete one by polling its body, so that no route has to declare it.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use http::Response;
use hyper::body::{Frame, SizeHint};

use crate::serve::write_watchdog::PIECE;

pub(super) enum ResponseKind {
    /// Its body has ended, or has a known length.
    Complete(Response<Body>),
    /// Its body may give more frames at any time.
    Streaming(StreamingResponse),
}

/// A streaming response, and the bytes that were read from its body so far.
pub(super) struct StreamingResponse {
    pub(super) response: Response<Body>,
    pub(super) prefix: Bytes,
    /// The error that the body gave after the prefix.
    pub(super) failed: Option<axum::Error>,
}

impl ResponseKind {
    /// Polls the body until it is pending, has ended, has failed, or has given a piece.
    pub(super) async fn of(response: Response<Body>) -> Self {
        if response.body().is_end_stream() || response.body().size_hint().exact().is_some() {
            return Self::Complete(response);
        }
        let (head, mut body) = response.into_parts();
        let (mut prefix, mut failed) = (Vec::new(), None);
        let has_ended = poll_fn(|cx| {
            while prefix.len() < PIECE {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => return Poll::Ready(true),
                    // Trailers are dropped: no `Trailer` header has announced them.
                    Poll::Ready(Some(Ok(frame))) => prefix.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    Poll::Ready(Some(Err(error))) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            Poll::Ready(false)
        })
        .await;
        if has_ended {
            return Self::Complete(Response::from_parts(head, prefix.into()));
        }
        Self::Streaming(StreamingResponse { response: Response::from_parts(head, body), prefix: prefix.into(), failed })
    }
}

impl StreamingResponse {
    /// The response with a body that begins with the prefix again.
    pub(super) fn into_response(self) -> Response<Body> {
        let Self { response, prefix, failed } = self;
        response.map(|body| Body::new(PrefixedBody { prefix, failed, body }))
    }
}

struct PrefixedBody {
    prefix: Bytes,
    failed: Option<axum::Error>,
    body: Body,
}

impl HttpBody for PrefixedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.prefix.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.prefix)))));
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
    async fn a_body_that_ends_at_once_is_complete_and_any_other_is_streaming() {
        let ends = ResponseKind::of(Response::new(Body::from_stream(frames(&["a", "", "b"])))).await;
        let ResponseKind::Complete(ends) = ends else { panic!("it ends") };
        assert_eq!(ends.body().size_hint().exact(), Some(2));
        assert_eq!(to_bytes(ends.into_body(), 9).await.expect("a body"), "ab");
        let streaming = ResponseKind::of(Response::new(Body::from_stream(frames(&["a", "b"]).chain(pending())))).await;
        let ResponseKind::Streaming(streaming) = streaming else { panic!("it goes on") };
        assert_eq!(streaming.prefix, "ab");
        let prefix =
            streaming.into_response().into_body().into_data_stream().next().await.expect("a frame").expect("no error");
        assert_eq!(prefix, "ab");
        assert!(matches!(
            ResponseKind::of(Response::new(Body::from_stream(pending::<Result<Bytes, Infallible>>()))).await,
            ResponseKind::Streaming(_)
        ));
        assert!(matches!(ResponseKind::of(Response::new(Body::from("known"))).await, ResponseKind::Complete(_)));
    }
}
