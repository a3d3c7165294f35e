//! What happens to a request before a handler gets it: this daemon refuses it, sends it on a fast path, or routes it.
//!
//! A request with a faulty head is refused first, before anything reads its body. The rest, but not OPTIONS, gets a span and is
//! counted, and a panic becomes a problem response. A routed request passes, from the outside: CORS, the layer [`routed`] (tracing, failed
//! identities, leftover body, refusals), the routes. A POST to a device and a gRPC `Send` come once for every message. They take a fast path:
//! the same steps without axum's router and layers, each of which costs about as much as the routing itself.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use tokio::time::Instant;
use tower::{Layer as _, Service as _};
use tower_http::cors::Cors;
use tracing::Instrument as _;

use super::{
    caching::{self, CacheHeaders},
    cors,
    cross_site::AllowedOrigins,
    failed_identities::FailedIdentities,
    head_checks,
};
use crate::{
    admin,
    auth::Auth,
    drain::catch_panic,
    error::Error,
    grpc::{self, CallType, SignalService},
    limits::ClientAddresses,
    rest::{self, Api, Problem},
    serve::{Handler, Peer, RequestBody, ResponseFuture},
    telemetry::BusyRoute,
};

/// The handler of all requests.
#[derive(Clone)]
pub(super) struct Dispatch(Arc<Inner>);

struct Inner {
    routes: Cors<Router>,
    api: Api,
    signal: SignalService,
    /// For the fast path of a POST: [`cors::constant_headers`] and [`caching::NO_STORE`].
    constant_headers: HeaderMap,
    allowed_origins: AllowedOrigins,
    addresses: ClientAddresses,
    failed: Arc<FailedIdentities>,
    post: BusyRoute,
    grpc_send: BusyRoute,
}

/// The state of the layer [`routed`].
#[derive(Clone)]
struct Routed {
    api: Api,
    failed: Arc<FailedIdentities>,
}

/// Request extension: the layer [`routed`] answers with this error and does not call the handler.
#[derive(Clone, Copy)]
struct RefuseWith(Error);

impl Dispatch {
    pub(super) fn new(
        routes: Router,
        api: Api,
        signal: SignalService,
        origins: &[HeaderValue],
        allowed_origins: AllowedOrigins,
        addresses: ClientAddresses,
        failed: FailedIdentities,
    ) -> Self {
        let failed = Arc::new(failed);
        let routes = routes.layer(from_fn_with_state(Routed { api: api.clone(), failed: failed.clone() }, routed));
        let mut constant_headers = cors::constant_headers(origins);
        constant_headers.extend([caching::NO_STORE]);
        let (post, grpc_send) = (api.metrics.busy_route(rest::DEVICE_ROUTE), api.metrics.busy_route(grpc::SEND));
        Self(Arc::new(Inner {
            routes: cors::layer(origins).layer(routes),
            api,
            signal,
            constant_headers,
            allowed_origins,
            addresses,
            failed,
            post,
            grpc_send,
        }))
    }
}

impl Handler for Dispatch {
    fn handle(&self, peer: Peer, request: Request<impl RequestBody>) -> ResponseFuture {
        let error = self.0.allowed_origins.error(&self.0.api.auth, peer, &request);
        self.dispatch(error, peer, request)
    }

    fn handle_over_limit(&self, peer: Peer, request: Request<impl RequestBody>) -> ResponseFuture {
        let error = (!is_health(&request)).then_some(Error::TOO_MANY_CONNECTIONS);
        self.dispatch(error, peer, request)
    }
}

