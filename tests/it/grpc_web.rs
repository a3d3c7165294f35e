//! gRPC-Web over HTTP/1.1 and HTTP/2, framed by hand as its specification says.

use axum::body::Body;
use backend_signal::grpc::proto::{
    EndReason, ListDevicesRequest, ListDevicesResponse, SubscribeRequest, SubscribeResponse, subscribe_response::Kind,
};
use prost::Message;

use crate::harness::{Connection, JSON, Server, claim, grpc::framed, http2::Http2, until, within};

const LIST: &str = "/backend_signal.v1.Signal/ListDevices";

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
async fn grpc_web_works_over_http_1() {
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
async fn grpc_web_text_is_base64() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    // The frame of ListDevicesRequest { user: "bob" }, in base64.
    let headers = [("content-type", "application/grpc-web-text"), ("accept", "application/grpc-web-text")];
    let answer = server.request(&format!("POST {LIST}"), &headers, b"AAAAAAUKA2JvYg==").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc-web-text+proto"));
    // The frame of ListDevicesResponse { devices: ["phone"] }, in base64.
    assert!(answer.body.starts_with(b"AAAAAAcKBXBob25l"), "{answer:?}");
    assert_lists_phone(&base64(&answer.body));
}

#[tokio::test]
async fn grpc_web_works_over_http_2() {
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
    // The call has no response message, so its status stands in the head.
    assert_eq!((answer.status, answer.header("grpc-status"), answer.body.as_slice()), (200, "3", &b""[..]));
}

#[tokio::test]
async fn base64_that_cannot_be_decoded_is_an_invalid_argument() {
    let server = Server::start().await;
    let headers = [("content-type", "application/grpc-web-text")];
    for path in [LIST, "/backend_signal.v1.Signal/SendStream", "/grpc.health.v1.Health/Check"] {
        for body in ["AAAA*AUKA2JvYg==", "AAAAAAUKA2JvYg=", "AAAAA"] {
            let answer = server.request(&format!("POST {path}"), &headers, body.as_bytes()).await;
            let in_body = String::from_utf8_lossy(&answer.body);
            let in_body = in_body.split("grpc-status:").nth(1).map(|rest| &rest[..1]);
            let status = in_body.unwrap_or_else(|| answer.header("grpc-status"));
            assert_eq!((answer.status, status), (200, "3"), "{path} {body}: {answer:?}");
        }
    }
}

/// A stream over gRPC-Web and HTTP/1.1.
struct GrpcWebStream {
    connection: Connection,
    text: bool,
    bytes: Vec<u8>,
}

impl GrpcWebStream {
    async fn subscribe(server: &Server, kind: &str) -> Self {
        let text = kind.contains("text");
        let mut connection = Connection::open(server.address).await;
        let empty = framed(&SubscribeRequest::default());
        // A frame without bytes is five zeros.
        let body = if text { b"AAAAAAA=".to_vec() } else { empty };
        let (length, claim) = (body.len().to_string(), claim("bob/phone"));
        let headers = [("content-type", kind), ("accept", kind), ("content-length", &length), ("x-user-claim", &claim)];
        connection.ask("POST /backend_signal.v1.Signal/Subscribe", &headers).await;
        connection.write(&body).await;
        let head = connection.head().await;
        assert_eq!((head.status, head.header("content-encoding")), (200, ""));
        assert!(head.header("content-type").starts_with(kind.trim_end_matches("+proto")), "{head:?}");
        Self { connection, text, bytes: Vec::new() }
    }

    /// The next frame: a message, or the trailers as text.
    async fn next(&mut self) -> Result<Kind, String> {
        loop {
            if let [flag, a, b, c, d, rest @ ..] = self.bytes.as_slice() {
                let (flag, length) = (*flag, u32::from_be_bytes([*a, *b, *c, *d]) as usize);
                if let Some(frame) = rest.get(..length).map(<[u8]>::to_vec) {
                    self.bytes.drain(..5 + length);
                    if flag & 0x80 != 0 {
                        return Err(String::from_utf8(frame).expect("ASCII"));
                    }
                    return Ok(SubscribeResponse::decode(frame.as_slice()).expect("a response").kind.expect("a kind"));
                }
            }
            let chunk = self.connection.chunk().await.expect("trailers before the end");
            self.bytes.extend(if self.text { base64(&chunk) } else { chunk });
        }
    }
}

/// Decodes base64 in which every part may have its own padding, as gRPC-Web allows.
fn base64(text: &[u8]) -> Vec<u8> {
    assert_eq!(text.len() % 4, 0, "whole groups: {}", String::from_utf8_lossy(text));
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        let digits = group.iter().filter(|digit| **digit != b'=').map(|digit| match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => panic!("{other} in base64"),
        });
        let digits: Vec<u8> = digits.collect();
        let value =
            digits.iter().fold(0_u32, |value, digit| value << 6 | u32::from(*digit)) << (6 * (4 - digits.len()));
        bytes.extend(&value.to_be_bytes()[1..digits.len()]);
    }
    bytes
}

#[tokio::test]
async fn a_stream_over_grpc_web_comes_message_by_message_and_its_status_at_the_end() {
    for kind in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let server = Server::start().await;
        let mut stream = GrpcWebStream::subscribe(&server, kind).await;
        let ready = stream.next().await;
        assert!(matches!(&ready, Ok(Kind::Ready(ready)) if !ready.cursor.is_empty()), "{ready:?}");
        for data in ["a", "bc", "def", &"\u{260e}".repeat(1_000)] {
            let body = serde_json::json!({ "data": data }).to_string();
            let post = server.request("POST /user/bob/device/phone", &[("content-type", JSON)], body.as_bytes()).await;
            assert_eq!(post.status, 200);
            let message = stream.next().await;
            assert!(matches!(&message, Ok(Kind::Message(message)) if message.data == data), "{message:?}");
        }
        let _newer = server.sse("bob/phone").await;
        assert!(matches!(stream.next().await, Ok(Kind::End(end)) if end.reason() == EndReason::Superseded));
        let trailers = stream.next().await.expect_err("trailers");
        assert!(trailers.lines().any(|line| line.trim() == "grpc-status:10"), "{kind}: {trailers}");
        assert_eq!(stream.connection.chunk().await, None);
    }
}

#[tokio::test]
async fn a_client_of_grpc_web_that_leaves_is_not_connected_any_more() {
    let server = Server::start().await;
    let mut stream = GrpcWebStream::subscribe(&server, "application/grpc-web+proto").await;
    assert!(matches!(stream.next().await, Ok(Kind::Ready(_))));
    assert_eq!(server.devices("bob").await, r#"["phone"]"#);
    drop(stream);
    until(|| server.devices("bob"), |devices| devices == "[]").await;
}

#[tokio::test]
async fn a_cors_preflight_for_grpc_web_is_answered() {
    let server = Server::start().await;
    let preflight = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-grpc-web,x-user-agent,grpc-timeout"),
    ];
    let answer = server.request(&format!("OPTIONS {LIST}"), &preflight, b"").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, "*"));
    assert!(answer.header("access-control-allow-headers").contains("x-grpc-web"));
    assert!(answer.header("access-control-allow-methods").contains("POST"));
}
