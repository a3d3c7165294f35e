//! RFC 9112: request lines, framing of messages, and connections.

use tokio::io::AsyncWriteExt as _;

use super::{Closed, Open, Row, check};
use crate::harness::{Connection, Server};

const POST: &str =
    "POST /user/bob/device/absent HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n";
const NOT_FOUND: &[&str] = &["404 | content-type: application/problem+json"];
const REFUSED: &[&str] = &["400 | connection: close"];
const PROBLEM: &[&str] = &["400 | connection: close | content-type: application/problem+json"];

#[tokio::test]
async fn a_request_line_and_its_fields_are_read_as_rfc_9112_says() {
    let server = Server::start().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(40_000));
    let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    let rows: &[Row<'_>] = &[
        // Empty lines before a request are ignored, and a bare LF ends a line.
        ("RFC 9112, 2.2", "\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", &["200"], Open),
        ("RFC 9112, 2.2", "GET /healthz HTTP/1.1\nhost: x\n\n", &["200"], Open),
        ("RFC 9112, 2.2", "GET /healthz HTTP/1.1\r\nhost: x\r\na: b\rc\r\n\r\n", REFUSED, Closed),
        ("RFC 9112, 2.2", "GET /healthz HTTP/1.1\r\n host: x\r\n\r\n", REFUSED, Closed),
        ("RFC 9112, 2.3", "GET /healthz http/1.1\r\nhost: x\r\n\r\n", REFUSED, Closed),
        ("RFC 9112, 2.3", "GET /healthz HTTP/3.0\r\nhost: x\r\n\r\n", REFUSED, Closed),
        ("RFC 9112, 2.3", "GET /healthz\r\n\r\n", REFUSED, Closed),
        // Not met: a higher minor version is not read as 1.1.
        ("RFC 9110, 2.5", "GET /healthz HTTP/1.2\r\nhost: x\r\n\r\n", REFUSED, Closed),
        ("RFC 9112, 3", "GET /health z HTTP/1.1\r\nhost: x\r\n\r\n", REFUSED, Closed),
        // Not met: a target that is too long is 431 and not 414.
        ("RFC 9112, 3", &long, &["431 | connection: close"], Closed),
        ("RFC 6585, 5", &many, &["431 | connection: close"], Closed),
        ("RFC 9112, 3.1", "G(T /healthz HTTP/1.1\r\nhost: x\r\n\r\n", REFUSED, Closed),
        ("RFC 9112, 3.2", "GET /healthz HTTP/1.1\r\n\r\n", PROBLEM, Closed),
        ("RFC 9112, 3.2", "GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", PROBLEM, Closed),
        ("RFC 9112, 3.2", "GET /healthz HTTP/1.1\r\nhost: x/y\r\n\r\n", PROBLEM, Closed),
        // Not met: a target in the wrong form for its method is 404 and not 400, and a fragment is ignored.
        ("RFC 9112, 3.2", "GET healthz HTTP/1.1\r\nhost: x\r\n\r\n", NOT_FOUND, Open),
        ("RFC 9112, 3.2", "GET * HTTP/1.1\r\nhost: x\r\n\r\n", NOT_FOUND, Open),
        ("RFC 9112, 3.2", "GET /healthz#a HTTP/1.1\r\nhost: x\r\n\r\n", &["200"], Open),
        // The absolute form wins over `Host`, but `Host` is still required.
        ("RFC 9112, 3.2.2", "GET http://other/healthz HTTP/1.1\r\nhost: x\r\n\r\n", &["200"], Open),
        ("RFC 9112, 3.2.2", "GET http://other/healthz HTTP/1.1\r\n\r\n", PROBLEM, Closed),
        ("RFC 9110, 4.2.4", "GET http://user@x/healthz HTTP/1.1\r\nhost: x\r\n\r\n", PROBLEM, Closed),
        ("RFC 9112, 3.2.3", "CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n", &["404"], Open),
        ("RFC 9112, 3.2.4", "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", &["204"], Open),
        ("RFC 9112, 5.1", "GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n", REFUSED, Closed),
        ("RFC 9112, 5.1", "GET /healthz HTTP/1.1\r\nhost: \t x \t\r\n\r\n", &["200"], Open),
        ("RFC 9112, 5.2", "GET /healthz HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n", REFUSED, Closed),
        ("RFC 9110, 5.5", "GET /healthz HTTP/1.1\r\nhost: x\r\na: b\0c\r\n\r\n", REFUSED, Closed),
        ("RFC 9110, 5.6.2", "GET /healthz HTTP/1.1\r\nhost: x\r\na(b: c\r\n\r\n", REFUSED, Closed),
    ];
    check(&server, rows).await;
}