impl Dispatch {
    fn dispatch(&self, error: Option<Error>, peer: Peer, mut request: Request<impl RequestBody>) -> ResponseFuture {
        let inner = self.0.clone();
        if let Some(error) = head_checks::error(&request) {
            // The head does not say reliably where the body ends, so the connection closes and the body is not read.
            let mut response = Problem::from(error).and_close(request.version()).into_response();
            CacheHeaders::of(&request).add(response.headers_mut());
            count(&response, |status| inner.api.metrics.answered(NO_ROUTE, status, Duration::ZERO));
            return Box::pin(std::future::ready(response));
        }
        let client = inner.addresses.of_request(peer.tcp, peer.client, request.headers());
        let peer = Peer { client, ..peer };
        let error = error.or_else(|| head_checks::http2_error(&request));
        if let Some(error) = error {
            request.extensions_mut().insert(RefuseWith(error));
        }
        // Without an `Origin` the CORS headers are always the same. Browsers send `Origin` with every POST, so a request of a
        // browser always takes the router.
        let may_skip_router = error.is_none() && !request.headers().contains_key(header::ORIGIN);
        if may_skip_router && let Some(to) = rest::send_receiver(&request) {
            return Box::pin(async move {
                let handler = rest::send_directly(&inner.api, peer, to, &mut request);
                let handler = pin!(inner.failed.hold_back(client, handler));
                let mut response = trace_fast_path(&inner.post, handler).await;
                add_challenge(&inner.api.auth, &mut response);
                // Adds the response's own headers to a clone of the constant ones: most responses have none, so this copies least.
                let own = std::mem::replace(response.headers_mut(), inner.constant_headers.clone());
                if !own.is_empty() {
                    response.headers_mut().extend(own);
                }
                response
            });
        }
        request.extensions_mut().insert(peer);
        // Only browsers need CORS headers, and a browser cannot make a native gRPC call (it cannot read trailers).
        if may_skip_router && grpc::is_send(&request) {
            return Box::pin(async move {
                let handler = async { grpc::send(&inner.signal, request).await.map(Body::new) };
                let held_back = inner.failed.hold_back(client, handler);
                let handler = pin!(async { in_protocol_of(Some(CallType::Native), held_back.await) });
                trace_fast_path(&inner.grpc_send, handler).await
            });
        }
        let (is_options, cache_headers) = (request.method() == Method::OPTIONS, CacheHeaders::of(&request));
        let routed = inner.routes.clone().call(request.map(Body::new));
        Box::pin(async move {
            let Ok(mut response) = routed.await;
            // The CORS layer answers every OPTIONS with an empty 200. Without a body, 204 is the right status.
            if is_options && response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::NO_CONTENT;
            }
            cache_headers.add(response.headers_mut());
            response
        })
    }
}

/// Traces and counts a request that skips the router. Every fast path is a POST.
async fn trace_fast_path(route: &BusyRoute, handler: Pin<&mut (impl Future<Output = Response> + Send)>) -> Response {
    let began = Instant::now();
    let response = trace(&Method::POST, route.pattern(), handler).await;
    count(&response, |status| route.answered(status, began.elapsed()));
    response
}

/// The layer around the routes: traces and counts each request, refuses some, and discards the rest of their bodies.
async fn routed(State(routed): State<Routed>, request: Request<Body>, next: Next) -> Response {
    let Routed { api, failed } = routed;
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = match route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str) {
        grpc::ROUTE => grpc::method(request.uri().path()),
        route => route,
    };
    let (began, method, call) = (Instant::now(), request.method().clone(), CallType::of(&request));
    let client = request.extensions().get().map(|peer: &Peer| peer.client);
    let handler = rest::discard_leftover(request, &api.settings, async |request| match request.extensions().get() {
        Some(RefuseWith(error)) => refusal_response(*error, &request),
        None => next.run(request).await,
    });
    let handler = async {
        match client {
            Some(client) => failed.hold_back(client, handler).await,
            None => handler.await,
        }
    };
    let mut response = in_protocol_of(call, trace(&method, route, pin!(handler)).await);
    add_challenge(&api.auth, &mut response);
    count(&response, |status| api.metrics.answered(route, status, began.elapsed()));
    response
}

/// Whether a request is a health check, over HTTP or gRPC.
fn is_health<B>(request: &Request<B>) -> bool {
    match *request.method() {
        Method::GET | Method::HEAD => admin::is_health_path(request.uri().path()),
        Method::POST => grpc::is_health_path(request.uri().path()),
        _ => false,
    }
}

