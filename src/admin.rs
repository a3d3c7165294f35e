//! Health, readiness and metrics: what an operator's tools ask, without an identity.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, header};

use crate::{
    budget::Budget,
    drain::Drain,
    error::Error,
    hub::Hub,
    rest::Problem,
    telemetry::{Levels, Metrics},
};

/// What the answers are made of.
#[derive(Clone)]
pub struct Admin {
    /// Whose levels the gauges show.
    pub hub: Hub,
    /// All metrics.
    pub metrics: Metrics,
    /// The bytes that wait for their peers.
    pub budget: Budget,
    /// Whether this node still takes work.
    pub drain: Drain,
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// Whether a path is answered also when there is no place for a connection.
#[must_use]
pub fn is_health(path: &str) -> bool {
    ["/healthz", "/readyz"].contains(&path)
}

async fn healthy() -> &'static str {
    "ok\n"
}

async fn ready(State(admin): State<Admin>) -> Result<&'static str, Problem> {
    if admin.drain.has_started() { Err(Error::DRAINING.into()) } else { Ok("ready\n") }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let census = admin.hub.census();
    let levels = Levels {
        streams: census.streams,
        mailboxes: census.mailboxes,
        mailbox_bytes: census.memory,
        held_bytes: census.held,
        watches: census.watches,
        unsent_bytes: admin.budget.unsent(),
    };
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render(levels)).into_response()
}

/// Asks the daemon on this machine whether it is alive; without an HTTP client, because a status line is all there is to read.
///
/// Behind TLS, whose name is not this machine's, an accepted connection has to do.
#[must_use]
pub fn is_healthy(port: u16, tls: bool) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("localhost", port))?;
        if tls {
            return Ok(true);
        }
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(1024).read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    };
    ask().unwrap_or(false)
}
