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
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use tokio::time::Instant;
use tower::{Layer as _, Service as _, service_fn};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Cors, CorsLayer, ExposeHeaders, Vary};
use tracing::Instrument as _;

use super::{heads, sites::Sites};
use crate::{
    admin,
    error::Error,
    grpc::{self, Signal},
    rest::{self, Api, Problem},
    serve::{Answer, Handler, Peer},
    telemetry::BusyRoute,
};

/// All routes with what stands before them, and shorter ways for the two requests that come once for every message.
#[derive(Clone)]
pub(super) struct Front(Arc<Shared>);

struct Shared {
    routes: Cors<Router>,
    api: Api,
    signal: Signal,
    /// What the CORS layer adds to the answer of every request without an origin.
    without_origin: HeaderMap,
    sites: Sites,
    posts: BusyRoute,
    sends: BusyRoute,
}

/// Request extension: it comes to no handler, and this is why.
#[derive(Clone, Copy)]
struct Refused(Error);

impl Front {
    /// Puts everything before some routes.
    pub(super) fn before(routes: Router, api: Api, signal: Signal, origins: &[HeaderValue]) -> Self {
        let (routes, cors) = (routes.layer(from_fn_with_state(api.clone(), routed)), cors(origins));
        let (posts, sends) = (api.metrics.busy_route(rest::DEVICE), api.metrics.busy_route(grpc::SEND));
        let without_origin = without_origin(&cors);
        Self(Arc::new(Shared {
            routes: cors.layer(routes),
            api,
            signal,
            without_origin,
            sites: Sites::listed(origins),
            posts,
            sends,
        }))
    }
}

impl Shared {
    /// Observes and counts a request that does not come to the router.
    async fn counted(&self, route: &BusyRoute, answer: Pin<&mut (impl Future<Output = Response> + Send)>) -> Response {
        let began = Instant::now();
        let response = observe(&Method::POST, route.pattern(), answer).await;
        count(&response, |status| route.answered(status, began.elapsed()));
        response
    }
}

