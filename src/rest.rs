//! The HTTP API: its routes, what the handlers read from a request, and the response for each result of the hub.

mod body;
mod devices;
mod event_data;
mod events;
mod extract;
mod ice_route;
mod leftover_body;
mod many_users;
mod problem;
mod send;
mod send_key;
mod sse;
#[cfg(test)]
mod sse_properties;
mod subscribe;
mod ticket_route;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    response::{AppendHeaders, IntoResponse as _},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use serde::Serialize;

use self::extract::{MessagePost, PathSegments, parse_address};
pub use self::{events::accepts_events, leftover_body::discard_leftover, problem::Problem};
use crate::{auth::Auth, error::Error, hub::Hub, ice::IceServers, model::Address, serve::Peer, telemetry::Metrics};

/// The options of the HTTP API.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The most bytes of a request body.
    pub body_limit: usize,
    /// How long a request body may take to arrive, also the part that no handler reads.
    pub body_timeout: Duration,
    /// How long a stream may be silent before it gets a ping, except in the legacy format.
    pub heartbeat: Duration,
}

/// The state that the handlers share.
#[derive(Clone)]
pub struct Api {
    /// The hub of this process.
    pub hub: Hub,
    /// The STUN and TURN servers.
    pub ice: Arc<IceServers>,
    /// Identifies callers.
    pub auth: Arc<Auth>,
    /// Counts requests.
    pub metrics: Metrics,
    /// The options.
    pub settings: Settings,
}

/// The routes of the HTTP API. [`admin`](crate::admin) has the routes for operators.
///
/// axum's `get` also answers HEAD, and its 405 names HEAD in `Allow`. `/subscribe` refuses HEAD itself, because it would connect
/// a device whose stream nobody reads.
pub fn routes(api: Api) -> Router {
    let subscribe = || get(subscribe::subscribe).head(only_get).fallback(only_get);
    Router::new()
        .route("/subscribe", subscribe())
        .route("/subscribe/{user}/device/{device}", subscribe())
        .route("/user/{user}/devices", get(devices::list_or_watch).post(send::broadcast))
        .route("/ticket", post(ticket_route::issue))
        .route("/ice", get(ice_route::servers))
        .route("/devices", get(many_users::list_or_watch))
        .route(DEVICE_ROUTE, post(send::to_device))
        .with_state(api)
}

/// Whether a path is for a subscribe request.
#[must_use]
pub fn is_subscribe(path: &str) -> bool {
    path.strip_prefix("/subscribe").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The response to a request that is refused before a handler runs, but not because of a drain. An `EventSource` gets a stream that
/// tells it when to reconnect, any other client a problem.
#[must_use]
pub fn error_response(error: Error, headers: &HeaderMap) -> Response<Body> {
    events::stream_refusal(error, headers, Duration::ZERO).into_response()
}

/// The route to which a message for a device is posted.
pub const DEVICE_ROUTE: &str = "/user/{user}/device/{device}";

/// The receiver, if the request is a POST of a message to a device; `Err` if the path holds an invalid id. `app/dispatch.rs` calls
/// [`send_directly`] for it without the router, because such a request comes once for every message.
#[must_use]
pub fn send_receiver<B>(request: &Request<B>) -> Option<Result<Address, Error>> {
    let mut segments = PathSegments(request.uri().path());
    let mut next = || segments.next().filter(|segment| !segment.is_empty());
    match (next(), next(), next(), next(), segments.next()) {
        (Some("user"), Some(user), Some("device"), Some(device), None) if request.method() == Method::POST => {
            Some(parse_address(user, device))
        }
        _ => None,
    }
}

/// Handles a request for which [`send_receiver`] returned `Some`. The response is the one that the router would give.
pub async fn send_directly<B>(
    api: &Api,
    peer: Peer,
    to: Result<Address, Error>,
    request: &mut Request<B>,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    match MessagePost::read(peer, to, request, api).await {
        Ok(post) => send::deliver(api, post).await.into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn only_get() -> (AppendHeaders<[(HeaderName, &'static str); 1]>, Problem) {
    (AppendHeaders([(header::ALLOW, "GET")]), Error::MethodNotAllowed.into())
}

/// A 200 with a JSON body.
fn json_response(value: &impl Serialize) -> Response<Body> {
    let media_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, media_type)], sse::to_json(value)).into_response()
}
