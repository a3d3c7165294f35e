//! Reads and discards what the handler left of an HTTP/1.1 request body. If that is too long or too slow, the response says
//! `Connection: close`.
//!
//! hyper closes the connection if a request body was not read to its end, and does not tell the client. A next request that the
//! client sends at that moment would be lost. Before the connection closes, `serve` discards more of the body, so that the client
//! gets to read the response.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, Request, Version, header};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Problem, Settings, body::read_body};
use crate::serve::expects_continue;

/// Calls the handler, then discards what it left of the request body, so that the connection can carry the next request.
///
/// If the body does not end within the limits, the response says `Connection: close`, and an error replaces a success: a stream,
/// for example, must not begin on a connection whose request has not ended.
pub async fn discard_leftover<F>(
    request: Request<Body>,
    settings: &Settings,
    handle: impl FnOnce(Request<Body>) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let version = request.version();
    if version > Version::HTTP_11 || request.body().is_end_stream() {
        return handle(request).await;
    }
    let expects_continue = expects_continue(request.headers());
    // The time that the handler takes is subtracted. Otherwise two timeouts would add up.
    let deadline = Instant::now() + settings.body_timeout;
    let leftover = Arc::default();
    let lend = |body| Body::new(LentBody { body, is_untouched: true, leftover: Arc::clone(&leftover) });
    let mut response = handle(request.map(lend)).await;
    if response.headers().contains_key(header::CONNECTION) {
        return response;
    }
    let Some(Leftover { mut body, is_untouched }) = leftover.lock().take() else { return response };
    // The client waits before it sends its body. Reading the body would make hyper send `100 Continue`.
    if expects_continue && is_untouched && !is_success(&response) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    match read_body(&mut body, settings.body_limit, deadline.saturating_duration_since(Instant::now())).await {
        Ok(_) => response,
        Err(error) if is_success(&response) => Problem::from(error).and_close(version).into_response(),
        Err(_) => {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// Whether the handler did what the request asks for. The refusal of a gRPC call has the status 200, too.
fn is_success(response: &Response) -> bool {
    response.status().is_success() && !response.headers().contains_key("grpc-status")
}

/// A request body that goes back to [`discard_leftover`] when the handler drops it.
struct LentBody {
    body: Body,
    is_untouched: bool,
    leftover: Arc<Mutex<Option<Leftover>>>,
}

struct Leftover {
    body: Body,
    /// The handler has not polled the body.
    is_untouched: bool,
}

impl Drop for LentBody {
    fn drop(&mut self) {
        let body = std::mem::take(&mut self.body);
        *self.leftover.lock() = Some(Leftover { body, is_untouched: self.is_untouched });
    }
}

impl HttpBody for LentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_untouched = false;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