/// The response for a refused request, in the protocol of the request.
fn refusal_response(error: Error, request: &Request<Body>) -> Response {
    let mut response = match CallType::of(request) {
        Some(call) => call.respond(error.into()),
        // Only a GET can be a request for a stream. A sender would take the 200 of a refused stream for "delivered".
        None if request.method() == Method::GET => rest::error_response(error, request.headers()),
        None => Problem::from(error).into_response(),
    };
    if matches!(error, Error::TooManyConnections(_)) && request.version() <= Version::HTTP_11 {
        // A connection over the limit must close soon to free its permit, so the rest of its request is not read.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Turns a problem into a gRPC status if the request is a gRPC call: its client would show any status of HTTP as UNKNOWN.
fn in_protocol_of(call: Option<CallType>, problem: Response) -> Response {
    let (Some(call), Some(error)) = (call, problem.extensions().get::<Error>().copied()) else { return problem };
    let mut response: Response = call.respond(error.into());
    for name in [header::CONNECTION, header::WWW_AUTHENTICATE] {
        if let Some(value) = problem.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// Adds the header that a 401 must have. `grpc` does the same for its calls.
fn add_challenge(auth: &Auth, response: &mut Response) {
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(error) = response.extensions().get::<Error>().copied()
    {
        response.headers_mut().extend(auth.challenge(error));
    }
}

/// Counts a request by its gRPC status if the head of the response has one, else by its HTTP status. So a native gRPC call that
/// fails in its trailers counts as 200.
fn count(response: &Response, answered: impl FnOnce(&str)) {
    let status = response.headers().get(GRPC_STATUS);
    let code = status.map(|code| format!("{:?}", tonic::Code::from_bytes(code.as_bytes())));
    answered(code.as_deref().unwrap_or(response.status().as_str()));
}

/// Gives a request a span, and answers with a problem when the handler panics. The span has the route's pattern and not the
/// path, so the span holds no id, query or token.
async fn trace(method: &Method, route: &str, handler: Pin<&mut (impl Future<Output = Response> + Send)>) -> Response {
    let span = tracing::debug_span!("request", %method, route);
    let response = async {
        let response = catch_panic(handler).await;
        let response = response.unwrap_or_else(|| Problem::from(Error::Internal).into_response());
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    };
    response.instrument(span).await
}

/// The route of a request that has none, or that was refused for its head before routing.
const NO_ROUTE: &str = "none";

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
        ice::IceServers,
        limits::{AddressScope, AddressSource, IdentityFailures},
        telemetry::{Levels, Metrics},
    };

    #[tokio::test]
    async fn a_panic_in_a_handler_becomes_a_problem_response_with_cors_headers_and_is_counted() {
        let (metrics, second) = (Metrics::new(), Duration::from_secs(1));
        let limits = hub::Limits::only_times(second, second);
        let auth = auth::Auth {
            mode: auth::Mode::None,
            require_all: false,
            require_for_ice: false,
            claims: auth::ClaimNames::default(),
            tokens: None,
            trusted_proxies: Vec::new(),
            metrics: metrics.clone(),
        };
        let settings = rest::Settings { body_limit: 0, body_timeout: second, heartbeat: second };
        let hub = hub::Hub::new(limits, Budget::new(0), hub::Local, metrics.clone());
        let (auth, drain) = (Arc::new(auth), Drain::new());
        let addresses = ClientAddresses::new(Vec::new(), AddressSource::XForwardedFor, AddressScope::Public);
        let failures = IdentityFailures::new(0, addresses.clone());
        let failed = FailedIdentities { failures, metrics: metrics.clone(), drain: drain.clone() };
        let ice = Arc::new(IceServers { stun: Vec::new(), turn: None });
        let service = grpc::SignalMethods { hub: hub.clone(), ice: ice.clone(), heartbeat: second, drain };
        let api = Api { hub, ice, auth: auth.clone(), metrics: metrics.clone(), settings };
        let routes = Router::new().route("/panic", get(async || -> &'static str { panic!("as if by a bug") }));
        let (service, origins) = (grpc::signal_service(service, auth, 0), AllowedOrigins::new(&[], false));
        let dispatch = Dispatch::new(routes, api, service, &[], origins, addresses, failed);
        let peer = Peer { tcp: [127, 0, 0, 1].into(), client: [127, 0, 0, 1].into() };
        let request = Request::get("/panic").header("host", "x").body(Body::empty()).expect("a request");
        let response = dispatch.handle(peer, request).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let levels = Levels { streams: 0, mailboxes: 0, mailbox_bytes: 0, held_bytes: 0, watches: 0, unsent_bytes: 0 };
        assert!(
            metrics.render(levels).expect("text").contains(r#"signal_requests_total{route="/panic",status="500"} 1"#)
        );
    }
}
