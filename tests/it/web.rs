//! gRPC-Web over HTTP/1.1 and HTTP/2, framed by hand as its specification says.

use axum::body::Body;
use backend_signal::grpc::proto::{ListDevicesRequest, ListDevicesResponse};
use prost::Message;

use crate::harness::{Server, http2::Http2, within};

const LIST: &str = "/signal.v1.Signal/ListDevices";

fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
    [&[0][..], &length, &bytes].concat()
}

/// The messages and the trailers of a body.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let (mut messages, mut trailers) = (Vec::new(), String::new());
    while let [flag, a, b, c, d, rest @ ..] = body {
        let (frame, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        if flag & 0x80 == 0 {
            messages.push(frame.to_vec());
        } else {
            trailers += std::str::from_utf8(frame).expect("ASCII");
        }
        body = rest;
    }
    (messages, trailers)
}

fn assert_lists_phone(body: &[u8]) {
    let (messages, trailers) = frames(body);
    let listed = ListDevicesResponse::decode(messages[0].as_slice()).expect("a list");
    assert_eq!(listed.devices, ["phone"]);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn a_browser_calls_over_http_1() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    let body = framed(&ListDevicesRequest { user: "bob".into() });
    for kind in ["application/grpc-web", "application/grpc-web+proto"] {
        let headers = [("content-type", kind), ("origin", "https://a.example"), ("x-grpc-web", "1")];
        let answer = server.request(&format!("POST {LIST}"), &headers, &body).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "*"));
        assert!(answer.header("access-control-expose-headers").contains("grpc-status"));
        assert_lists_phone(&answer.body);
    }
}

#[tokio::test]
async fn a_browser_may_speak_base64() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    // The frame of ListDevicesRequest { user: "bob" }, in base64.
    let headers = [("content-type", "application/grpc-web-text"), ("accept", "application/grpc-web-text")];
    let answer = server.request(&format!("POST {LIST}"), &headers, b"AAAAAAUKA2JvYg==").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc-web-text+proto"));
    let text = answer.text();
    // The frame of ListDevicesResponse { devices: ["phone"] }, in base64.
    assert!(text.starts_with("AAAAAAcKBXBob25l"), "{text}");
}

#[tokio::test]
async fn a_browser_calls_over_http_2() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    let mut connection = Http2::open(server.address).await;
    let body = framed(&ListDevicesRequest { user: "bob".into() });
    let request = http::Request::post(connection.uri(LIST)).header("content-type", "application/grpc-web+proto");
    let response = connection.send(request.body(Body::from(body)).expect("a request")).await;
    let body = within(axum::body::to_bytes(Body::new(response.into_body()), 1 << 20)).await.expect("a body");
    assert_lists_phone(&body);
}

#[tokio::test]
async fn an_error_over_grpc_web_has_its_code() {
    let server = Server::start().await;
    let body = framed(&ListDevicesRequest { user: String::new() });
    let headers = [("content-type", "application/grpc-web+proto")];
    let answer = server.request(&format!("POST {LIST}"), &headers, &body).await;
    let (_, trailers) = frames(&answer.body);
    assert!(answer.header("grpc-status") == "3" || trailers.contains("grpc-status:3"), "{answer:?}");
}
