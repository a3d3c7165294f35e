//! What a handler left unread of a request over HTTP/1.1: it is read and thrown away, or the answer says that the connection
//! closes.
//!
//! hyper closes a connection whose request was not read to its end, and by then the answer is on its way without a word of it.

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

use super::{Problem, Settings, extract::read};

/// Answers a request so that the next one on its connection is answered too, unless this answer says that there is none.
///
/// A success whose request does not come to its end, within the limits of a body, becomes the error of that.
pub async fn answer<F>(request: Request<Body>, limits: &Settings, handle: impl FnOnce(Request<Body>) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let version = request.version();
    if version > Version::HTTP_11 || request.body().is_end_stream() {
        return handle(request).await;
    }
    // One time for the handler and what it leaves: two limits would add up.
    let until = Instant::now() + limits.body_timeout;
    let rest = Arc::default();
    let mut response = handle(request.map(|body| Body::new(Lent { body, rest: Arc::clone(&rest) }))).await;
    if response.headers().contains_key(header::CONNECTION) {
        return response;
    }
    let Some(mut rest) = rest.lock().take() else { return response };
    match read(&mut rest, limits.body_limit, until.saturating_duration_since(Instant::now())).await {
        Ok(_) => response,
        Err(error) if response.status().is_success() => Problem::from(error).closing(version).into_response(),
        Err(_) => {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// A body that comes back with what is left of it when its reader lets go of it.
struct Lent {
    body: Body,
    rest: Arc<Mutex<Option<Body>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.rest.lock() = Some(std::mem::take(&mut self.body));
    }
}

impl HttpBody for Lent {
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
