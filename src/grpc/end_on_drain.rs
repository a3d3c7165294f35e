//! Ends the calls of the health and reflection services on a drain. Their implementations are not ours and do not know of the
//! drain. Also has the frames of their requests checked.
//!
//! Reflection reads its requests in a task that tonic-reflection spawns. When the call is over, [`CallRequestBody`] ends the
//! request body. Otherwise the task would hold the body for ever, and h2 would keep the stream as long.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Status, codegen::StdError};

use super::{
    request_frames::RequestFrames,
    status::{trailers, when_expired},
};
use crate::{drain::Drain, error::Error};

/// How long a call continues after the drain has begun, so that a watch of the health service still gets `NOT_SERVING`.
const NOT_SERVING_GRACE: Duration = Duration::from_millis(100);

/// Ends a call when the server stops or the token of its caller expires, and ends its request body when its response body is dropped. A request message has at most
/// `limit` bytes.
pub async fn end_on_drain<B, A: Body>(
    request: Request<B>,
    drain: &Drain,
    limit: usize,
    expires: Option<SystemTime>,
    call: impl AsyncFnOnce(Request<CallRequestBody<B>>) -> Response<A>,
    wrap: impl FnOnce(CallResponseBody<A>) -> A,
) -> Response<A> {
    let call_ended = CancellationToken::new();
    let is_stream = !is_health(request.uri().path());
    let request = RequestFrames::wrap(request, is_stream, limit)
        .map(|body| CallRequestBody { body: Some(body), call_ended: Box::pin(call_ended.clone().cancelled_owned()) });
    let end_request_body = call_ended.drop_guard();
    let response = call(request).await;
    let drain = drain.clone();
    let stop = Box::pin(async move {
        let drained = async {
            drain.started().await;
            sleep(NOT_SERVING_GRACE).await;
        };
        tokio::select! {
            () = drained => Error::DRAINING.into(),
            status = when_expired(expires) => status,
        }
    });
    response.map(|body| wrap(CallResponseBody { body: Some(body), stop, _end_request_body: end_request_body }))
}

/// Whether a path is that of a method of the health service.
#[must_use]
pub fn is_health(path: &str) -> bool {
    path.starts_with(HEALTH)
}

/// The path of a method of the health service. Its requests are one message; those of reflection are a stream.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// The request body of a call.
pub struct CallRequestBody<B> {
    /// `None` when the call has ended.
    body: Option<RequestFrames<B>>,
    call_ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<B: Body<Data = Bytes, Error: Into<StdError>> + Unpin> Body for CallRequestBody<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let this = &mut *self;
        if this.call_ended.as_mut().poll(cx).is_ready() {
            this.body = None;
        }
        this.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

/// The response body of a call. Dropping it ends the request body.
pub struct CallResponseBody<A> {
    /// `None` when the server has ended the call.
    body: Option<A>,
    stop: Pin<Box<dyn Future<Output = Status> + Send>>,
    _end_request_body: DropGuard,
}

impl<A: Body + Unpin> Body for CallResponseBody<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<A::Data>, A::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let status = ready!(this.stop.as_mut().poll(cx));
        this.body = None;
        Poll::Ready(Some(Ok(trailers(&status))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
