//! CORS: the layer for routed requests, and the constant headers for the fast path of `POST` to a device, which has no `Origin`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders, Vary};

/// `*` without credentials, or exactly the configured origins with them.
pub(super) fn layer(origins: &[HeaderValue]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods(AllowMethods::list([Method::GET, Method::POST]))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(EXPOSED.split(',').map(HeaderName::from_static)))
        .max_age(Duration::from_secs(86_400));
    if origins.is_empty() {
        // The answer is the same for every origin, so it needs no `vary`.
        layer.allow_origin(AllowOrigin::any()).vary(Vary::list([]))
    } else {
        layer.allow_origin(AllowOrigin::list(origins.iter().cloned())).allow_credentials(true)
    }
}

/// What the layer writes on a response to a request without an `Origin`.
///
/// The fast path of a POST adds these headers itself: running the layer would cost as much as routing. All values are static:
/// cloning any other value is an atomic increment on a counter that all threads share, which slows all of them.
pub(super) fn constant_headers(origins: &[HeaderValue]) -> HeaderMap {
    let headers: &[_] = if origins.is_empty() {
        &[(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")]
    } else {
        &[(header::VARY, VARY), (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")]
    };
    let exposed = (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.iter().cloned().chain([exposed]).map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

/// The response headers that a page may read, in addition to the few that CORS always allows.
const EXPOSED: &str = "retry-after,ttl,grpc-status,grpc-message,grpc-status-details-bin";

/// The request headers that the answer depends on when origins are configured.
const VARY: &str = "origin, access-control-request-headers";

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::{body::Body, response::Response};
    use http::Request;
    use tower::{Layer as _, Service as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn the_constants_are_what_the_layer_writes() {
        let listed = ["https://a.example", "https://b.example"].map(HeaderValue::from_static);
        for origins in [&[][..], &listed[..1], &listed] {
            let handler = service_fn(async |_: Request<Body>| Ok::<Response, Infallible>(Response::default()));
            let Ok(response) =
                layer(origins).layer(handler).call(Request::post("/").body(Body::empty()).unwrap()).await;
            assert_eq!(*response.headers(), constant_headers(origins), "{origins:?}");
        }
    }
}
