//! The HTTP API: its routes, what their handlers extract from a request, and the HTTP answer for each result of the hub.

mod body;
mod devices;
mod events;
mod extract;
mod form;
mod leftover_body;
mod problem;
mod send;
mod sse;
#[cfg(test)]
mod sse_properties;
mod subscribe;

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
pub use self::{events::accepts_events, leftover_body::discard_leftover_body, problem::Problem};
use crate::{auth::Auth, error::Error, hub::Hub, model::Address, serve::Peer, telemetry::Metrics};

/// The options of the HTTP API.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The most bytes of a request body.
    pub body_limit: usize,
    /// How long a request body may take to arrive.
    pub body_timeout: Duration,
    /// How long a stream is silent before it gets a ping.
    pub heartbeat: Duration,
}

/// The state that the handlers share.
#[derive(Clone)]
pub struct Api {
    /// The hub of this process.
    pub hub: Hub,
    /// Identifies callers.
    pub auth: Arc<Auth>,
    /// Counts requests.
    pub metrics: Metrics,
    /// The options.
    pub settings: Settings,
}

/// The routes of the HTTP API. [`admin`](crate::admin) has the routes for operators.
///
/// axum's `get` also answers HEAD. A HEAD of `/subscribe` must not: it would register a device whose stream nobody reads.
pub fn routes(api: Api) -> Router {
    let subscribe = || get(subscribe::subscribe).head(head_not_allowed);
    Router::new()
        .route("/subscribe", subscribe())
        .route("/subscribe/{user}/device/{device}", subscribe())
        .route("/user/{user}/devices", get(devices::list_or_watch).post(send::broadcast))
        .route(DEVICE_ROUTE, post(send::to_device))
        .with_state(api)
}

/// Whether a path is for a subscribe request.
#[must_use]
pub fn is_subscribe(path: &str) -> bool {
    path.strip_prefix("/subscribe").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The answer to a request that no handler gets: a problem, or for an `EventSource` a stream that tells it to reconnect later.
#[must_use]
pub fn error_response(error: Error, headers: &HeaderMap) -> Response<Body> {
    events::stream_refusal(error, headers).into_response()
}

/// The route to which a message for a device is posted.
pub const DEVICE_ROUTE: &str = "/user/{user}/device/{device}";

/// The receiver that the path names, if the router would route the request to [`send_directly`]. Such requests skip the router, because
/// they come once for every message.
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

/// Answers a request for which [`send_receiver`] has found an address, as the router would.
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

async fn head_not_allowed() -> (AppendHeaders<[(HeaderName, &'static str); 1]>, Problem) {
    (AppendHeaders([(header::ALLOW, "GET")]), Error::MethodNotAllowed.into())
}

/// A JSON answer.
fn json_response(value: &impl Serialize) -> Response<Body> {
    let media_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, media_type)], sse::to_json(value)).into_response()
}