impl Handler for Front {
    fn answer<B>(&self, peer: Peer, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
    {
        let refused = self.0.sites.refuse(&request);
        self.answer_unless(refused, peer, request)
    }

    fn answer_without_place<B>(&self, peer: Peer, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
    {
        let refused = (!is_health(&request)).then_some(Error::NoPlace);
        self.answer_unless(refused, peer, request)
    }
}

impl Front {
    fn answer_unless<B>(&self, refused: Option<Error>, peer: Peer, mut request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static,
    {
        let shared = self.0.clone();
        if let Some(error) = heads::fault(&request) {
            // Nobody knows where its body ends, so nothing of it is read.
            let response = Problem::from(error).closing(request.version()).into_response();
            count(&response, |status| shared.api.metrics.answered("none", status, Duration::ZERO));
            return Box::pin(std::future::ready(response));
        }
        if let Some(error) = refused {
            request.extensions_mut().insert(Refused(error));
        }
        // A browser gives every POST an origin; without one the answer about CORS is always the same.
        let past_router = refused.is_none() && !request.headers().contains_key(header::ORIGIN);
        if past_router && let Some(to) = rest::receiver(&request) {
            return Box::pin(async move {
                let answer = pin!(rest::send(&shared.api, peer, to, &mut request));
                let mut response = shared.counted(&shared.posts, answer).await;
                let own = std::mem::replace(response.headers_mut(), shared.without_origin.clone());
                if !own.is_empty() {
                    response.headers_mut().extend(own);
                }
                response
            });
        }
        request.extensions_mut().insert(peer);
        // No browser makes a native call.
        if past_router && grpc::is_send(&request) {
            return Box::pin(async move {
                let answer = pin!(async { grpc::send(&shared.signal, request).await.map(Body::new) });
                shared.counted(&shared.sends, answer).await
            });
        }
        let asked = request.method() == Method::OPTIONS;
        let answer = shared.routes.clone().call(request.map(Body::new));
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
async fn routed(State(api): State<Api>, request: Request<Body>, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = match route.as_ref().map_or("none", MatchedPath::as_str) {
        grpc::ROUTE => grpc::method(request.uri().path()),
        route => route,
    };
    let (began, method) = (Instant::now(), request.method().clone());
    let answer = rest::answer(request, &api.settings, async |request| match request.extensions().get() {
        Some(Refused(error)) => refuse(*error, &request),
        None => next.run(request).await,
    });
    let response = observe(&method, route, pin!(answer)).await;
    count(&response, |status| api.metrics.answered(route, status, began.elapsed()));
    response
}

/// Whether a request asks how the server is.
fn is_health<B>(request: &Request<B>) -> bool {
    match *request.method() {
        Method::GET | Method::HEAD => admin::is_health(request.uri().path()),
        Method::POST => grpc::is_health(request.uri().path()),
        _ => false,
    }
}

/// The answer in the words of the protocol that was spoken.
fn refuse(error: Error, request: &Request<Body>) -> Response {
    let mut response =
        if grpc::is_call(request) { grpc::refuse(error).into_http() } else { rest::refuse(error, request.headers()) };
    if error == Error::NoPlace && request.version() <= Version::HTTP_11 {
        // Also, the place is for the next one: nobody waits for the rest of the request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts a request by the name of its gRPC status where its head has one, else by its status.
fn count(response: &Response, answered: impl FnOnce(&str)) {
    let status = response.headers().get(GRPC_STATUS);
    let code = status.map(|code| format!("{:?}", tonic::Code::from_bytes(code.as_bytes())));
    answered(code.as_deref().unwrap_or(response.status().as_str()));
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
        GRPC_STATUS,
        HeaderName::from_static("grpc-message"),
        HeaderName::from_static("grpc-status-details-bin"),
    ];
    let layer = CorsLayer::new()
        .allow_methods(AllowMethods::list([Method::GET, Method::POST]))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(exposed))
        .max_age(Duration::from_secs(86_400));
    if origins.is_empty() {
        // The same answer for every origin: caches need not tell them apart.
        layer.allow_origin(AllowOrigin::any()).vary(Vary::list([]))
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
        // Leaked once at start, so that cloning it is not an atomic increment on a shared counter.
        let value: &'static [u8] = Box::leak(value.as_bytes().into());
        (name.clone(), HeaderValue::from_static(std::str::from_utf8(value).unwrap_or_default()))
    });
    headers.collect()
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;
    use crate::{
        auth,
        budget::Budget,
        drain::Drain,
        hub,
        telemetry::{Levels, Metrics},
    };

    #[tokio::test]
    async fn a_panic_in_a_handler_is_a_problem_with_cors_and_is_counted_as_a_request() {
        let (metrics, second) = (Metrics::new(), Duration::from_secs(1));
        let limits = hub::Limits::unlimited(second, second);
        let auth = auth::Auth { mode: auth::Mode::None, require_all: false, trusted_proxies: Vec::new() };
        let settings = rest::Settings { body_limit: 0, body_timeout: second, heartbeat: second };
        let hub = hub::Hub::new(limits, Budget::new(0), hub::Local, metrics.clone());
        let (auth, drain) = (Arc::new(auth), Drain::new());
        let service =
            grpc::Service { hub: hub.clone(), auth: auth.clone(), metrics: metrics.clone(), heartbeat: second, drain };
        let api = Api { hub, auth, metrics: metrics.clone(), settings };
        let routes = Router::new().route("/panic", get(async || -> &'static str { panic!("as if by a bug") }));
        let front = Front::before(routes, api, grpc::signal(service, 0), &[]);
        let request = Request::get("/panic").header("host", "x").body(Body::empty()).expect("a request");
        let response = front.answer(Peer([127, 0, 0, 1].into()), request).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let levels = Levels { streams: 0, mailboxes: 0, mailbox_bytes: 0, held_bytes: 0, watches: 0, unsent_bytes: 0 };
        assert!(metrics.render(levels).contains(r#"signal_requests_total{route="/panic",status="500"} 1"#));
    }
}
