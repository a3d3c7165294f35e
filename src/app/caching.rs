//! Forbids caches to store an answer: a list, a 204 or an error of one caller must not reach another one.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};

use crate::{admin, grpc};

/// For every answer of the HTTP API that does not say more itself, as event streams do.
pub(super) const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// The headers for the answer to one request.
#[derive(Clone, Copy)]
pub(super) struct CacheHeaders {
    /// Nothing caches the answer to a gRPC call, which is a POST.
    is_call: bool,
    /// Whether the answer depends on `Accept`: a list or a watch, and a refusal as a problem or as a stream.
    varies: bool,
}

impl CacheHeaders {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        Self {
            is_call: grpc::CallType::of(request).is_some(),
            varies: reads && !admin::is_health_path(request.uri().path()),
        }
    }

    pub(super) fn add(self, headers: &mut HeaderMap) {
        if self.is_call {
            return;
        }
        let (name, value) = NO_STORE;
        headers.entry(name).or_insert(value);
        if self.varies {
            // A line of its own: CORS may have written one.
            headers.append(header::VARY, HeaderValue::from_static("accept"));
        }
    }
}
