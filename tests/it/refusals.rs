//! A request that is refused before its body has come: the client gets to read why, over HTTP/1.1 and HTTP/2.

use axum::body::Body;
use http::Request;

use crate::harness::{
    Connection, FORM, Server, Sse, claim,
    frames::{self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM},
    http2::Http2,
    until, within,
};

const POST: &str = "POST /user/bob/device/phone";
const FORM_TYPE: (&str, &str) = ("content-type", FORM);

/// Writes 1 MB in pieces, as a program does that reads a file, and then reads the answer.
async fn upload(server: &Server, head: &str, headers: &[(&str, &str)], is_chunked: bool) -> (u16, String) {
    let mut connection = Connection::open(server.address).await;
    let framing = if is_chunked { ("transfer-encoding", "chunked") } else { ("content-length", "1024000") };
    connection.ask(head, &[headers, &[framing]].concat()).await;
    let piece = "x".repeat(10_240);
    let piece = if is_chunked { format!("2800\r\n{piece}\r\n") } else { piece };
    for _ in 0..100 {
        connection.write(piece.as_bytes()).await;
        tokio::task::yield_now().await;
    }
    if is_chunked {
        connection.write(b"0\r\n\r\n").await;
    }
    let answer = connection.response(false).await;
    assert_eq!(answer.header("connection"), "close", "{head}: {answer:?}");
    assert_eq!(connection.closed().await, b"");
    (answer.status, answer.problem())
}

#[tokio::test]
async fn ten_of_ten_writers_of_a_long_body_read_their_413() {
    let server = Server::start().await;
    for round in 0..10 {
        assert_eq!(upload(&server, POST, &[FORM_TYPE], round % 2 == 1).await, (413, "too_large".into()));
    }
}

