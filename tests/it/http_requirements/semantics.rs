//! RFC 9110: what requests and their fields mean.

use super::{Closed, Open, Row, check};
use crate::harness::{Connection, FORM, Server};

const POST: &str =
    "POST /user/bob/device/absent HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n";
const GET: &str = "GET /user/bob/devices HTTP/1.1\r\nhost: x\r\n";

#[tokio::test]
async fn fields_of_a_request_mean_what_rfc_9110_says() {
    let server = Server::start().await;
    let list: &[&str] = &["200 | content-type: application/json | content-length: 2 | vary: accept"];
    for (section, request, answers, after) in [
        // The daemon has nothing to upgrade to.
        (
            "RFC 9110, 7.8",
            format!("{GET}connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n"),
            &["200 | -upgrade | -connection"][..],
            Open,
        ),
        (
            "RFC 9110, 7.8",
            format!("{GET}connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\n\r\n"),
            &["200 | -upgrade | -connection"],
            Open,
        ),
        ("RFC 9110, 8.6", GET.replace("GET", "HEAD") + "\r\n", &["HEAD 200 | content-length: 2"], Open),
        ("RFC 9110, 12.5.1", format!("{GET}accept: image/png\r\n\r\n"), list, Open),
        ("RFC 9110, 12.5.3", format!("{GET}accept-encoding: gzip\r\n\r\n"), &["200 | -content-encoding"], Open),
        ("RFC 9110, 12.5.5", format!("{GET}\r\n"), list, Open),
        // Not met: the daemon gives no validators and evaluates no preconditions.
        ("RFC 9110, 13.2.1", format!("{GET}if-none-match: *\r\n\r\n"), list, Open),
        ("RFC 9110, 13.2.1", format!("{GET}if-match: \"x\"\r\n\r\n"), list, Open),
        ("RFC 9110, 13.1.3", format!("{GET}if-modified-since: Sat, 29 Oct 2094 19:43:31 GMT\r\n\r\n"), list, Open),
        // A server may ignore Range.
        ("RFC 9110, 14.2", format!("{GET}range: bytes=0-0\r\n\r\n"), list, Open),
        ("RFC 9110, 15.5.2", GET.replace("user/bob/devices", "subscribe") + "\r\n", CHALLENGED, Open),
        ("RFC 9110, 15.5.5", "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n".into(), &["404"], Open),
        // Not met: the answer does not name the media types and content codings that would be accepted.
        (
            "RFC 9110, 15.5.16",
            format!("{POST}content-encoding: gzip\r\ncontent-length: 6\r\n\r\ndata=x"),
            &["415 | -accept | -accept-encoding"],
            Open,
        ),
    ] {
        check(&server, &[(section, &request, answers, after)]).await;
    }
}

const CHALLENGED: &[&str] = &[r#"401 | www-authenticate: Claim realm="backend-signal""#];

#[tokio::test]
async fn a_body_that_does_not_come_or_is_too_long_closes_the_connection() {
    let server = Server::with(&["--body-timeout", "0.2"]).await;
    let late = format!("{POST}content-length: 6\r\n\r\nda");
    let long = format!("{POST}content-length: 9999999\r\n\r\nda");
    let rows: &[Row<'_>] = &[
        ("RFC 9110, 15.5.9", &late, &["408 | connection: close"], Closed),
        ("RFC 9110, 15.5.14", &long, &["413 | connection: close"], Closed),
    ];
    check(&server, rows).await;
}

#[tokio::test]
async fn an_expectation_is_handled_as_rfc_9110_says() {
    let server = Server::with(&["--body-timeout", "3600"]).await;
    let expecting = |head: &str| format!("{head}content-length: 6\r\nexpect: 100-Continue\r\n\r\n");
    let page = "origin: https://a.example\r\n";
    // `waits_for_body` asserts that 100 comes before the body.
    drop(server.waits_for_body().await);
    for (request, answers, after) in [
        // A client may send its body at once.
        (expecting(POST) + "data=x", &["100", "404"][..], Open),
        (expecting(&POST.replace("device/absent", "devices")) + "data=x", &["100", "404"], Open),
        // Without a body there is nothing to continue with, and HTTP/1.0 knows no 100.
        (format!("{GET}expect: 100-continue\r\n\r\n"), &["200"], Open),
        (expecting(POST).replace("HTTP/1.1", "HTTP/1.0") + "data=x", &["404"], Closed),
        // Another expectation may be ignored.
        (format!("{GET}expect: 200-ok\r\n\r\n"), &["200"], Open),
        // Refused by the head: the final status comes at once, without `100 Continue`.
        (expecting(&format!("{POST}x-user-claim: x\r\n")), &["401 | connection: close"], Closed),
        (expecting(&format!("{POST}x-user-claim: x\r\n{page}")), &["401 | connection: close"], Closed),
        (expecting(&format!("{POST}ttl: x\r\n")), &["400 | connection: close"], Closed),
        (expecting(&POST.replace("bob", "%00")), &["400 | connection: close"], Closed),
        (expecting("POST /nowhere HTTP/1.1\r\nhost: x\r\n"), &["404 | connection: close"], Closed),
        (expecting("PUT /devices HTTP/1.1\r\nhost: x\r\n"), &["405 | connection: close"], Closed),
        (expecting(POST).replace("th: 6", "th: 900000"), &["413 | connection: close"], Closed),
        (
            expecting("POST /backend_signal.v1.Signal/Send HTTP/1.1\r\nhost: x\r\n"),
            &["415 | connection: close"],
            Closed,
        ),
    ] {
        let row: Row<'_> = ("RFC 9110, 10.1.1", &request, answers, after);
        check(&server, &[row]).await;
    }
}

/// A client need not wait for `100 Continue`. If it sends its body without waiting, it can still read the answer.
#[tokio::test]
async fn a_client_that_sends_its_body_without_being_asked_reads_why_it_was_refused() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let body = "x".repeat(50_000);
    let headers = [("content-type", FORM), ("expect", "100-continue"), ("x-user-claim", "x")];
    let answer = connection.request("POST /user/bob/device/phone", &headers, body.as_bytes()).await;
    assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"));
}
