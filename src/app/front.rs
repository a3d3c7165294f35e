//! What stands before all routes, outermost first: CORS, the request's span and count, panics.
//!
//! These are not layers of the router, because each of those costs a request as much as its routing does.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::{Body, Bytes, HttpBody},
    extract::{MatchedPath, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use prometheus_client::metrics::counter::Counter;
use tower::{Layer as _, Service as _, service_fn};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Cors, CorsLayer, ExposeHeaders};
use tracing::Instrument as _;

use crate::{
    error::Error,
    http::{self as api, Api, Problem},
    serve::{Answer, Handler, Peer},
    telemetry::Metrics,
};

/// All routes with what stands before them, and a shorter way for the one request that comes once for every message.
#[derive(Clone)]
pub(super) struct Front(Arc<Shared>);

struct Shared {
    routes: Cors<Router>,
    api: Api,
    /// What the CORS layer adds to the answer of every request without an origin.
    without_origin: HeaderMap,
    /// The count of messages that were delivered, which moves with each of them.
    delivered: Counter,
}

impl Front {
    /// Puts everything before some routes.
    pub(super) fn before(routes: Router, api: Api, origins: &[HeaderValue]) -> Self {
        let routes = routes.layer(from_fn_with_state(api.metrics.clone(), routed));
        let (cors, delivered) = (cors(origins), api.metrics.requests(api::DEVICE, StatusCode::OK.as_str()));
        Self(Arc::new(Shared { routes: cors.layer(routes), api, without_origin: without_origin(&cors), delivered }))
    }

    fn send<B>(&self, peer: Peer, mut request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    {
        let shared = self.0.clone();
        Box::pin(async move {
            let answer = pin!(api::send(&shared.api, peer, &mut request));
            let mut response = observe(&Method::POST, api::DEVICE, answer).await;
            match response.status() {
                StatusCode::OK => shared.delivered.inc(),
                status => shared.api.metrics.requests(api::DEVICE, status.as_str()).inc(),
            };
            let own = std::mem::replace(response.headers_mut(), shared.without_origin.clone());
            if !own.is_empty() {
                response.headers_mut().extend(own);
            }
            response
        })
    }
}

impl Handler for Front {
    fn answer<B>(&self, peer: Peer, mut request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        // A browser gives every POST an origin; without one the answer about CORS is always the same.
        if api::is_send(&request) && !request.headers().contains_key(header::ORIGIN) {
            return self.send(peer, request);
        }
        let asked = request.method() == Method::OPTIONS;
        request.extensions_mut().insert(peer);
        let answer = self.0.routes.clone().call(request.map(Body::new));
        Box::pin(async move {
            let Ok(mut response) = answer.await;
            // The CORS layer answers every OPTIONS with an empty 200.
            if asked && response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::NO_CONTENT;
            }
            response
        })
    }
}

/// Observes and counts what the router answers.
async fn routed(State(metrics): State<Metrics>, request: Request<Body>, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let method = request.method().clone();
    let response = observe(&method, route, pin!(next.run(request))).await;
    let code =
        response.headers().get("grpc-status").map(|code| format!("{:?}", tonic::Code::from_bytes(code.as_bytes())));
    metrics.requests(route, code.as_deref().unwrap_or(response.status().as_str())).inc();
    response
}

/// Gives a request a span, and makes a problem of a panic. A route is a pattern, so nothing of this holds an id, a query or a
/// token.
async fn observe(method: &Method, route: &str, answer: Pin<&mut (impl Future<Output = Response> + Send)>) -> Response {
    let span = tracing::debug_span!("request", %method, route);
    let response = async {
        let response = guard(answer).await;
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    };
    response.instrument(span).await
}

async fn guard(mut answer: Pin<&mut (impl Future<Output = Response> + Send)>) -> Response {
    // After a panic it is not polled again, so that nobody sees it broken.
    let polled = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    });
    polled.await.unwrap_or_else(|_| Problem::from(Error::Internal).into_response())
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

fn without_origin(cors: &CorsLayer) -> HeaderMap {
    let nothing = service_fn(async |_: Request<Body>| Ok::<Response, Infallible>(Response::default()));
    let answer = pin!(cors.layer(nothing).call(Request::default()));
    // Nothing here waits.
    let Poll::Ready(Ok(response)) = answer.poll(&mut Context::from_waker(Waker::noop())) else {
        return HeaderMap::new();
    };
    let headers = response.headers().iter().map(|(name, value)| {
        // Static for good, because all threads would share the counter of anything else.
        let value: &'static [u8] = Box::leak(value.as_bytes().into());
        (name.clone(), HeaderValue::from_static(std::str::from_utf8(value).unwrap_or_default()))
    });
    headers.collect()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;
    use crate::{auth, hub, telemetry::Levels};

    #[tokio::test]
    async fn a_panic_in_a_handler_is_a_problem_with_cors_and_is_counted_as_a_request() {
        let (metrics, second) = (Metrics::new(), Duration::from_secs(1));
        let limits = hub::Limits { stall: second, resume_window: second, hold: second, memory_budget: 0 };
        let auth = auth::Auth { mode: auth::Mode::None, require_all: false, trusted_proxies: Vec::new() };
        let settings = api::Settings { body_limit: 0, body_timeout: second, heartbeat: second };
        let hub = hub::Hub::new(limits, hub::Local, metrics.clone());
        let api = Api { hub, auth: Arc::new(auth), metrics: metrics.clone(), settings };
        let routes = Router::new().route("/panic", get(async || -> &'static str { panic!("as if by a bug") }));
        let front = Front::before(routes, api, &[]);
        let request = Request::get("/panic").body(Body::empty()).expect("a request");
        let response = front.answer(Peer([127, 0, 0, 1].into()), request).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let levels = Levels { streams: 0, mailboxes: 0, mailbox_bytes: 0 };
        assert!(metrics.render(levels).contains(r#"signal_requests_total{route="/panic",status="500"} 1"#));
    }
}
