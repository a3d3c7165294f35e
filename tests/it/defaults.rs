//! The default times, on a paused clock that jumps to the next timer.

use std::time::Duration;

use tokio::time::{Instant, pause, timeout};

use crate::harness::{Connection, FORM, Server, Sse, claim, http2::Http2, until};

const SECOND: Duration = Duration::from_secs(1);

/// Has a tolerance, because the paused clock may jump about 20 ms too far at each step while bytes travel.
fn assert_about(found: Duration, least: f64, most: f64) {
    let seconds = found.as_secs_f64();
    assert!((least - 0.2..most + 0.6).contains(&seconds), "{seconds} s and not {least} to {most}");
}

#[tokio::test]
async fn a_stream_gets_a_ping_after_15_seconds_of_silence_give_or_take_a_tenth() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let mut grpc = server.grpc_stream("bob/grpc", "").await.expect("a stream");
    pause();
    let began = Instant::now();
    for round in [1.0, 2.0] {
        assert_eq!(phone.next().await.name, "signal.ping");
        assert_about(began.elapsed(), 13.5 * round, 16.5 * round);
    }
    let kind = grpc.next().await.expect("a response");
    assert!(matches!(kind, Some(backend_signal::grpc::proto::subscribe_response::Kind::Ping(_))), "{kind:?}");
}

#[tokio::test]
async fn the_legacy_format_has_a_comment_every_25_seconds() {
    let server = Server::start().await;
    let mut phone = Connection::open(server.address).await;
    phone.ask("GET /subscribe?format=legacy", &[("x-user-claim", &claim("bob/phone"))]).await;
    phone.head().await;
    assert_eq!(phone.chunk().await.as_deref(), Some(&b":\n\n"[..]));
    pause();
    for _ in 0..2 {
        let began = Instant::now();
        timeout(40 * SECOND, phone.stream.readable()).await.expect("a heartbeat").expect("open");
        assert_eq!(phone.chunk().await.as_deref(), Some(&b":\n\n"[..]));
        assert_about(began.elapsed(), 22.5, 27.5);
    }
}

#[tokio::test]
async fn a_peer_has_10_seconds_for_its_first_bytes_its_head_and_its_next_request() {
    let server = Server::start().await;
    for first in ["", "PRI * H", "GET / HT", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut connection = Connection::open(server.address).await;
        connection.write(first.as_bytes()).await;
        if first.ends_with("\r\n\r\n") {
            connection.response(false).await;
        }
        pause();
        let began = Instant::now();
        connection.closed().await;
        assert_about(began.elapsed(), 10.0, 10.0);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn late_first_bytes_leave_the_head_only_the_rest_of_10_seconds() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    // Connections are accepted in order: after this answer the first one is accepted, and its time runs.
    assert_eq!(server.request("GET /healthz", &[], b"").await.status, 200);
    pause();
    let began = Instant::now();
    tokio::time::sleep(9 * SECOND).await;
    connection.write(b"G").await;
    connection.closed().await;
    assert_about(began.elapsed(), 10.0, 10.0);
}

#[tokio::test]
async fn a_body_has_10_seconds() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    connection.ask("POST /user/bob/device/phone", &[("content-type", FORM), ("content-length", "9")]).await;
    pause();
    let began = Instant::now();
    assert_eq!(connection.response(false).await.status, 408);
    assert_about(began.elapsed(), 10.0, 10.0);
}

#[tokio::test]
async fn an_incomplete_grpc_web_call_has_10_seconds_or_its_own_timeout() {
    for (timeout, least) in [(&[][..], 10.0), (&[("grpc-timeout", "1S")], 1.0)] {
        let server = Server::start().await;
        let mut connection = Connection::open(server.address).await;
        let headers = [&[("content-type", "application/grpc-web+proto"), ("content-length", "9")], timeout].concat();
        connection.ask("POST /backend_signal.v1.Signal/Send", &headers).await;
        connection.write(&[0; 3]).await;
        pause();
        let began = Instant::now();
        let answer = connection.response(false).await;
        assert_about(began.elapsed(), least, least);
        assert_eq!((answer.status, answer.header("grpc-status"), answer.header("connection")), (200, "4", "close"));
        tokio::time::resume();
    }
}

#[tokio::test]
async fn an_unread_body_and_its_handler_together_have_10_seconds() {
    let server = Server::start().await;
    for (head, status) in [("POST /nowhere", 404), ("POST /user/bob/devices", 408), ("GET /user/bob/devices", 408)] {
        let mut connection = Connection::open(server.address).await;
        connection.ask(head, &[("content-type", FORM), ("content-length", "9")]).await;
        pause();
        let began = Instant::now();
        let answer = connection.response(false).await;
        assert_eq!((answer.status, answer.header("connection")), (status, "close"), "{head}");
        assert_about(began.elapsed(), 10.0, 10.0);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_stream_is_cut_when_its_oldest_unsent_message_is_5_seconds_old() {
    let server = Server::start().await;
    let connection = Http2::with_window(server.address, 1_000).await;
    let mut slow = connection.clone();
    let request = http::Request::get(slow.uri("/subscribe")).header("x-user-claim", claim("bob/phone"));
    let _unread = slow.send(request.body(axum::body::Body::empty()).expect("a request")).await;
    let data = "x".repeat(2_000);
    for _ in 0..2 {
        assert_eq!(server.post("bob/phone", &data).await.status, 200);
    }
    pause();
    let began = Instant::now();
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    assert_about(began.elapsed(), 4.9, 6.2);
}

#[tokio::test]
async fn a_device_may_come_back_and_resume_for_120_seconds() {
    for (away, continuity) in [(118, "resumed"), (123, "broken")] {
        let server = Server::start().await;
        let cursor = server.sse("bob/phone").await.leave();
        until(|| server.devices("bob"), |devices| devices == "[]").await;
        pause();
        tokio::time::sleep(away * SECOND).await;
        let back = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
        assert_eq!(back.ready["continuity"], continuity, "after {away} s");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn streams_end_within_2_seconds_of_a_drain() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for user in 0..30 {
        streams.push(server.sse(&format!("{user}/phone")).await);
    }
    pause();
    let began = Instant::now();
    server.drain.start();
    let ends = streams.into_iter().map(|stream: Sse| tokio::spawn(stream.end()));
    for end in ends.collect::<Vec<_>>() {
        assert_eq!(end.await.expect("no panic"), "draining");
    }
    server.stopped().await;
    assert_about(began.elapsed(), 1.0, 2.0);
}

#[tokio::test]
async fn watches_end_over_the_window_of_a_drain_as_streams_do() {
    let server = Server::start().await;
    let mut watches = Vec::new();
    for user in 0..30 {
        let path = format!("/user/{user}/devices");
        let mut watch = Sse::open_plain(server.address, &path, &[("accept", "text/event-stream")]).await;
        assert_eq!(watch.next().await.data, "[]");
        watches.push(watch);
    }
    pause();
    let began = Instant::now();
    server.drain.start();
    let ends = watches.into_iter().map(|watch: Sse| tokio::spawn(watch.end()));
    for end in ends.collect::<Vec<_>>() {
        assert_eq!(end.await.expect("no panic"), "draining");
    }
    server.stopped().await;
    assert_about(began.elapsed(), 1.0, 2.0);
}
