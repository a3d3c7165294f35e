//! HTTP/2 connections without a stream are closed after a while, and those with a stream are not.

use std::time::Duration;

use axum::body::Body;
use backend_signal::{
    budget::Budget,
    drain::Drain,
    limits::{AddressScope, AddressSource, ClientAddresses},
    serve::{Handler, Peer, RequestBody, ResponseFuture, Server, Settings},
    telemetry::Metrics,
};
use http::{Request, Response};
use tokio::time::timeout;

use crate::harness::frames::{self, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS};

/// Answers `/never` never, and every other path at once.
#[derive(Clone)]
struct AtOnceOrNever;

impl Handler for AtOnceOrNever {
    fn handle(&self, _: Peer, request: Request<impl RequestBody>) -> ResponseFuture {
        if request.uri().path() == "/never" {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(Response::new(Body::empty())))
    }

    fn handle_over_limit(&self, peer: Peer, request: Request<impl RequestBody>) -> ResponseFuture {
        self.handle(peer, request)
    }
}

#[tokio::test]
async fn a_connection_of_http_2_without_a_stream_is_closed_and_one_with_a_stream_is_not() {
    let settings = Settings {
        tls: None,
        address_connections: 0,
        addresses: ClientAddresses::new(Vec::new(), AddressSource::XForwardedFor, AddressScope::Public),
        max_connections: 10,
        http1_takeover: true,
        max_streams: 10,
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(5),
        http2_idle_timeout: Duration::from_millis(400),
        budget: Budget::new(0),
    };
    let server = Server::bind(&[([127, 0, 0, 1], 0).into()], settings, Metrics::new()).expect("a free port");
    let (address, drain) = (server.local_addrs().expect("bound")[0], Drain::new());
    let running = tokio::spawn(server.run(AtOnceOrNever, drain.clone()));
    // This peer does not answer PINGs, for which the server would close its connection after 25 s.
    let second = Duration::from_secs(1);
    let mut never_used = Frames::open(address, &[]).await;
    timeout(10 * second, never_used.next_of(GOAWAY))
        .await
        .expect("long before 25 s")
        .expect("GOAWAY, because it is idle");
    let mut used = Frames::open(address, &[]).await;
    let get = |path| frames::get(path, &[]);
    used.send(HEADERS, END_STREAM | END_HEADERS, 1, &get("/never")).await;
    // Five times the idle limit.
    let goodbye = timeout(2 * second, used.next_of(GOAWAY)).await;
    assert!(goodbye.is_err(), "a stream is open: {goodbye:?}");
    used.send(HEADERS, END_STREAM | END_HEADERS, 3, &get("/")).await;
    used.next_of(HEADERS).await.expect("an answer");
    used.send(frames::RST_STREAM, 0, 1, &8_u32.to_be_bytes()).await;
    timeout(10 * second, used.next_of(GOAWAY)).await.expect("long before 25 s").expect("GOAWAY, because it is idle");
    running.abort();
}
