//! The HTTP API, route by route.

use crate::harness::{
    Connection, FORM, JSON, Response, Server, Sse, claim,
    frames::{self, DATA, END_HEADERS, Frames, HEADERS, PING, RST_STREAM},
    grpc::{framed, message},
    path, until,
};

async fn post_json(server: &Server, body: &str) -> Response {
    server.request("POST /user/bob/device/phone", &[("content-type", JSON)], body.as_bytes()).await
}

#[tokio::test]
async fn a_post_is_delivered_as_json_or_as_a_form() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for (body, kind, event, data) in [
        (r#"{"data":"a"}"#, JSON, "message", "a"),
        (r#" {"data":"b","event":"offer","unknown":[{}]} "#, "application/json; charset=utf-8", "offer", "b"),
        (
            r#"{"event":null,"data":{ "z": [1.0, 1e3], "a": "\u00e9\"" }}"#,
            JSON,
            "message",
            r#"{"z":[1.0,1e3],"a":"\u00e9\""}"#,
        ),
        (r#"{"data":false}"#, JSON, "message", "false"),
        (r#"{"data":12345678901234567890123}"#, JSON, "message", "12345678901234567890123"),
        ("data=a+b%26c&event=x.y_z:1-2", FORM, "x.y_z:1-2", "a b&c"),
    ] {
        let answer = server.request("POST /user/bob/device/phone", &[("content-type", kind)], body.as_bytes()).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{body}");
        let found = phone.message().await;
        assert_eq!((found.name.as_str(), found.data.as_str()), (event, data), "{body}");
    }
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_400_and_is_not_echoed() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    let deep = format!(r#"{{"data":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    for (body, code) in [
        (r"{}", "no_data"),
        ("", "no_data"),
        (r#"{"data":null}"#, "no_data"),
        (r#"{"data":""}"#, "no_data"),
        (r#"{"data":"secret","event":"a b"}"#, "invalid_event"),
        (r#"{"data":"secret","event":""}"#, "invalid_event"),
        (r#"{"data":"secret","event":"a\nb"}"#, "invalid_event"),
        (r#"{"data":"secret","event":"signal.ready"}"#, "invalid_event"),
        (&format!(r#"{{"data":"secret","event":"{}"}}"#, "e".repeat(65)), "invalid_event"),
        (r#"{"data":"secret","event":7}"#, "malformed_body"),
        (r#"{"data":"secret""#, "malformed_body"),
        (r#"{"data":"secret"}x"#, "malformed_body"),
        (r#"["secret"]"#, "malformed_body"),
        (r#""secret""#, "malformed_body"),
        (r#"{"data":"a","data":"secret"}"#, "malformed_body"),
        ("\u{feff}{\"data\":\"secret\"}", "malformed_body"),
        (r#"{"data":"\ud800"}"#, "malformed_body"),
        (r#"{"data":{"secret":"\ud800"}}"#, "malformed_body"),
        (&deep, "malformed_body"),
    ] {
        let answer = post_json(&server, body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, code), "{body:.80}");
        assert!(!answer.text().contains("secret"));
    }
    let utf16: Vec<u8> = r#"{"data":"a"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let answer = server.request("POST /user/bob/device/phone", &[("content-type", JSON)], &utf16).await;
    assert_eq!(answer.problem(), "malformed_body");
    for body in ["event=x", "", "data="] {
        let answer = server.request("POST /user/bob/device/phone", &[("content-type", FORM)], body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "no_data"), "{body}");
    }
    let answer = server.request("POST /user/bob/device/phone", &[("content-type", FORM)], b"data=%ff").await;
    assert_eq!(answer.problem(), "malformed_body");
}

#[tokio::test]
async fn json_that_was_read_as_a_form_is_400_and_says_which_content_type_to_send() {
    let server = Server::start().await;
    for (body, says) in [(r#"{"data":"hi"}"#, true), ("event=x", true), ("data=", false), ("", false)] {
        let answer = server.request("POST /user/bob/device/phone", &[("content-type", FORM)], body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "no_data"), "{body}");
        assert_eq!(answer.text().contains("content-type: application/json"), says, "{body}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_body_of_an_unsupported_type_is_415() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    let post = async |headers: &[(&str, &str)], body: &[u8]| {
        let answer = server.request("POST /user/bob/device/phone", headers, body).await;
        (answer.status, answer.problem())
    };
    let (unsupported, no_data) = ((415, "unsupported_media_type".into()), (400, "no_data".into()));
    assert_eq!(post(&[], b"").await, no_data);
    assert_eq!(post(&[("content-type", "text/plain")], b"").await, no_data);
    assert_eq!(post(&[], b"data=a").await, unsupported);
    assert_eq!(post(&[("content-type", "text/plain")], b"data=a").await, unsupported);
    assert_eq!(post(&[("content-type", JSON), ("content-encoding", "gzip")], br#"{"data":1}"#).await, unsupported);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_one_at_the_limit_is_delivered() {
    let server = Server::with(&["--body-limit", "1000"]).await;
    let mut phone = server.sse("bob/phone").await;
    let fits = format!("data={}", "x".repeat(995));
    let answer = server.request("POST /user/bob/device/phone", &[("content-type", FORM)], fits.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(phone.data().await.len(), 995);
    let answer = server.request("POST /user/bob/device/phone", &[("content-type", FORM)], &[b'x'; 1001]).await;
    assert_eq!((answer.status, answer.problem().as_str(), answer.header("connection")), (413, "too_large", "close"));
    let mut connection = Connection::open(server.address).await;
    connection.ask("POST /user/bob/device/phone", &[("content-type", FORM), ("transfer-encoding", "chunked")]).await;
    for _ in 0..3 {
        connection.write(format!("190\r\n{}\r\n", "x".repeat(0x190)).as_bytes()).await;
    }
    assert_eq!(connection.response(false).await.status, 413);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408_and_half_a_body_queues_nothing() {
    let server = Server::with(&["--body-timeout", "0.3"]).await;
    let mut phone = server.sse("bob/phone").await;
    for expect in [&[][..], &[("expect", "100-continue")]] {
        let mut connection = Connection::open(server.address).await;
        let headers = [&[("content-type", FORM), ("content-length", "100")], expect].concat();
        connection.ask("POST /user/bob/device/phone", &headers).await;
        if !expect.is_empty() {
            assert_eq!(connection.head().await.status, 100);
        }
        let answer = connection.response(false).await;
        assert_eq!(
            (answer.status, answer.problem().as_str(), answer.header("connection")),
            (408, "request_timeout", "close")
        );
        assert_eq!(connection.closed().await, b"");
    }
    let mut connection = Connection::open(server.address).await;
    connection.ask("POST /user/bob/device/phone", &[("content-type", FORM), ("content-length", "100")]).await;
    connection.write(b"data=half").await;
    drop(connection);
    assert_eq!(server.post("bob/phone", "whole").await.status, 200);
    assert_eq!(phone.data().await, "whole");
}

#[tokio::test]
async fn a_post_whose_body_comes_late_leaves_its_connection_usable() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let mut connection = server.waits_for_body().await;
    connection.write(b"data=one").await;
    assert_eq!(connection.response(false).await.status, 200);
    assert_eq!(phone.data().await, "one");
    let answer = connection.request("POST /user/bob/device/phone", &[("content-type", FORM)], b"data=two").await;
    assert_eq!((answer.status, phone.data().await.as_str()), (200, "two"));
}

#[tokio::test]
async fn a_request_that_is_reset_before_its_end_sends_no_message() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let call = framed(&message("bob/phone", "", "all of it, but no end"));
    let requests = [
        (frames::post("/user/bob/device/phone", &[("content-type", FORM)]), &b"data=half"[..]),
        (
            frames::post("/user/bob/device/phone", &[("content-type", FORM), ("origin", "https://a.example")]),
            b"data=half",
        ),
        (
            frames::post("/backend_signal.v1.Signal/Send", &[("content-type", "application/grpc"), ("te", "trailers")]),
            &call,
        ),
    ];
    for (head, body) in requests {
        for code in [0_u32, 8] {
            let mut peer = Frames::open(server.address, &[]).await;
            peer.send(HEADERS, END_HEADERS, 1, &head).await;
            peer.send(DATA, 0, 1, body).await;
            peer.send(RST_STREAM, 0, 1, &code.to_be_bytes()).await;
            // The server answers a PING after it has read all earlier frames.
            peer.send(PING, 0, 0, &[1; 8]).await;
            peer.next_of(PING).await.expect("an answer");
        }
    }
    assert_eq!(server.post("bob/phone", "whole").await.status, 200);
    assert_eq!(phone.data().await, "whole");
}

#[tokio::test]
async fn a_connection_serves_another_request_unless_the_response_says_close() {
    let server = Server::with(&["--body-limit", "50000", "--body-timeout", "0.3"]).await;
    // The request, its status, and whether the server decides the status without the body.
    let requests = [
        ("POST /nowhere", 404, true),
        ("PUT /user/bob/device/phone", 405, true),
        ("POST /healthz", 405, true),
        ("POST /backend_signal.v1.Signal/Send", 415, true),
        ("POST /user/bob/device/phone", 404, false),
        ("GET /subscribe", 401, true),
        ("GET /user/bob/devices", 200, false),
    ];
    for (head, status, without_body) in requests {
        let mut connection = Connection::open(server.address).await;
        let headers = [("content-type", FORM), ("content-length", "50000")];
        connection.ask(head, &headers).await;
        // The server answers this later request after it has read the head above.
        assert_eq!(server.request("GET /healthz", &[], b"").await.status, 200);
        connection.write(format!("data={}", "x".repeat(49_995)).as_bytes()).await;
        assert_eq!(connection.response(false).await.status, status, "{head}");
        assert_eq!(connection.request("GET /healthz", &[], b"").await.status, 200, "after {head}");
        // A body longer than the server reads, and a body shorter than its content-length.
        for (length, error) in [("60000", 413), ("49999", 408)] {
            let mut connection = Connection::open(server.address).await;
            connection.ask(head, &[("content-type", FORM), ("content-length", length)]).await;
            let answer = connection.response(false).await;
            let status = if without_body { status } else { error };
            assert_eq!((answer.status, answer.header("connection")), (status, "close"), "{head} of {length}");
            assert_eq!(connection.closed().await, b"");
        }
    }
}

#[tokio::test]
async fn a_stream_whose_request_does_not_end_does_not_begin() {
    let server = Server::with(&["--body-timeout", "0.3"]).await;
    for waits in [false, true] {
        let mut connection = Connection::open(server.address).await;
        connection.ask("GET /subscribe", &[("x-user-claim", &claim("bob/phone")), ("content-length", "5")]).await;
        if waits {
            assert_eq!(connection.response(false).await.status, 408);
        }
    }
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    let mut connection = Connection::open(server.address).await;
    connection.ask("GET /subscribe", &[("x-user-claim", &claim("bob/phone")), ("content-length", "5")]).await;
    connection.write(b"hello").await;
    assert_eq!(connection.head().await.status, 200);
    assert_eq!(server.devices("bob").await, r#"["phone"]"#);
    drop(connection);
    until(|| server.devices("bob"), |devices| devices == "[]").await;
}

#[tokio::test]
async fn the_response_to_head_of_a_watch_has_no_body() {
    let server = Server::start().await;
    let mut connection = Connection::open(server.address).await;
    let answer = connection.request("HEAD /user/bob/devices", &[("accept", "text/event-stream")], b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(connection.request("GET /healthz", &[], b"").await.status, 200);
}

#[tokio::test]
async fn identity_is_checked_before_the_body_and_the_body_before_the_device() {
    let server = Server::start().await;
    let (no_claim, claim) = (("x-user-claim", "no claim"), claim("ana/laptop"));
    for (claim, body, status) in [
        (no_claim, "event=x", 401),
        (("x-user-claim", &claim), "event=x", 400),
        (("x-user-claim", &claim), "data=x", 404),
    ] {
        let answer =
            server.request("POST /user/bob/device/phone", &[claim, ("content-type", FORM)], body.as_bytes()).await;
        assert_eq!(answer.status, status);
        answer.problem();
    }
}

#[tokio::test]
async fn ids_are_decoded_once_and_work_end_to_end() {
    let server = Server::start().await;
    for (id, encoded) in [
        ("a b", "a%20b"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a+b", "a+b"),
        (":*>?", ":*%3E%3F"),
        ("☎ عربي", "%E2%98%8E%20%D8%B9%D8%B1%D8%A8%D9%8A"),
        (&"x".repeat(256), &"x".repeat(256)),
    ] {
        let claim = serde_json::json!({"userid": "bob", "clientid": id}).to_string();
        let own = format!("/subscribe/bob/device/{encoded}");
        let mut stream = Sse::open(server.address, &own, &[("x-user-claim", &claim)]).await;
        assert_eq!(stream.ready["device"], id);
        assert_eq!(server.devices("bob").await, serde_json::json!([id]).to_string());
        let post = format!("POST /user/bob/device/{encoded}");
        assert_eq!(server.request(&post, &[("content-type", FORM)], b"data=hi").await.status, 200);
        assert_eq!(stream.data().await, "hi");
        drop(stream);
        until(|| server.devices("bob"), |devices| devices == "[]").await;
    }
}

#[tokio::test]
async fn ids_out_of_bounds_are_400() {
    let server = Server::start().await;
    for bad in ["%00", "%0a", "%ff", ".", "..", "%2e%2e", &"x".repeat(257)] {
        let answer =
            server.request(&format!("POST /user/bob/device/{bad}"), &[("content-type", FORM)], b"data=x").await;
        assert_eq!(answer.status, 400, "{bad:.20}");
        answer.problem();
        assert_eq!(server.request(&format!("GET /user/{bad}/devices"), &[], b"").await.status, 400, "{bad:.20}");
    }
}

#[tokio::test]
async fn the_devices_of_a_user_are_listed_sorted_while_they_are_connected() {
    let server = Server::start().await;
    assert_eq!(server.devices("bob").await, "[]");
    let _streams = [server.sse("bob/phone").await, server.sse("bob/Watch").await, server.sse("bobby/phone").await];
    let laptop = server.sse("bob/laptop").await;
    let answer = server.request("GET /user/bob/devices", &[], b"").await;
    assert_eq!((answer.header("content-type"), answer.text().as_str()), (JSON, r#"["Watch","laptop","phone"]"#));
    drop(laptop);
    until(|| server.devices("bob"), |devices| devices == r#"["Watch","phone"]"#).await;
    let answer = server.post("bob/laptop", "hi").await;
    assert_eq!((answer.status, answer.problem().as_str()), (404, "not_connected"));
}

#[tokio::test]
async fn an_unknown_path_or_method_is_a_problem() {
    let server = Server::start().await;
    for (head, status, code) in [
        ("GET /", 404, "no_route"),
        ("POST /user/bob", 404, "no_route"),
        ("GET /subscribe/bob", 404, "no_route"),
        ("PUT /subscribe", 405, "method_not_allowed"),
        ("DELETE /user/bob/device/phone", 405, "method_not_allowed"),
        ("POST /healthz", 405, "method_not_allowed"),
    ] {
        let answer = server.request(head, &[], b"").await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{head}");
        assert_eq!(answer.header("allow").is_empty(), status != 405, "{head}");
    }
}

#[tokio::test]
async fn head_of_a_stream_is_405_and_registers_nothing() {
    let server = Server::start().await;
    let claim = claim("bob/phone");
    for path in ["/subscribe", "/subscribe/bob/device/phone"] {
        let answer = server.request(&format!("HEAD {path}"), &[("x-user-claim", &claim)], b"").await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
    }
    assert_eq!(server.devices("bob").await, "[]");
}

#[tokio::test]
async fn every_response_to_a_browser_carries_cors_headers() {
    let server = Server::with(&["--body-timeout", "0.3", "--body-limit", "100"]).await;
    let _phone = server.sse_with("bob/phone", "/subscribe", &[("origin", "https://a.example")]).await;
    for head in [
        "GET /user/bob/devices",
        "GET /subscribe",
        "GET /nowhere",
        "PUT /subscribe",
        "POST /user/bob/device/x",
        "GET /healthz",
    ] {
        let answer = server.request(head, &[("origin", "https://a.example")], b"").await;
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{head}");
        assert_eq!(answer.header("access-control-allow-credentials"), "", "{head}");
    }
    let big = server.request("POST /user/bob/device/phone", &[("content-type", FORM)], &[b'x'; 200]).await;
    assert_eq!((big.status, big.header("access-control-allow-origin")), (413, "*"));
    // A request without an origin skips the CORS layer, and must get the same headers.
    let mut found = Vec::new();
    for origin in [&[][..], &[("origin", "https://a.example")]] {
        let headers = [&[("content-type", FORM)], origin].concat();
        let answer = server.request("POST /user/bob/device/phone", &headers, b"data=x").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "*"));
        found.push(["access-control-expose-headers", "vary"].map(|name| answer.header(name).to_owned()));
    }
    assert_eq!(found[0], found[1]);
    for path in [path("bob/phone").as_str(), "/subscribe", "/user/bob/devices"] {
        let preflight = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type, x-user-claim"),
            ("x-user-claim", "no claim"),
        ];
        let answer = server.request(&format!("OPTIONS {path}"), &preflight, b"").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, "*"));
        assert_eq!(answer.header("access-control-allow-methods"), "GET,POST");
        assert_eq!(answer.header("access-control-allow-headers"), "content-type, x-user-claim");
    }
}

#[tokio::test]
async fn only_configured_origins_are_allowed_and_may_send_credentials() {
    let server = Server::with(&["--cors-origins", "https://a.example,http://localhost:8080"]).await;
    for (origin, allowed) in
        [("https://a.example", true), ("http://localhost:8080", true), ("https://a.example.org", false)]
    {
        let answer = server.request("GET /user/bob/devices", &[("origin", origin)], b"").await;
        let found = ["access-control-allow-origin", "access-control-allow-credentials"].map(|name| answer.header(name));
        // Without an allowed origin, a browser ignores the second header.
        assert_eq!(found, [if allowed { origin } else { "" }, "true"]);
    }
}

#[tokio::test]
async fn operators_get_health_readiness_and_metrics() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    assert_eq!(server.post("bob/phone", "hi").await.status, 200);
    assert_eq!(server.post("bob/none", "hi").await.status, 404);
    for probe in ["GET /healthz", "GET /readyz"] {
        assert_eq!(server.request(probe, &[], b"").await.status, 200);
    }
    let metrics = server.request("GET /metrics", &[], b"").await.text();
    for line in [
        "signal_streams 1",
        "signal_mailboxes 1",
        // 2 bytes of data, 128 for the message, 64 for its place in the mailbox.
        "signal_mailbox_bytes 194",
        r#"signal_sends_total{outcome="delivered"} 1"#,
        r#"signal_sends_total{outcome="not_connected"} 1"#,
        r#"signal_requests_total{route="/user/{user}/device/{device}",status="404"} 1"#,
        r#"signal_streams_opened_total{continuity="new"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}
