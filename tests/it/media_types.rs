//! Media types in other letters' case, with parameters, and of calls that this server cannot read.

use axum::body::Body;
use backend_signal::grpc::proto::{ListDevicesRequest, ListDevicesResponse};
use prost::Message as _;

use crate::harness::{FORM, JSON, Response, Server, grpc::framed, http2::Http2, within};

const LIST: &str = "/backend_signal.v1.Signal/ListDevices";

/// A call over HTTP/1.1.
async fn call(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Response {
    server.request(&format!("POST {LIST}"), headers, body).await
}

/// A call over HTTP/2.
async fn call_http2(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut connection = Http2::open(server.address).await;
    let mut request = http::Request::post(connection.uri(LIST));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = connection.send(request.body(Body::from(body.to_vec())).expect("a request")).await.into_parts();
    let body = within(axum::body::to_bytes(Body::new(body), 1 << 20)).await.expect("a body").to_vec();
    let text = |value: &http::HeaderValue| value.to_str().expect("ASCII").to_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Response { status: parts.status.as_u16(), headers, body }
}

fn request() -> Vec<u8> {
    framed(&ListDevicesRequest { user: "bob".into() })
}

fn assert_lists_phone(answer: &Response, kind: &str) {
    assert_eq!((answer.status, answer.header("grpc-status")), (200, ""), "{kind}: {answer:?}");
    let expected = ListDevicesResponse { devices: vec!["phone".into()] }.encode_to_vec();
    assert_eq!(&answer.body[5..5 + expected.len()], expected, "{kind}");
}

#[tokio::test]
async fn the_content_type_of_a_call_may_have_parameters_and_capital_letters() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    for kind in [
        "application/grpc-web+proto; charset=utf-8",
        "application/grpc-web;charset=utf-8",
        "Application/gRPC-Web+Proto",
        "application/GRPC-WEB",
    ] {
        for answer in [
            call(&server, &[("content-type", kind)], &request()).await,
            call_http2(&server, &[("content-type", kind)], &request()).await,
        ] {
            assert_lists_phone(&answer, kind);
            assert_eq!(answer.header("content-type"), "application/grpc-web+proto", "{kind}");
        }
    }
    for kind in ["application/grpc+proto", "Application/gRPC", "application/grpc; a=b", "application/grpc;a=b"] {
        let answer = call_http2(&server, &[("content-type", kind), ("te", "trailers")], &request()).await;
        assert_lists_phone(&answer, kind);
        assert_eq!(answer.header("content-type"), "application/grpc", "{kind}");
    }
    let text = "Application/gRPC-Web-Text; charset=utf-8";
    let headers = [("content-type", text), ("accept", text)];
    let answer = call(&server, &headers, b"AAAAAAUKA2JvYg==").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc-web-text+proto"));
    assert!(answer.body.starts_with(b"AAAAAAcKBXBob25l"), "{answer:?}");
}

#[tokio::test]
async fn native_grpc_over_http_1_is_415_with_a_problem() {
    let server = Server::start().await;
    for kind in ["application/grpc", "application/grpc+proto", "application/grpc+json", "Application/gRPC"] {
        for path in [LIST, "/grpc.health.v1.Health/Check"] {
            let answer = server.request(&format!("POST {path}"), &[("content-type", kind)], &request()).await;
            assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported_media_type"), "{kind} {path}");
        }
    }
}

#[tokio::test]
async fn messages_that_are_not_protobuf_are_unimplemented() {
    let server = Server::start().await;
    for kind in ["application/grpc+json", "application/grpc-web+json", "application/grpc-web-text+thrift"] {
        let web = kind.contains("web");
        let answer = call_http2(&server, &[("content-type", kind)], &request()).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"), "{kind}: {answer:?}");
        assert!(answer.header("grpc-message").contains("protobuf"), "{kind}: {answer:?}");
        if web {
            let answer = call(&server, &[("content-type", kind)], &request()).await;
            assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"), "{kind}: {answer:?}");
            assert!(answer.header("content-type").starts_with("application/grpc-web"), "{kind}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_service_over_grpc_web_is_unimplemented_in_a_response_of_grpc_web() {
    let server = Server::start().await;
    for kind in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let answer = server.request("POST /nobody.v1.Nothing/Call", &[("content-type", kind)], &request()).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"), "{kind}");
        assert!(answer.header("content-type").starts_with(kind), "{answer:?}");
    }
}

#[tokio::test]
async fn the_media_types_of_a_post_and_of_accept_may_have_parameters_and_capital_letters() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let post = "POST /user/bob/device/phone";
    for (kind, body) in [
        ("Application/JSON ; Charset=UTF-8", r#"{"data":"x"}"#),
        ("APPLICATION/X-WWW-FORM-URLENCODED;charset=utf-8", "data=x"),
    ] {
        assert_eq!(server.request(post, &[("content-type", kind)], body.as_bytes()).await.status, 200, "{kind}");
        assert_eq!(phone.data().await, "x");
    }
    for coding in ["identity", "Identity", "IDENTITY, identity"] {
        let headers = [("content-type", JSON), ("content-encoding", coding)];
        assert_eq!(server.request(post, &headers, br#"{"data":"x"}"#).await.status, 200, "{coding}");
        assert_eq!(phone.data().await, "x");
    }
    let headers = [("content-type", FORM), ("content-encoding", "Identity, GZIP")];
    let answer = server.request(post, &headers, b"data=x").await;
    assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported_media_type"));
    let list = async |accept: &str| server.request("GET /user/bob/devices", &[("accept", accept)], b"").await;
    assert_eq!(list("text/event-stream;q=0, */*").await.header("content-type"), "application/json");
}
