//! Identities: claims, trusted proxies, and the modes of `--auth`.

use backend_signal::grpc::proto::{ListDevicesRequest, SubscribeRequest};
use tonic::{Code, Request};

use crate::harness::{
    Connection, FORM, Response, Server, claim,
    frames::{self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS},
    grpc::{claimed, framed, message},
    within,
};

async fn subscribe(server: &Server, claims: &[(&str, &str)]) -> Response {
    // The format does not exist, so a valid identity gets 400 instead of a stream that stays open.
    server.request("GET /subscribe?format=none", claims, b"").await
}

#[tokio::test]
async fn a_claim_that_is_not_valid_is_401_everywhere() {
    let server = Server::start().await;
    let long = format!(r#"{{"userid":"bob","clientid":"phone","x":"{}"}}"#, "x".repeat(4_096));
    let nested = format!(r#"{{"userid":"bob","clientid":"phone","x":{}"#, "[".repeat(3_000));
    for bad in [
        "",
        "bob",
        "7",
        "null",
        r#"["bob","phone"]"#,
        r#"{"clientid":"phone"}"#,
        r#"{"userid":"bob","clientid":null}"#,
        r#"{"userid":"bob","clientid":""}"#,
        r#"{"userid":"bob","clientid":true}"#,
        r#"{"userid":"bob","clientid":{}}"#,
        r#"{"userid":"bob","clientid":"phone""#,
        r#"{"userid":"bob","clientid":"phone"}{}"#,
        r#"{"userid":"bob","clientid":"phone","clientid":"phone"}"#,
        r#"{"userid":"bob","clientid":"a\nb"}"#,
        r#"{"userid":"..","clientid":"phone"}"#,
        r#"{"userid":"bob","clientid":"\udc00"}"#,
        &format!(r#"{{"userid":"bob","clientid":"{}"}}"#, "x".repeat(257)),
        &long,
        &nested,
    ] {
        let claim = [("x-user-claim", bad)];
        let answer = subscribe(&server, &claim).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{bad:.60}");
        assert_eq!(server.request("GET /user/bob/devices", &claim, b"").await.status, 401, "{bad:.60}");
        let post = server.request("POST /user/bob/device/phone", &[claim[0], ("content-type", FORM)], b"data=x").await;
        assert_eq!(post.status, 401, "{bad:.60}");
        let mut request = Request::new(SubscribeRequest::default());
        request.metadata_mut().insert("x-user-claim", bad.parse().expect("ASCII"));
        let refused = within(server.grpc().await.subscribe(request)).await.expect_err("no claim");
        assert_eq!(refused.code(), Code::Unauthenticated, "{bad:.60}");
    }
}

#[tokio::test]
async fn a_second_claim_is_401_and_counted() {
    let server = Server::start().await;
    let claim = claim("bob/phone");
    for other in ["x-user-claim", "X-User-Claim", "X_User_Claim", "X.User.Claim", "x-user_claim"] {
        let answer = subscribe(&server, &[("x-user-claim", &claim), (other, &claim)]).await;
        assert_eq!(answer.status, 401, "{other}");
    }
    let metrics = server.request("GET /metrics", &[], b"").await.text();
    assert!(metrics.contains("signal_refused_identities_total 5"), "{metrics}");
}

#[tokio::test]
async fn a_single_claim_line_with_a_similar_name_is_401_and_the_error_says_so() {
    let server = Server::start().await;
    for name in ["X_User_Claim", "X.User.Claim", "x-user_claim"] {
        let answer = subscribe(&server, &[(name, &claim("bob/phone"))]).await;
        assert_eq!(answer.status, 401, "{name}");
        assert!(answer.text().contains("or a header with a similar name"), "{}", answer.text());
    }
}

#[tokio::test]
async fn an_id_in_a_claim_is_a_number_or_utf_8_text() {
    let server = Server::start().await;
    let mut connection = crate::harness::Sse::open(
        server.address,
        "/subscribe/12345678901234567890/device/%C3%A9",
        &[("x-user-claim", r#"{"userid":12345678901234567890,"clientid":"é"}"#)],
    )
    .await;
    assert_eq!(connection.ready["user"], "12345678901234567890");
    let post = "POST /user/12345678901234567890/device/%c3%a9";
    assert_eq!(server.request(post, &[("content-type", FORM)], b"data=hi").await.status, 200);
    assert_eq!(connection.data().await, "hi");
}

#[tokio::test]
async fn a_subscribe_needs_a_claim_and_its_path_must_agree_with_the_claim() {
    let server = Server::start().await;
    assert_eq!(subscribe(&server, &[]).await.status, 401);
    let claim = claim("bob/phone");
    for (path, status) in [
        ("/subscribe/bob/device/laptop", 403),
        ("/subscribe/ana/device/phone", 403),
        ("/subscribe/bob/device/%00", 400),
        ("/subscribe/Bob/device/phone", 403),
    ] {
        let answer = server.request(&format!("GET {path}"), &[("x-user-claim", &claim)], b"").await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(server.request(&format!("GET {path}"), &[], b"").await.status, 401, "{path}");
    }
    let refused = within(server.grpc().await.subscribe(SubscribeRequest::default())).await.expect_err("no claim");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn require_claim_all_refuses_anonymous_callers_everywhere_but_for_health_and_metrics() {
    let server = Server::with(&["--require-claim", "all"]).await;
    assert_eq!(server.request("GET /user/bob/devices", &[], b"").await.status, 401);
    assert_eq!(server.post("bob/phone", "hi").await.status, 401);
    assert_eq!(server.grpc_send("bob/phone", "hi").await, Err(Code::Unauthenticated));
    for open in ["GET /healthz", "GET /readyz", "GET /metrics"] {
        assert_eq!(server.request(open, &[], b"").await.status, 200);
    }
    let claim = claim("ana/laptop");
    assert_eq!(server.request("GET /user/bob/devices", &[("x-user-claim", &claim)], b"").await.status, 200);
    let server = Server::start().await;
    assert_eq!(server.request("GET /user/bob/devices", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_caller_behind_no_trusted_proxy_is_401() {
    let claim = claim("bob/phone");
    let server = Server::with(&["--trusted-proxies", "10.0.0.0/8,192.0.2.7"]).await;
    assert_eq!(subscribe(&server, &[("x-user-claim", &claim)]).await.status, 401);
    assert_eq!(server.request("GET /user/bob/devices", &[], b"").await.status, 401);
    let mut client = server.grpc().await;
    let refused = within(client.subscribe(claimed("bob/phone", SubscribeRequest::default()))).await;
    assert_eq!(refused.expect_err("not trusted").code(), Code::Unauthenticated);
    assert_eq!(server.request("GET /healthz", &[], b"").await.status, 200);
    let metrics = server.request("GET /metrics", &[], b"").await.text();
    assert!(metrics.contains("signal_refused_identities_total 3"), "{metrics}");
    let server = Server::with(&["--trusted-proxies", "10.0.0.0/8,127.0.0.0/8"]).await;
    assert_eq!(server.sse("bob/phone").await.ready["user"], "bob");
}

#[tokio::test]
async fn with_auth_none_the_path_names_the_subscriber_and_the_claim_names_the_sender() {
    let server = Server::with(&["--auth", "none"]).await;
    let mut phone = crate::harness::Sse::open(server.address, "/subscribe/bob/device/phone?format=envelope", &[]).await;
    assert_eq!(phone.ready["device"], "phone");
    let claim = claim("ana/laptop");
    for (headers, from) in [
        (vec![], serde_json::Value::Null),
        (vec![("x-user-claim", claim.as_str())], serde_json::json!({"user":"ana","device":"laptop"})),
    ] {
        let headers = [vec![("content-type", FORM)], headers].concat();
        assert_eq!(server.request("POST /user/bob/device/phone", &headers, b"data=x").await.status, 200);
        let envelope: serde_json::Value = serde_json::from_str(&phone.data().await).expect("JSON");
        assert_eq!(envelope["from"], from);
    }
    assert_eq!(server.request("GET /subscribe", &[], b"").await.status, 401);
    assert_eq!(subscribe(&server, &[("x-user-claim", "no claim")]).await.status, 401);
}

#[tokio::test]
async fn a_claim_over_4_kib_is_401_and_deep_nesting_does_not_overflow_the_stack() {
    let server = Server::start().await;
    let padded = |length: usize| {
        let shell = r#"{"userid":"bob","clientid":"phone","x":""}"#;
        shell.replace(r#""""#, &format!(r#""{}""#, "x".repeat(length - shell.len())))
    };
    let levels = |open: &str, close: &str| {
        let (open, close) = (open.repeat(2_000 / open.len()), close.repeat(2_000 / open.len()));
        format!(r#"{{"userid":"bob","clientid":"phone","x":{open}1{close}}}"#)
    };
    // The identity is checked before the format, so a valid claim gets 400.
    for (claim, expected) in [
        (padded(4_096), 400),
        (padded(4_097), 401),
        (levels("[", "]"), 400),
        (levels(r#"{"a":"#, "}"), 400),
        ("[".repeat(10_000), 401),
    ] {
        let status = subscribe(&server, &[("x-user-claim", &claim)]).await.status;
        assert_eq!(status, expected, "{} bytes", claim.len());
    }
}

#[tokio::test]
async fn a_claim_that_is_not_utf_8_is_401() {
    let server = Server::start().await;
    for bytes in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xc0\xae", b"\xf4\x90\x80\x80"] {
        let mut connection = Connection::open(server.address).await;
        let head = b"GET /user/bob/devices HTTP/1.1\r\nhost: x\r\nx-user-claim: {\"userid\":\"bob\",\"clientid\":\"";
        connection.write(&[&head[..], bytes, b"\"}\r\n\r\n"].concat()).await;
        let answer = connection.response(false).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthenticated"), "{bytes:?}");
    }
}

#[tokio::test]
async fn every_field_of_a_claim_is_a_string_or_a_number_within_the_bounds_of_an_id() {
    let server = Server::start().await;
    let longest = "x".repeat(256);
    for (value, valid) in [
        (r#""bob""#, true),
        ("7", true),
        ("-1", true),
        (&format!(r#""{longest}""#), true),
        (r#""\u00e9\ud83d\ude00""#, true),
        (r#""""#, false),
        ("null", false),
        ("true", false),
        ("[]", false),
        (r#"["bob"]"#, false),
        ("{}", false),
        (r#"".""#, false),
        (r#""..""#, false),
        (r#""a\u0000""#, false),
        (r#""a\u007f""#, false),
        (r#""a\u0085""#, false),
        (r#""a\r""#, false),
        (r#""\ud83d""#, false),
        (&format!(r#""{longest}x""#), false),
        (&"1".repeat(257), false),
    ] {
        for claim in
            [format!(r#"{{"userid":{value},"clientid":"x"}}"#), format!(r#"{{"clientid":{value},"userid":"x"}}"#)]
        {
            let status = server.request("GET /user/bob/devices", &[("x-user-claim", &claim)], b"").await.status;
            assert_eq!(status, if valid { 200 } else { 401 }, "{claim:.60}");
        }
    }
}

#[tokio::test]
async fn grpc_reads_the_identity_as_http_does() {
    let server = Server::start().await;
    let mut client = server.grpc().await;
    let ask = |lines: &[(&'static str, &str)]| {
        let mut request = Request::new(ListDevicesRequest { user: "bob".into() });
        for (name, value) in lines {
            request.metadata_mut().append(*name, value.parse().expect("ASCII"));
        }
        request
    };
    let bob = claim("bob/phone");
    for other in ["x-user-claim", "x_user_claim", "x.user.claim"] {
        let refused = within(client.list_devices(ask(&[("x-user-claim", &bob), (other, &bob)]))).await;
        assert_eq!(refused.expect_err("two claims").code(), Code::Unauthenticated, "{other}");
    }
    let numbers = ask(&[("x-user-claim", r#"{"userid":1,"clientid":2}"#)]);
    assert!(within(client.list_devices(numbers)).await.is_ok());
    // With --auth none the path of a subscribe names the caller, but the path of a gRPC call names none.
    let server = Server::with(&["--auth", "none"]).await;
    let mut client = server.grpc().await;
    let refused = within(client.subscribe(SubscribeRequest::default())).await.expect_err("no identity");
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(server.grpc_stream("bob/phone", "").await.is_ok());
}

/// A proxy sets the claim header, but does not remove a claim from trailers, so a claim there may be the client's own.
#[tokio::test]
async fn a_claim_in_the_trailers_of_a_call_is_ignored() {
    let server = Server::start().await;
    let mut phone = server.grpc_stream("bob/phone", "").await.expect("a stream");
    let (ana, eve) = (claim("ana/laptop"), claim("eve/laptop"));
    // The header block of the claim alone.
    let trailers = frames::get("/", &[("x-user-claim", &ana)]).split_off(frames::get("/", &[]).len());
    for (claim, sender) in [(None, None), (Some(("x-user-claim", eve.as_str())), Some("eve".to_owned()))] {
        let mut headers = vec![("content-type", "application/grpc"), ("te", "trailers")];
        headers.extend(claim);
        let mut peer = Frames::open(server.address, &[]).await;
        peer.send(HEADERS, END_HEADERS, 1, &frames::post("/backend_signal.v1.Signal/Send", &headers)).await;
        peer.send(DATA, 0, 1, &framed(&message("bob/phone", "", "x"))).await;
        peer.send(HEADERS, END_STREAM | END_HEADERS, 1, &trailers).await;
        assert_eq!(phone.message().await.sender.map(|from| from.user), sender);
    }
}
