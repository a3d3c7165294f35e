//! The HTTP API: routes, what they extract, and how the hub's answers look as HTTP.

mod devices;
mod events;
mod extract;
mod form;
mod problem;
mod send;
mod sse;
#[cfg(test)]
mod sse_properties;
mod subscribe;
mod unread;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    response::{AppendHeaders, IntoResponse as _},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, Method, Request, Response, header};

use self::extract::{Post, Segments, address};
pub use self::{events::accepts_events, problem::Problem, unread::answer};
use crate::{auth::Auth, error::Error, hub::Hub, model::Address, serve::Peer, telemetry::Metrics};

/// The limits of the HTTP API that are options.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of a body, at most.
    pub body_limit: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// The silence after which a stream gets a ping.
    pub heartbeat: Duration,
}

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    /// The one hub.
    pub hub: Hub,
    /// Who may be believed.
    pub auth: Arc<Auth>,
    /// What operators see.
    pub metrics: Metrics,
    /// The limits.
    pub settings: Settings,
}

/// All routes of section 2 of the contract but those of [`admin`](crate::admin).
///
/// `get` would answer HEAD too, and a HEAD of a stream would register a device that nobody listens on.
pub fn routes(api: Api) -> Router {
    let subscribe = || get(subscribe::subscribe).head(no_head);
    Router::new()
        .route("/subscribe", subscribe())
        .route("/subscribe/{user}/device/{device}", subscribe())
        .route("/user/{user}/devices", get(devices::list).post(send::broadcast))
        .route(DEVICE, post(send::send))
        .with_state(api)
}

/// Whether a path is that of a device's stream.
#[must_use]
pub fn is_subscribe(path: &str) -> bool {
    path.strip_prefix("/subscribe").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The answer to a request that comes to no handler. An event stream is told when to come back, where that is what it needs.
#[must_use]
pub fn refuse(error: Error, headers: &HeaderMap) -> Response<Body> {
    events::refuse(error, headers).into_response()
}

/// The path of a device, to which messages are posted.
pub const DEVICE: &str = "/user/{user}/device/{device}";

/// The device that a request is for, if it is one for [`send()`]: that comes once for every message, so it is worth finding
/// without the router.
#[must_use]
pub fn receiver<B>(request: &Request<B>) -> Option<Result<Address, Error>> {
    let mut segments = Segments(request.uri().path());
    let mut next = || segments.next().filter(|segment| !segment.is_empty());
    match (next(), next(), next(), next(), segments.next()) {
        (Some("user"), Some(user), Some("device"), Some(device), None) if request.method() == Method::POST => {
            Some(address(user, device))
        }
        _ => None,
    }
}

/// What the router would do with such a request.
pub async fn send<B>(api: &Api, peer: Peer, to: Result<Address, Error>, request: &mut Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    match Post::read(peer, to, request, api).await {
        Ok(post) => send::deliver(api, post).await.into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn no_head() -> (AppendHeaders<[(HeaderName, &'static str); 1]>, Problem) {
    (AppendHeaders([(header::ALLOW, "GET")]), Error::MethodNotAllowed.into())
}
