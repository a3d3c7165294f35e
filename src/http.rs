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

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    response::AppendHeaders,
    routing::{get, post},
};
use http::{HeaderName, header};

pub use self::problem::Problem;
use crate::{auth::Auth, error::Error, hub::Hub, telemetry::Metrics};

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
        .route("/user/{user}/device/{device}", post(send::send))
        .with_state(api)
}

async fn no_head() -> (AppendHeaders<[(HeaderName, &'static str); 1]>, Problem) {
    (AppendHeaders([(header::ALLOW, "GET")]), Error::MethodNotAllowed.into())
}
