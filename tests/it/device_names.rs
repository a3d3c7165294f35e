//! The device that a request names: by its path, its query or a header, when the identity is a user without a device.

use axum::body::Body;
use backend_signal::grpc::proto::{ListDevicesRequest, SubscribeRequest};
use tonic::{Code, Request};

use crate::harness::{
    Connection, FORM, Server, Sse, claim,
    grpc::{Stream, message},
    http2::Http2,
    within,
};

const BOB: &str = r#"{"userid":"bob"}"#;
const DEVICE: &str = "X-Signal-Device";

/// The `user/device` of the stream that a request opens, or the status and the code of its refusal.
async fn subscribe(server: &Server, target: &str, headers: &[(&str, &str)]) -> String {
    let mut connection = Connection::open(server.address).await;
    connection.ask(&format!("GET {target}"), headers).await;
    let mut answer = connection.head().await;
    if answer.status == 200 {
        let ready = Sse::after_head(connection).next().await;
        let ready: serde_json::Value = serde_json::from_str(&ready.data).expect("JSON");
        return format!("{}/{}", ready["user"].as_str().expect("a user"), ready["device"].as_str().expect("a device"));
    }
    let mut rest = vec![0; answer.header("content-length").parse().expect("a length")];
    connection.read(&mut rest).await;
    answer.body = rest;
    format!("{} {}", answer.status, answer.problem())
}

/// The status over HTTP/2.
async fn status_h2(server: &Server, target: &str, headers: &[(&str, &str)]) -> u16 {
    let mut connection = Http2::open(server.address).await;
    let mut request = http::Request::get(connection.uri(target));
    for (name, value) in headers {
        request = request.header(*name, value.as_bytes());
    }
    connection.send(request.body(Body::empty()).expect("a request")).await.status().as_u16()
}

/// A call with these metadata.
fn call<T>(message: T, headers: &[(&str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        let name = tonic::metadata::MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).expect("a name");
        request.metadata_mut().append(name, value.parse().expect("ASCII"));
    }
    request
}

/// As [`subscribe`] over gRPC, where a refusal has only a code.
async fn subscribe_grpc(server: &Server, headers: &[(&str, &str)]) -> Result<String, Code> {
    let opened = Stream::begin(&mut server.grpc().await, call(SubscribeRequest::default(), headers)).await;
    let address = opened.map_err(|status| status.code())?.ready.address.expect("an address");
    Ok(format!("{}/{}", address.user, address.device))
}

/// The gRPC code that means the same as an HTTP status.
fn code_of(answer: &str) -> Code {
    match answer.split_once(' ').map(|(status, _)| status) {
        Some("400") => Code::InvalidArgument,
        Some("401") => Code::Unauthenticated,
        Some("403") => Code::PermissionDenied,
        _ => Code::Ok,
    }
}

/// Subscribes over HTTP/1.1 and HTTP/2, and without a path or query also over gRPC.
async fn assert_subscribe(server: &Server, target: &str, headers: &[(&str, &str)], expected: &str) {
    assert_eq!(subscribe(server, target, headers).await, expected, "{target} {headers:?}");
    let status = if code_of(expected) == Code::Ok { "200" } else { &expected[..3] };
    assert_eq!(status_h2(server, target, headers).await.to_string(), status, "HTTP/2 {target} {headers:?}");
    if target == "/subscribe" {
        let answer = subscribe_grpc(server, headers).await;
        let expected = if code_of(expected) == Code::Ok { Ok(expected.to_owned()) } else { Err(code_of(expected)) };
        assert_eq!(answer, expected, "gRPC {headers:?}");
    }
}

