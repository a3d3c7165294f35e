//! Calls whose requests are framed wrongly or are too large: the client's fault, whatever layer notices it, and nothing is delivered.

use axum::body::{Body, Bytes};
use backend_signal::grpc::proto::{ListDevicesRequest, SendStreamRequest};
use http::Request;
use tokio_stream::iter;
use tonic_health::pb::HealthCheckRequest;

use crate::harness::{
    Connection, Server,
    grpc::{framed, message},
    http2::Http2,
    within,
};

const SEND: &str = "/backend_signal.v1.Signal/Send";
const SEND_STREAM: &str = "/backend_signal.v1.Signal/SendStream";
const LIST: &str = "/backend_signal.v1.Signal/ListDevices";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The status of a call, in the head or in the trailers. The body is sent in these pieces.
async fn status(server: &Server, path: &str, kind: &str, pieces: &[&[u8]]) -> String {
    let mut connection = Http2::open(server.address).await;
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
    let request = Request::post(connection.uri(path)).header("content-type", kind).header("te", "trailers");
    let response = connection.send(request.body(Body::from_stream(iter(pieces))).expect("a request")).await;
    assert_eq!(response.status(), 200, "{path}");
    let text = |value: &http::HeaderValue| value.to_str().expect("ASCII").to_owned();
    if let Some(status) = response.headers().get("grpc-status") {
        return text(status);
    }
    let mut body = response.into_body();
    let mut data = Vec::new();
    while let Some(frame) = within(std::future::poll_fn(|cx| {
        use hyper::body::Body as _;
        std::pin::Pin::new(&mut body).poll_frame(cx)
    }))
    .await
    {
        match frame.expect("no reset").into_trailers() {
            Ok(trailers) => return text(&trailers["grpc-status"]),
            Err(frame) => data.extend(frame.into_data().expect("data")),
        }
    }
    // Over gRPC-Web the trailers are in the body.
    let data = String::from_utf8_lossy(&data).into_owned();
    let status = data.split("grpc-status:").nth(1).unwrap_or_else(|| panic!("{path}: no status in {data:?}"));
    status.trim_start().split("\r\n").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn two_messages_in_a_unary_call_are_an_invalid_argument_and_none_is_delivered() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let one = framed(&message("bob/phone", "", "one"));
    let both = [&one[..], &one].concat();
    for kind in ["application/grpc", "application/grpc-web+proto"] {
        assert_eq!(status(&server, SEND, kind, &[&both]).await, "3", "{kind}");
        assert_eq!(status(&server, SEND, kind, &[&one, &one]).await, "3", "{kind}");
        assert_eq!(status(&server, SEND, kind, &[&one, &[0]]).await, "3", "{kind}");
    }
    assert_eq!(status(&server, SEND, "application/grpc", &[&framed(&message("bob/phone", "", "last"))]).await, "0");
    assert_eq!(phone.data().await, "last");
    let check = framed(&HealthCheckRequest::default());
    assert_eq!(status(&server, CHECK, "application/grpc", &[&check, &check]).await, "3");
    assert_eq!(status(&server, CHECK, "application/grpc", &[&check]).await, "0");
}

#[tokio::test]
async fn a_request_that_is_empty_or_cut_short_is_an_invalid_argument() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    let whole = framed(&message("bob/phone", "", "x"));
    let list = framed(&ListDevicesRequest { user: "bob".into() });
    let stream = framed(&SendStreamRequest { send: Some(message("bob/phone", "", "x")) });
    let check = framed(&HealthCheckRequest { service: "backend_signal.v1.Signal".into() });
    for kind in ["application/grpc", "application/grpc-web"] {
        for (path, request) in [(SEND, &whole), (LIST, &list), (CHECK, &check)] {
            assert_eq!(status(&server, path, kind, &[]).await, "3", "{path} {kind}: no message");
            assert_eq!(status(&server, path, kind, &[&request[..3]]).await, "3", "{path} {kind}: within the head");
            assert_eq!(status(&server, path, kind, &[&request[..9]]).await, "3", "{path} {kind}: within the message");
            assert_eq!(status(&server, path, kind, &[&[7], &request[1..]]).await, "3", "{path} {kind}: bad flags");
        }
        for path in [SEND, LIST] {
            assert_eq!(status(&server, path, kind, &[&[0; 5]]).await, "3", "{path} {kind}: an empty message");
        }
        let cut = &stream[..stream.len() - 1];
        assert_eq!(status(&server, SEND_STREAM, kind, &[&stream, cut]).await, "3", "{kind}");
        assert_eq!(status(&server, SEND_STREAM, kind, &[&stream, &stream]).await, "0", "{kind}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_out_of_range_whatever_its_size() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    for size in [102_400, 104_000, 105_000, 106_000, 110_000, 300_000, 3_000_000] {
        let request = framed(&message("bob/phone", "", &"x".repeat(size)));
        for (path, kind) in
            [(SEND, "application/grpc"), (SEND, "application/grpc-web+proto"), (CHECK, "application/grpc")]
        {
            assert_eq!(status(&server, path, kind, &[&request]).await, "11", "{size} {path} {kind}");
        }
    }
}

/// The head of the response to a gRPC-Web call over HTTP/1.1 whose body may be cut off by the server.
async fn web_over_http1(server: &Server, path: &str, framing: (&str, &str), body: &[u8]) -> (u16, String, String) {
    let mut connection = Connection::open(server.address).await;
    connection.ask(&format!("POST {path}"), &[("content-type", "application/grpc-web+proto"), framing]).await;
    let _ = within(tokio::io::AsyncWriteExt::write_all(&mut connection.stream, body)).await;
    let head = connection.head().await;
    (head.status, head.header("grpc-status").to_owned(), head.header("content-type").to_owned())
}

#[tokio::test]
async fn a_body_over_the_limit_over_grpc_web_and_http_1_is_out_of_range() {
    let server = Server::with(&["--body-timeout", "0.5"]).await;
    let web = "application/grpc-web+proto".to_owned();
    for size in [102_400_usize, 104_000, 105_000, 106_000, 150_000, 180_000] {
        let request = framed(&message("bob/phone", "", &"x".repeat(size)));
        let length = request.len().to_string();
        let answer = web_over_http1(&server, SEND, ("content-length", &length), &request).await;
        assert_eq!(answer, (200, "11".into(), web.clone()), "{size}");
        // The head of the message alone says that it is too large.
        let answer = web_over_http1(&server, SEND, ("content-length", &length), &request[..100]).await;
        assert_eq!(answer, (200, "11".into(), web.clone()), "{size}, without its body");
    }
    // A body that goes on after a whole message, and one that never comes.
    let request = framed(&message("bob/phone", "", "x"));
    let answer = web_over_http1(&server, SEND, ("content-length", "200000"), &request).await;
    assert_eq!((answer.0, answer.2), (200, web.clone()), "{}", answer.1);
    let answer = web_over_http1(&server, "/nobody.v1.Nothing/Call", ("content-length", "200000"), &request).await;
    assert_eq!(answer, (200, "12".into(), web));
}
