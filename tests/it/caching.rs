//! Answers behind a shared cache: none may be stored, and those that depend on `Accept` say so.

use axum::body::Body;
use http::Request;

use crate::harness::{Connection, FORM, Response, Server, claim, http2::Http2, until};

const POST: &str = "POST /user/bob/device/phone";
const FORM_TYPE: (&str, &str) = ("content-type", FORM);
const EVENTS: (&str, &str) = ("accept", "text/event-stream");

fn varies(answer: &Response) -> bool {
    answer.headers.iter().any(|(name, value)| name == "vary" && value == "accept")
}

#[tokio::test]
async fn no_answer_may_be_stored_and_one_that_depends_on_accept_says_so() {
    let server = Server::with(&["--body-timeout", "0.2"]).await;
    let seen = server.sse("bob/phone").await.parser.last_event_id;
    let _phone = server.sse("bob/phone").await;
    let (bob, eve) = (claim("bob/phone"), claim("eve/phone"));
    let identity = ("x-user-claim", bob.as_str());
    let long = "x".repeat(200_000);
    for (head, headers, body, status) in [
        ("GET /user/bob/devices", &[][..], "", 200),
        ("GET /user/%00/devices", &[], "", 400),
        ("GET /user/bob/devices", &[("x-user-claim", "nonsense")], "", 401),
        ("GET /subscribe", &[EVENTS], "", 401),
        ("GET /subscribe", &[identity, ("last-event-id", &seen), EVENTS], "", 204),
        ("GET /subscribe?format=x", &[identity], "", 400),
        ("GET /subscribe/bob/device/phone", &[("x-user-claim", &eve)], "", 403),
        ("HEAD /subscribe", &[identity], "", 405),
        ("HEAD /user/bob/devices", &[], "", 200),
        ("GET /nowhere", &[], "", 404),
        ("GET /ice", &[], "", 404),
        (POST, &[FORM_TYPE], "data=x", 200),
        ("POST /user/eve/device/phone", &[FORM_TYPE, ("ttl", "5")], "data=x", 202),
        ("POST /user/eve/device/watch", &[FORM_TYPE], "data=x", 404),
        (POST, &[FORM_TYPE, ("origin", "https://a.example")], "data=x", 200),
        (POST, &[FORM_TYPE], "data=", 400),
        (POST, &[FORM_TYPE, ("x-user-claim", "nonsense")], "data=x", 401),
        (POST, &[("content-type", "text/plain")], "x", 415),
        (POST, &[FORM_TYPE, ("host", "second")], "data=x", 400),
        (POST, &[FORM_TYPE], &long, 413),
        ("POST /user/bob/devices", &[FORM_TYPE], "data=x", 200),
        ("POST /user/bob/devices", &[FORM_TYPE], &long, 413),
        ("POST /backend_signal.v1.Signal/Send", &[("content-type", "text/plain")], "x", 415),
        ("DELETE /user/bob/devices", &[], "", 405),
        ("OPTIONS /user/bob/devices", &[("origin", "https://a.example")], "", 204),
        ("GET /healthz", &[], "", 200),
        ("GET /readyz", &[], "", 200),
        ("GET /metrics", &[], "", 200),
    ] {
        let answer = server.request(head, headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.header("cache-control")), (status, "no-store"), "{head} {headers:?}");
        let is_read = head.starts_with("GET") || head.starts_with("HEAD");
        assert_eq!(varies(&answer), is_read && !head.ends_with('z'), "{head} {headers:?}: {answer:?}");
    }
    let mut slow = Connection::open(server.address).await;
    slow.ask(POST, &[FORM_TYPE, ("content-length", "9")]).await;
    let slow = slow.response(false).await;
    assert_eq!((slow.status, slow.header("cache-control")), (408, "no-store"));
    server.drain.start();
    until(|| server.request(POST, &[FORM_TYPE], b"data=x"), |answer| answer.status == 503).await;
    let refused = server.request(POST, &[FORM_TYPE], b"data=x").await;
    assert_eq!((refused.status, refused.header("cache-control")), (503, "no-store"));
}

#[tokio::test]
async fn streams_depend_on_accept_and_keep_their_own_cache_control() {
    let server = Server::start().await;
    let bob = claim("bob/phone");
    for (head, headers) in
        [("GET /subscribe", &[("x-user-claim", bob.as_str())][..]), ("GET /user/bob/devices", &[EVENTS])]
    {
        let mut connection = Connection::open(server.address).await;
        connection.ask(head, headers).await;
        let answer = connection.head().await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-cache, no-transform"), "{head}");
        assert!(varies(&answer), "{head}: {answer:?}");
    }
    let server = Server::with(&["--cors-origins", "https://a.example"]).await;
    let answer = server.request("GET /user/bob/devices", &[], b"").await;
    assert!(varies(&answer) && answer.header("vary").contains("origin"), "{answer:?}");
}

#[tokio::test]
async fn over_http_2_no_answer_may_be_stored_either() {
    let server = Server::start().await;
    let mut connection = Http2::open(server.address).await;
    for (method, path, status) in [("GET", "/user/bob/devices", 200), ("POST", "/user/bob/device/phone", 400)] {
        let request = Request::builder().method(method).uri(connection.uri(path)).body(Body::empty());
        let answer = connection.send(request.expect("a request")).await;
        let found = (answer.status().as_u16(), answer.headers()["cache-control"].to_str().expect("ASCII"));
        assert_eq!(found, (status, "no-store"), "{path}");
    }
}