#[tokio::test]
async fn a_user_without_a_device_names_the_device_by_path_query_or_header() {
    let server = Server::start().await;
    for (target, device, expected) in [
        ("/subscribe/bob/device/phone", None, "bob/phone"),
        ("/subscribe/bob/device/a%2Fb%20%E2%98%8E", None, "bob/a/b ☎"),
        ("/subscribe?device=phone", None, "bob/phone"),
        ("/subscribe?x=%ff&device=a+b%2Fc%E2%98%8E", None, "bob/a b/c☎"),
        ("/subscribe", Some("phone"), "bob/phone"),
        ("/subscribe", Some("a b%2Fc%E2%98%8E%25"), "bob/a b/c☎%"),
        ("/subscribe/bob/device/phone?device=phone", Some("%70hone"), "bob/phone"),
        // An empty name counts as absent.
        ("/subscribe?device=", Some("phone"), "bob/phone"),
        ("/subscribe?device=phone", Some(""), "bob/phone"),
        ("/subscribe", None, "400 no_device"),
        ("/subscribe", Some(""), "400 no_device"),
        ("/subscribe?device=", None, "400 no_device"),
        ("/subscribe?user=ana", None, "400 no_device"),
        // A parameter that cannot be decoded or is there twice is absent.
        ("/subscribe?device=%ff", None, "400 no_device"),
        ("/subscribe?device=phone&device=phone", None, "400 no_device"),
        ("/subscribe?device=%ff", Some("phone"), "bob/phone"),
        // Two places name different devices.
        ("/subscribe?device=phone", Some("laptop"), "400 invalid_device"),
        ("/subscribe/bob/device/phone?device=laptop", None, "400 invalid_device"),
        ("/subscribe/bob/device/phone", Some("laptop"), "400 invalid_device"),
        ("/subscribe/ana/device/phone?device=laptop", None, "400 invalid_device"),
        // The name is not a valid id.
        ("/subscribe?device=..", None, "400 invalid_device"),
        ("/subscribe?device=%00", None, "400 invalid_device"),
        ("/subscribe/bob/device/%00", Some("phone"), "400 invalid_device"),
        ("/subscribe", Some(".."), "400 invalid_device"),
        ("/subscribe", Some("%0a"), "400 invalid_device"),
        ("/subscribe", Some("%ff"), "400 invalid_device"),
        ("/subscribe", Some(&"x".repeat(257)), "400 invalid_device"),
        // The path names another user. `?user=` is ignored with `--auth claim`.
        ("/subscribe/ana/device/phone", None, "403 forbidden"),
        ("/subscribe?user=ana&device=phone", None, "bob/phone"),
    ] {
        let named = device.map(|device| (DEVICE, device));
        let headers: Vec<_> = [("x-user-claim", BOB)].into_iter().chain(named).collect();
        assert_subscribe(&server, target, &headers, expected).await;
        // Without an identity it is 401: the identity is checked before the names.
        assert_subscribe(&server, target, &headers[1..], "401 unauthenticated").await;
    }
    let twice = [("x-user-claim", BOB), (DEVICE, "phone"), (DEVICE, "phone")];
    assert_subscribe(&server, "/subscribe", &twice, "400 invalid_device").await;
}

#[tokio::test]
async fn an_identity_with_a_device_is_bound_to_it() {
    let server = Server::start().await;
    let phone = claim("bob/phone");
    for (target, device, expected) in [
        ("/subscribe", None, "bob/phone"),
        ("/subscribe", Some("phone"), "bob/phone"),
        ("/subscribe?device=phone", Some(""), "bob/phone"),
        ("/subscribe/bob/device/phone?device=phone", Some("phone"), "bob/phone"),
        ("/subscribe", Some("laptop"), "403 forbidden"),
        ("/subscribe?device=laptop", None, "403 forbidden"),
        ("/subscribe/bob/device/laptop", None, "403 forbidden"),
        ("/subscribe?device=phone", Some("laptop"), "400 invalid_device"),
        ("/subscribe", Some("%00"), "400 invalid_device"),
    ] {
        let named = device.map(|device| (DEVICE, device));
        let headers: Vec<_> = [("x-user-claim", phone.as_str())].into_iter().chain(named).collect();
        assert_subscribe(&server, target, &headers, expected).await;
    }
}