#[tokio::test]
async fn a_long_body_does_not_hide_why_a_request_is_refused() {
    let server = Server::start().await;
    for (head, headers, status, code) in [
        (POST, &[FORM_TYPE, ("x-user-claim", "nonsense")][..], 401, "unauthenticated"),
        ("POST /user/bob/devices", &[FORM_TYPE], 413, "too_large"),
        ("POST /nowhere", &[], 404, "no_route"),
        ("PUT /user/bob/devices", &[], 405, "method_not_allowed"),
        ("POST /backend_signal.v1.Signal/Send", &[("content-type", "text/plain")], 415, "unsupported_media_type"),
        ("POST /nowhere", &[("host", "second")], 400, "invalid_host"),
    ] {
        for is_chunked in [false, true] {
            let (found, found_code) = upload(&server, head, headers, is_chunked).await;
            assert_eq!((found, found_code.as_str()), (status, code), "{head} {headers:?}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_read_up_to_a_bound_and_then_the_connection_closes() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    connection.ask(POST, &[FORM_TYPE, ("content-length", "100000000")]).await;
    let answer = connection.response(false).await;
    assert_eq!((answer.status, answer.header("connection")), (413, "close"));
    let mut written = 0;
    within(async {
        let piece = vec![b'x'; 16 * 1024];
        while tokio::io::AsyncWriteExt::write_all(&mut connection.stream, &piece).await.is_ok() {
            written += piece.len();
        }
    })
    .await;
    assert!((2_000_000..100_000_000).contains(&written), "{written}");
}

/// The error code of the next `RST_STREAM`.
async fn next_reset(peer: &mut Frames) -> Option<u32> {
    let frame = peer.next_of(RST_STREAM).await?;
    Some(u32::from_be_bytes(frame.payload.try_into().expect("four bytes")))
}

#[tokio::test]
async fn over_http_2_a_refused_upload_is_read_to_its_end_and_its_stream_is_not_reset() {
    let server = Server::start().await;
    let mut peer = Frames::open(server.address, &[]).await;
    for (stream, path) in [(1, "/nowhere"), (3, "/user/bob/device/phone")] {
        let head = frames::post(path, &[FORM_TYPE, ("content-length", "200000")]);
        peer.send(HEADERS, END_HEADERS, stream, &head).await;
        peer.next_of(HEADERS).await.expect("an answer before the body");
        for piece in 1..=20 {
            let flags = if piece == 20 { END_STREAM } else { 0 };
            peer.send(DATA, flags, stream, &[b'x'; 10_000]).await;
            // Fails on a reset of the stream: its kind comes before the next frame of any other kind.
            peer.send(frames::PING, 0, 0, &[piece; 8]).await;
            while let frame = peer.next().await.expect("an open connection")
                && frame.kind != frames::PING
            {
                assert_ne!(frame.kind, RST_STREAM, "after {piece} pieces of {path}");
            }
        }
    }
}

#[tokio::test]
async fn over_http_2_an_endless_refused_upload_is_reset_without_an_error_after_a_bound() {
    let server = Server::start().await;
    let mut connection = Http2::open(server.address).await;
    let body = Body::from(vec![b'x'; 5_000_000]);
    let request = Request::post(connection.uri("/user/bob/device/phone")).header("content-type", FORM);
    let answer = connection.send(request.body(body).expect("a request")).await;
    assert_eq!(answer.status(), 413);
    within(axum::body::to_bytes(Body::new(answer.into_body()), 1 << 16)).await.expect("the whole problem");
    let slow = Server::with(&["--body-timeout", "0.3"]).await;
    let mut peer = Frames::open(slow.address, &[]).await;
    peer.send(HEADERS, END_HEADERS, 1, &frames::post("/nowhere", &[("content-length", "200000")])).await;
    assert_eq!(next_reset(&mut peer).await, Some(0), "NO_ERROR");
}

/// The client sends no body after the 417, so only the reset can end the stream. `--body-timeout` is an hour and must not matter.
#[tokio::test]
async fn over_http_2_a_refused_expectation_ends_its_stream_without_waiting_for_the_body() {
    let server = Server::with(&["--body-timeout", "3600"]).await;
    let mut peer = Frames::open(server.address, &[]).await;
    for (stream, path, kind) in
        [(1, "/user/bob/device/phone", FORM), (3, "/backend_signal.v1.Signal/Send", "application/grpc")]
    {
        let head = frames::post(path, &[("content-type", kind), ("expect", "100-continue")]);
        peer.send(HEADERS, END_HEADERS, stream, &head).await;
        assert_eq!(peer.next_of(HEADERS).await.map(|frame| frame.stream), Some(stream), "an answer to {path}");
        assert_eq!(next_reset(&mut peer).await, Some(0), "NO_ERROR for {path}");
    }
}

/// 600 uploads in bursts. Without their bodies being read, the frames that were under way when their streams were reset would
/// count as faults of the peer, and the connection would end after about 310.
#[tokio::test]
async fn over_http_2_refused_uploads_do_not_cut_the_event_stream_beside_them() {
    let server = Server::start().await;
    let connection = Http2::open(server.address).await;
    let mut phone = Sse::open_h2(&connection, "bob/phone").await;
    let large = axum::body::Bytes::from(vec![b'x'; 110_000]);
    for _ in 0..30 {
        let burst: Vec<_> = (0..20)
            .map(|_| {
                let mut connection = connection.clone();
                let request = Request::post(connection.uri("/user/bob/device/phone")).header("content-type", FORM);
                let request = request.body(Body::from(large.clone())).expect("a request");
                tokio::spawn(async move { connection.send(request).await.status().as_u16() })
            })
            .collect();
        for answer in burst {
            assert_eq!(within(answer).await.expect("no panic"), 413);
        }
    }
    assert_eq!(server.post("bob/phone", "not cut").await.status, 200);
    assert_eq!(phone.data().await, "not cut");
    until(|| server.devices("bob"), |devices| devices == r#"["phone"]"#).await;
}

/// Each request leaves a body of 60 kB that no handler reads, and its stream goes on: 20 of them would hold the whole window.
#[tokio::test]
async fn over_http_2_bodies_that_nobody_reads_do_not_hold_up_the_requests_beside_their_streams() {
    let server = Server::start().await;
    let mut connection = Http2::open(server.address).await;
    let mut streams = Vec::new();
    for device in 0..20 {
        let request =
            Request::get(connection.uri("/subscribe")).header("x-user-claim", claim(&format!("bob/{device}")));
        let response = connection.send(request.body(Body::from(vec![b'x'; 60_000])).expect("a request")).await;
        assert_eq!(response.status(), 200);
        streams.push(response);
    }
    for _ in 0..20 {
        let request = Request::post(connection.uri("/user/bob/device/absent")).header("content-type", FORM);
        let request = request.body(Body::from(format!("data={}", "x".repeat(60_000)))).expect("a request");
        assert_eq!(connection.send(request).await.status(), 404);
    }
}
