//! Services that others wrote, health and reflection: their streams end when the server stops, and their requests with them.
//!
//! A service may read its requests in a task of its own. That one would never learn that its call is over, and h2 would keep the
//! stream for as long as it holds the requests.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::{deadline::trailers, status};
use crate::{drain::Drain, error::Error};

/// How long a stream of health goes on when the server stops, because `NOT_SERVING` is its last word.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Ends a call with the server, and its requests with its responses.
pub async fn supervise<B, A: Body>(
    request: Request<B>,
    drain: &Drain,
    call: impl AsyncFnOnce(Request<Requests<B>>) -> Response<A>,
    wrap: impl FnOnce(Responses<A>) -> A,
) -> Response<A> {
    let over = CancellationToken::new();
    let request = request.map(|body| Requests { body: Some(body), over: Box::pin(over.clone().cancelled_owned()) });
    let call_over = over.drop_guard();
    let response = call(request).await;
    let drain = drain.clone();
    let stop = Box::pin(async move {
        drain.started().await;
        sleep(LAST_WORD).await;
    });
    response.map(|body| wrap(Responses { body: Some(body), stop, _call_over: call_over }))
}

/// The requests of a call.
pub struct Requests<B> {
    /// None when the call is over.
    body: Option<B>,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<B: Body + Unpin> Body for Requests<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = &mut *self;
        if this.over.as_mut().poll(cx).is_ready() {
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

/// The responses of a call. Dropping them ends the requests.
pub struct Responses<A> {
    /// None when the server has ended it.
    body: Option<A>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    _call_over: DropGuard,
}

impl<A: Body + Unpin> Body for Responses<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<A::Data>, A::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(this.stop.as_mut().poll(cx));
        this.body = None;
        Poll::Ready(Some(Ok(trailers(&status::from(Error::DRAINING)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
