//! Heads of HTTP/1.1 that a proxy and the daemon could read differently (RFC 9112, sections 3.2 and 6.3).

use axum::body::Body;
use http::Request;

use crate::harness::{
    Connection, FORM, Server,
    http2::{Http2, body_without_end},
};

async fn answer(server: &Server, head: &str) -> (u16, String) {
    let mut connection = Connection::open(server.address).await;
    connection.write(head.as_bytes()).await;
    let answer = connection.response(false).await;
    assert!(answer.status == 200 || answer.header("connection") == "close", "{head}: {answer:?}");
    let code = if answer.body.starts_with(b"{") { answer.problem() } else { String::new() };
    if answer.status != 200 {
        connection.closed().await;
    }
    (answer.status, code)
}

/// One path for each way to a handler: without the router, through the router, gRPC, and no route.
const PATHS: [&str; 4] = ["/user/bob/device/phone", "/user/bob/devices", "/backend_signal.v1.Signal/Send", "/nowhere"];

#[tokio::test]
async fn an_unknown_transfer_coding_is_501_and_sends_no_message() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for path in PATHS {
        for coding in [
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: identity, chunked",
            "transfer-encoding: chunked, chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
            "Transfer-Encoding: x;a=\"b,c\" , Chunked",
        ] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n{coding}\r\n\r\n"
            );
            let whole = head + "6\r\ndata=x\r\n0\r\n\r\n";
            assert_eq!(answer(&server, &whole).await, (501, "unsupported_coding".into()), "{path} {coding}");
        }
    }
    assert_eq!(server.post("bob/phone", "the first").await.status, 200);
    assert_eq!(phone.data().await, "the first");
}

#[tokio::test]
async fn a_transfer_coding_without_a_defined_end_is_400() {
    let server = Server::start().await;
    for (version, coding) in [
        ("1.1", "transfer-encoding: gzip"),
        ("1.1", "transfer-encoding: chunked, gzip"),
        ("1.1", "transfer-encoding: chunked\r\ntransfer-encoding: identity"),
        ("1.1", "transfer-encoding: xchunked"),
        ("1.0", "transfer-encoding: chunked"),
    ] {
        let head = format!("POST /user/bob/devices HTTP/{version}\r\nhost: x\r\n{coding}\r\n\r\n");
        assert_eq!(answer(&server, &head).await.0, 400, "{version} {coding}");
    }
}

#[tokio::test]
async fn a_single_chunked_is_accepted_in_any_spelling() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    for coding in ["transfer-encoding: chunked", "TRANSFER-ENCODING:  Chunked ", "transfer-encoding: , chunked"] {
        let head = format!(
            "POST /user/bob/device/phone HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n{coding}\r\n\r\n"
        );
        let whole = head + "6\r\ndata=x\r\n0\r\n\r\n";
        assert_eq!(answer(&server, &whole).await.0, 200, "{coding}");
    }
}

#[tokio::test]
async fn a_request_needs_exactly_one_valid_host() {
    let server = Server::start().await;
    for (version, host, status) in [
        ("1.1", "", 400),
        ("1.1", "host: a\r\nhost: a\r\n", 400),
        ("1.1", "host: a\r\nhost: b\r\n", 400),
        ("1.0", "host: a\r\nhost: b\r\n", 400),
        ("1.1", "host: a b\r\n", 400),
        ("1.1", "host: a/b\r\n", 400),
        ("1.1", "host: user@a\r\n", 400),
        ("1.1", "host: a:x\r\n", 400),
        ("1.1", "host: a:1:2\r\n", 400),
        // A host may hold a comma, and may be empty (RFC 3986).
        ("1.1", "host: a,b\r\n", 200),
        ("1.1", "host: [::1\r\n", 400),
        ("1.1", "host: [x]\r\n", 400),
        ("1.1", "host: a\u{e9}\r\n", 400),
        ("1.0", "", 200),
        ("1.1", "host:\r\n", 200),
        ("1.1", "host: a\r\n", 200),
        ("1.1", "host: signal_1.example:8443\r\n", 200),
        ("1.1", "host: a:\r\n", 200),
        ("1.1", "host: [::1]:1837\r\n", 200),
        ("1.1", "host: b%C3%BCro\r\n", 200),
    ] {
        for path in ["GET /healthz", "GET /user/bob/devices"] {
            let head = format!("{path} HTTP/{version}\r\n{host}connection: close\r\n\r\n");
            let expected = if status == 200 { "" } else { "invalid_host" };
            let mut found = answer(&server, &head).await;
            if found.0 == 200 {
                found.1.clear();
            }
            assert_eq!(found, (status, expected.into()), "{path} HTTP/{version} {host:?}");
        }
    }
}

#[tokio::test]
async fn an_expectation_is_met_over_http_1_and_417_over_http_2() {
    let server = Server::with(&["--body-timeout", "0.3"]).await;
    // Asserts that `100 Continue` comes.
    drop(server.waits_for_body().await);
    let mut connection = Http2::open(server.address).await;
    for path in ["/user/bob/device/phone", "/user/bob/devices"] {
        let (never, _kept) = body_without_end();
        for (body, status) in [(never, 417), (Body::empty(), 400)] {
            let request =
                Request::post(connection.uri(path)).header("content-type", FORM).header("expect", "100-Continue");
            let answer = connection.send(request.body(body).expect("a request")).await;
            assert_eq!(answer.status(), status, "{path}");
        }
    }
    let (never, _kept) = body_without_end();
    let request =
        Request::post(connection.uri("/backend_signal.v1.Signal/Send")).header("content-type", "application/grpc");
    let request = request.header("expect", "100-continue").body(never).expect("a request");
    assert_eq!(connection.send(request).await.headers()["grpc-status"], "12", "UNIMPLEMENTED");
}