#[tokio::test]
async fn a_body_is_framed_as_rfc_9112_says() {
    let server = Server::start().await;
    let post = |rest: &str| format!("{POST}{rest}");
    let old = |rest: &str| post(rest).replace("HTTP/1.1", "HTTP/1.0");
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    for (section, request, answers, after) in [
        // Both framings: the chunks count, and the connection closes.
        (
            "RFC 9112, 6.1",
            post(&format!("content-length: 3\r\n{chunked}6\r\ndata=x\r\n0\r\n\r\n")),
            &["404 | connection: close"][..],
            Closed,
        ),
        (
            "RFC 9112, 6.1",
            post("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            &["501 | connection: close"],
            Closed,
        ),
        ("RFC 9112, 6.1", old(&format!("{chunked}6\r\ndata=x\r\n0\r\n\r\n")), REFUSED, Closed),
        ("RFC 9112, 6.3", post("transfer-encoding: gzip\r\n\r\ndata=x"), REFUSED, Closed),
        ("RFC 9112, 6.3", post("content-length: 6\r\ncontent-length: 7\r\n\r\ndata=xy"), REFUSED, Closed),
        ("RFC 9112, 6.3", post("content-length: 6\r\ncontent-length: 6\r\n\r\ndata=x"), NOT_FOUND, Open),
        ("RFC 9112, 6.3", post("content-length: 6, 7\r\n\r\ndata=xy"), REFUSED, Closed),
        ("RFC 9112, 6.3", post("content-length: +6\r\n\r\ndata=x"), REFUSED, Closed),
        ("RFC 9112, 6.3", post("content-length: -6\r\n\r\ndata=x"), REFUSED, Closed),
        ("RFC 9112, 6.3", post("content-length: 0x6\r\n\r\ndata=x"), REFUSED, Closed),
        ("RFC 9112, 6.3", post("content-length: 99999999999999999999999\r\n\r\n"), REFUSED, Closed),
        // No framing: there is no body, and the next bytes are the next request.
        ("RFC 9112, 6.3", post("\r\n"), &["400 | -connection"], Open),
        ("RFC 9112, 6.3", "GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc".into(), &["200"], Open),
        ("RFC 9112, 7.1", post(&format!("{chunked}zz\r\ndata=x\r\n0\r\n\r\n")), PROBLEM, Closed),
        ("RFC 9112, 7.1", post(&format!("{chunked}6\r\ndata=xyz0\r\n\r\n")), PROBLEM, Closed),
        ("RFC 9112, 7.1", post(&format!("{chunked}fffffffffffffffff\r\ndata=x")), PROBLEM, Closed),
        ("RFC 9112, 7.1.1", post(&format!("{chunked}6;a=\"b\"\r\ndata=x\r\n0;c\r\n\r\n")), NOT_FOUND, Open),
        // A claim in the trailers is ignored. If it were read, this would be 401.
        ("RFC 9112, 7.1.2", post(&format!("{chunked}6\r\ndata=x\r\n0\r\nx-user-claim: x\r\n\r\n")), NOT_FOUND, Open),
    ] {
        check(&server, &[(section, &request, answers, after)]).await;
    }
}

#[tokio::test]
async fn connections_persist_and_close_as_rfc_9112_says() {
    let server = Server::start().await;
    let rows: &[Row<'_>] = &[
        ("RFC 9112, 9.3", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", &["200 | -connection"], Open),
        ("RFC 9112, 9.3", "GET /healthz HTTP/1.0\r\n\r\n", &["200"], Closed),
        (
            "RFC 9112, 9.3",
            "GET /healthz HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n",
            &["200 | connection: keep-alive"],
            Open,
        ),
        (
            "RFC 9112, 9.6",
            "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: x, Close\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
            &["200 | connection: close"],
            Closed,
        ),
        (
            "RFC 9112, 9.3.2",
            "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nHEAD /readyz HTTP/1.1\r\nhost: x\r\n\r\n\
             PUT /devices HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx\
             GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\nGET /readyz HTTP/1.1\r\nhost: x\r\n\r\n",
            &["200 | content-length: 3", "HEAD 200 | content-length: 6", "405", "404", "200 | content-length: 6"],
            Open,
        ),
    ];
    check(&server, rows).await;
}

/// RFC 9112, 7: an HTTP/1.0 client cannot read chunks.
#[tokio::test]
async fn a_stream_over_http_1_0_ends_with_its_connection() {
    let server = Server::with(&["--drain-window", "0.1"]).await;
    let mut connection = Connection::open(server.address).await;
    let claim = r#"x-user-claim: {"userid":"bob","clientid":"phone"}"#;
    connection.write(format!("GET /subscribe HTTP/1.0\r\nconnection: keep-alive\r\n{claim}\r\n\r\n").as_bytes()).await;
    let head = connection.head().await;
    let framing = ["connection", "transfer-encoding", "content-length"].map(|name| head.header(name));
    assert_eq!((head.status, framing), (200, ["close", "", ""]));
    server.drain.start();
    let body = String::from_utf8(connection.closed().await).expect("UTF-8");
    assert!(body.contains("event: signal.ready\n") && body.contains("draining"), "{body}");
}

#[tokio::test]
async fn without_hyper_a_client_that_half_closes_gets_the_answer_to_its_requests() {
    let server = Server::start().await;
    for (section, request, expected) in [
        ("RFC 9112, 9.6", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "HTTP/1.1 200"),
        ("RFC 9112, 9.6", format!("{POST}content-length: 6\r\n\r\ndata=x"), "HTTP/1.1 404"),
        // An incomplete body is no request.
        ("RFC 9112, 8", format!("{POST}content-length: 7\r\n\r\ndata=x"), "HTTP/1.1 400"),
        ("RFC 9112, 8", format!("{POST}transfer-encoding: chunked\r\n\r\n6\r\ndata=x\r\n"), "HTTP/1.1 400"),
        // Not met: HTTP/1.0 is answered with HTTP/1.0.
        ("RFC 9110, 6.2", "GET /healthz HTTP/1.0\r\n\r\n".to_owned(), "HTTP/1.0 200"),
    ] {
        let mut connection = Connection::open(server.address).await;
        connection.write(request.as_bytes()).await;
        connection.stream.shutdown().await.expect("open");
        let answer = String::from_utf8(connection.closed().await).expect("UTF-8");
        assert_eq!(answer.get(..12), Some(expected), "{section}: {answer}");
    }
}
