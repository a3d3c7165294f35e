//! One router for both protocols: whose routes they are, and what stands before all of them.

use std::time::Duration;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders},
};
use tracing::Instrument as _;

use crate::{
    admin::{self, Admin},
    error::Error,
    grpc,
    http::{self as api, Api, Problem},
    telemetry::Metrics,
};

/// Joins the routes of all rooms.
pub(super) fn join(api: Api, grpc: Routes, admin: Admin, origins: &[HeaderValue], metrics: Metrics) -> Router {
    // Two fallbacks would not merge, and as a `layer` gRPC-Web would also answer for unknown paths.
    let grpc = grpc
        .into_axum_router()
        .reset_fallback()
        .route_layer(from_fn(within_deadline))
        .route_layer(GrpcWebLayer::new())
        .route_layer(from_fn(only_grpc));
    let routes = api::routes(api)
        .merge(admin::routes(admin))
        .merge(grpc)
        .fallback(no_route)
        .method_not_allowed_fallback(async || Problem::from(Error::MethodNotAllowed));
    behind(routes, origins, metrics)
}

/// What stands before all routes, outermost first: CORS, the request's span and count, panics.
fn behind(routes: Router, origins: &[HeaderValue], metrics: Metrics) -> Router {
    routes
        .layer(CatchPanicLayer::custom(|_| Problem::from(Error::Internal).into_response()))
        .layer(from_fn_with_state(metrics, observe))
        .layer(cors(origins))
        .layer(from_fn(no_content_for_options))
}

/// Lets only gRPC pass: a cross-site page can post `text/plain` without asking, and tonic would take it.
async fn only_grpc(request: Request, next: Next) -> Response {
    if request.method() == Method::POST && is_grpc(&request) {
        next.run(request).await
    } else {
        Problem::from(Error::UnsupportedMedia).into_response()
    }
}

/// Ends a call whose response does not begin in time, and tells streams when their client stops waiting.
async fn within_deadline(mut request: Request, next: Next) -> Response {
    let deadline = grpc::Deadline::parse(request.headers());
    let ours = tokio::time::Instant::now() + grpc::HANDLER_TIME;
    let until = deadline.map_or(ours, |deadline| deadline.0.min(ours));
    if let Some(deadline) = deadline {
        request.extensions_mut().insert(deadline);
    }
    match tokio::time::timeout_at(until, next.run(request)).await {
        Ok(response) => response,
        Err(_) => grpc::too_late().into_http(),
    }
}

async fn no_route(request: Request) -> Response {
    if is_grpc(&request) { grpc::no_service().into_http() } else { Problem::from(Error::NoRoute).into_response() }
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b'-' | b';')))
}

/// Counts every request and gives it a span; a route is a pattern, so neither holds an id, a query or a token.
async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let span = tracing::debug_span!("request", method = %request.method(), route);
    let response = async {
        let response = next.run(request).await;
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    }
    .instrument(span)
    .await;
    let code =
        response.headers().get("grpc-status").map(|code| format!("{:?}", tonic::Code::from_bytes(code.as_bytes())));
    metrics.requested(route, code.as_deref().unwrap_or(response.status().as_str()));
    response
}

/// `*` without credentials, or exactly the configured origins with them.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let exposed = [
        header::RETRY_AFTER,
        HeaderName::from_static("grpc-status"),
        HeaderName::from_static("grpc-message"),
        HeaderName::from_static("grpc-status-details-bin"),
    ];
    let layer = CorsLayer::new()
        .allow_methods(AllowMethods::list([Method::GET, Method::POST]))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(exposed))
        .max_age(Duration::from_secs(86_400));
    if origins.is_empty() {
        layer.allow_origin(AllowOrigin::any())
    } else {
        layer.allow_origin(AllowOrigin::list(origins.iter().cloned())).allow_credentials(true)
    }
}

/// The CORS layer answers every OPTIONS with an empty 200.
async fn no_content_for_options(request: Request, next: Next) -> Response {
    let asked = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    if asked && response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use tower::Service as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_a_problem_with_cors_and_is_counted_as_a_request() {
        let metrics = Metrics::new();
        let routes = Router::new().route("/panic", get(async || -> &'static str { panic!("as if by a bug") }));
        let mut guarded = behind(routes, &[], metrics.clone());
        let request = Request::get("/panic").body(Body::empty()).expect("a request");
        let response = guarded.call(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let levels = crate::telemetry::Levels { streams: 0, mailboxes: 0, mailbox_bytes: 0 };
        assert!(metrics.render(levels).contains(r#"signal_requests_total{route="/panic",status="500"} 1"#));
    }
}