#[tokio::test]
async fn with_auth_none_path_and_query_name_the_caller_and_must_agree() {
    let server = Server::with(&["--auth", "none"]).await;
    let (ana, ana_phone) = (r#"{"userid":"ana"}"#, claim("ana/phone"));
    for (target, claim, device, expected) in [
        ("/subscribe?user=bob&device=phone", None, None, "bob/phone"),
        ("/subscribe?user=a+b&device=%E2%98%8E", None, None, "a b/☎"),
        ("/subscribe?user=bob", None, Some("phone"), "bob/phone"),
        ("/subscribe/bob/device/phone", None, None, "bob/phone"),
        ("/subscribe/bob/device/phone?user=bob&device=phone", None, Some("phone"), "bob/phone"),
        ("/subscribe/bob/device/phone?user=ana", None, None, "403 forbidden"),
        ("/subscribe/bob/device/phone?device=laptop", None, None, "403 forbidden"),
        ("/subscribe/bob/device/phone", None, Some("laptop"), "400 invalid_device"),
        ("/subscribe?user=bob&device=phone", None, Some("laptop"), "400 invalid_device"),
        ("/subscribe?user=bob", None, None, "400 no_device"),
        ("/subscribe?user=..&device=phone", None, None, "400 invalid_user"),
        ("/subscribe?user=bob&device=..", None, None, "400 invalid_device"),
        // No user is named.
        ("/subscribe?device=phone", None, None, "401 unauthenticated"),
        ("/subscribe?user=&device=phone", None, None, "401 unauthenticated"),
        ("/subscribe?user=%ff&device=phone", None, None, "401 unauthenticated"),
        ("/subscribe?user=bob&user=bob&device=phone", None, None, "401 unauthenticated"),
        ("/subscribe", None, Some("phone"), "401 unauthenticated"),
        // A claim names the caller when path and query do not.
        ("/subscribe", Some(ana_phone.as_str()), None, "ana/phone"),
        ("/subscribe?device=laptop", Some(ana), None, "ana/laptop"),
        ("/subscribe?device=laptop", Some(&ana_phone), None, "403 forbidden"),
        ("/subscribe?user=bob&device=laptop", Some(&ana_phone), None, "bob/laptop"),
        ("/subscribe?user=bob&device=phone", Some("no claim"), None, "401 unauthenticated"),
    ] {
        let headers: Vec<_> = [("x-user-claim", claim), (DEVICE, device)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        assert_subscribe(&server, target, &headers, expected).await;
    }
    // Here `user` names whom to list.
    let listed = server.request("GET /devices?user=bob&user=ana&device=x", &[], b"").await;
    assert_eq!((listed.status, listed.text().as_str()), (200, r#"{"ana":[],"bob":[]}"#));
}

/// What the envelope of a POST with this query and these headers says about its sender, or the status and code of the refusal.
async fn sender(server: &Server, phone: &mut Sse, query: &str, headers: &[(&str, &str)]) -> Result<String, String> {
    let headers = [&[("content-type", FORM)], headers].concat();
    let sent = server.request(&format!("POST /user/bob/device/phone{query}"), &headers, b"data=x").await;
    if sent.status != 200 {
        return Err(format!("{} {}", sent.status, sent.problem()));
    }
    let envelope: serde_json::Value = serde_json::from_str(&phone.data().await).expect("JSON");
    Ok(envelope["from"].to_string())
}

#[tokio::test]
async fn a_sender_needs_no_device_and_may_name_one() {
    let server = Server::start().await;
    let mut phone = server.sse_with("bob/phone", "/subscribe?format=envelope", &[]).await;
    let mut laptop = server.grpc_stream("bob/laptop", "").await.expect("a stream");
    let (ana, bound) = (r#"{"userid":"ana"}"#, claim("ana/tablet"));
    for (query, claim, device, from) in [
        ("", Some(ana), None, Ok(r#"{"device":null,"user":"ana"}"#)),
        ("?device=", Some(ana), Some(""), Ok(r#"{"device":null,"user":"ana"}"#)),
        ("?device=%ff", Some(ana), None, Ok(r#"{"device":null,"user":"ana"}"#)),
        ("?device=tablet", Some(ana), None, Ok(r#"{"device":"tablet","user":"ana"}"#)),
        ("", Some(ana), Some("%E2%98%8E"), Ok(r#"{"device":"☎","user":"ana"}"#)),
        ("", Some(&bound), Some("tablet"), Ok(r#"{"device":"tablet","user":"ana"}"#)),
        ("", Some(&bound), Some("phone"), Err("403 forbidden")),
        ("?device=phone", Some(ana), Some("tablet"), Err("400 invalid_device")),
        ("", Some(ana), Some(".."), Err("400 invalid_device")),
        // An anonymous sender has no device.
        ("?device=phone", None, Some("phone"), Ok("null")),
        ("", None, Some("%00"), Err("400 invalid_device")),
    ] {
        let headers: Vec<_> = [("x-user-claim", claim), (DEVICE, device)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let expected = from.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(sender(&server, &mut phone, query, &headers).await, expected, "{query} {headers:?}");
        if query.is_empty() {
            let sent = within(server.grpc().await.send(call(message("bob/laptop", "", "x"), &headers))).await;
            let expected = from.map_err(code_of);
            assert_eq!(sent.as_ref().err().map(tonic::Status::code), expected.err(), "{headers:?}");
            if let Ok(from) = expected {
                let from: serde_json::Value = serde_json::from_str(from).expect("JSON");
                let got = laptop.message().await.sender.map(|from| (from.user, from.device));
                let text = |field: &str| from[field].as_str().unwrap_or_default().to_owned();
                assert_eq!(got, (!from.is_null()).then(|| (text("user"), text("device"))), "{headers:?}");
            }
        }
    }
    let listed =
        within(server.grpc().await.list_devices(call(
            ListDevicesRequest { user: "bob".into() },
            &[("x-user-claim", &bound), (DEVICE, "phone")],
        )))
        .await;
    assert_eq!(listed.expect_err("another device").code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_legacy_format_writes_undefined_for_the_device_of_a_sender_without_one() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    connection.ask("GET /subscribe?format=legacy&device=phone", &[("x-user-claim", BOB)]).await;
    assert_eq!(connection.head().await.status, 200);
    assert_eq!(connection.chunk().await.as_deref(), Some(&b":\n\n"[..]));
    let headers = [("x-user-claim", r#"{"userid":"ana"}"#), ("content-type", FORM)];
    assert_eq!(server.request("POST /user/bob/device/phone", &headers, b"data=x").await.status, 200);
    let event = String::from_utf8(connection.chunk().await.expect("an event")).expect("UTF-8");
    assert_eq!(event, "id: ana:undefined\nevent: undefined\ndata: x\n\n");
}

#[tokio::test]
async fn with_auth_none_the_query_names_the_sender() {
    let server = Server::with(&["--auth", "none"]).await;
    let mut phone = Sse::open(server.address, "/subscribe/bob/device/phone?format=envelope", &[]).await;
    for (query, from) in [
        ("?user=ana&device=tablet", r#"{"device":"tablet","user":"ana"}"#),
        ("?user=ana", r#"{"device":null,"user":"ana"}"#),
        ("?device=tablet", "null"),
        ("", "null"),
    ] {
        assert_eq!(sender(&server, &mut phone, query, &[]).await.as_deref(), Ok(from), "{query}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_send_the_device_header() {
    let server = Server::start().await;
    let asked = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "x-signal-device,x-signal-tenant"),
    ];
    let answer = server.request("OPTIONS /subscribe", &asked, b"").await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-headers")),
        (204, "x-signal-device,x-signal-tenant")
    );
}
