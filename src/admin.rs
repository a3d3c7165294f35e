//! The routes for operators: health, readiness and metrics. They need no identity.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, header};

use crate::{
    auth::Keys,
    budget::Budget,
    cluster::Cluster,
    drain::Drain,
    error::Error,
    hub::Hub,
    media_type::MediaType,
    rest::Problem,
    telemetry::{Levels, Metrics, TextFormat},
};

/// What the handlers share.
#[derive(Clone)]
pub struct Admin {
    /// Gives the counts for the gauges.
    pub hub: Hub,
    /// All metrics.
    pub metrics: Metrics,
    /// The bytes of responses that clients have not read yet.
    pub budget: Budget,
    /// Tells whether this daemon still takes new work.
    pub drain: Drain,
    /// The keys of tokens, if the daemon verifies tokens.
    pub keys: Option<Arc<Keys>>,
    /// The way to other nodes, if there are others.
    pub cluster: Option<Cluster>,
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// Whether a path is a health route. A connection over the limit still gets an answer to these.
#[must_use]
pub fn is_health_path(path: &str) -> bool {
    ["/healthz", "/readyz"].contains(&path)
}

async fn healthy() -> &'static str {
    "ok\n"
}

async fn ready(State(admin): State<Admin>) -> Result<&'static str, Problem> {
    if admin.drain.has_started() {
        return Err(Error::DRAINING.into());
    }
    // 200 all the same: other nodes read the same keys and use the same Redis, so a load balancer could send the clients nowhere better.
    // If all nodes said 503, an outage of Redis would be one of everything.
    let lacks_keys = admin.keys.is_some_and(|keys| keys.are_unreadable());
    let lacks_nodes = admin.cluster.is_some_and(|cluster| cluster.status().down.is_some());
    Ok(match (lacks_keys, lacks_nodes) {
        (false, false) => "ready\n",
        (true, false) => "degraded: the keys of tokens could not be read\n",
        (false, true) => "degraded: redis cannot be reached or used; the log says why\n",
        (true, true) => {
            "degraded: the keys of tokens could not be read; redis cannot be reached or used; the log says why\n"
        }
    })
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Result<Response, Problem> {
    let census = admin.hub.census();
    let levels = Levels {
        streams: census.streams,
        mailboxes: census.mailboxes,
        mailbox_bytes: census.message_bytes,
        held_bytes: census.held_bytes,
        watches: census.watches,
        unsent_bytes: admin.budget.unsent(),
    };
    let format = text_format(&headers);
    let text = format.convert(admin.metrics.render(levels).ok_or(Error::Internal)?);
    let kind = HeaderValue::from_static(format.media_type());
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The format that the scraper asks for: the classic text only if it names that and not OpenMetrics.
fn text_format(headers: &HeaderMap) -> TextFormat {
    let names = |name: &str| MediaType::accepted(headers).any(|accepted| accepted.is(name));
    if names("text/plain") && !names("application/openmetrics-text") {
        TextFormat::Classic
    } else {
        TextFormat::OpenMetrics
    }
}
