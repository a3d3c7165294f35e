//! Reads and discards the part of an HTTP/1.1 request body that its handler did not read, or else answers `Connection: close`.
//!
//! hyper closes the connection of a request that was not read to its end, without telling the client: a client that sends its next
//! request at that moment would lose it.

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

/// Calls the handler, then discards the unread part of the request body, so that the connection can carry the next request.
///
/// When the body does not end within the limits, a success becomes an error, and the answer says `Connection: close`.
pub async fn discard_leftover_body<F>(
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
    // One deadline for the handler and for the unread part: two timeouts would add up.
    let deadline = Instant::now() + settings.body_timeout;
    let leftover = Arc::default();
    let mut response = handle(request.map(|body| Body::new(LentBody { body, leftover: Arc::clone(&leftover) }))).await;
    if response.headers().contains_key(header::CONNECTION) {
        return response;
    }
    let Some(mut leftover) = leftover.lock().take() else { return response };
    match read_body(&mut leftover, settings.body_limit, deadline.saturating_duration_since(Instant::now())).await {
        Ok(_) => response,
        Err(error) if response.status().is_success() => Problem::from(error).and_close(version).into_response(),
        Err(_) => {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// A body that is stored in `leftover` when its reader drops it.
struct LentBody {
    body: Body,
    leftover: Arc<Mutex<Option<Body>>>,
}

impl Drop for LentBody {
    fn drop(&mut self) {
        *self.leftover.lock() = Some(std::mem::take(&mut self.body));
    }
}

impl HttpBody for LentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
