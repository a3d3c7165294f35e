//! The limits of the HTTP API: the largest accepted and the smallest refused value. And what an error must not repeat.

use std::time::Duration;

use axum::body::Body;

use crate::harness::{Connection, FORM, JSON, Response, Server, claim, http2::Http2, until, within};

const POST: &str = "POST /user/bob/device/phone";

#[tokio::test]
async fn no_error_repeats_input_of_the_request() {
    let server = Server::with(&["--body-limit", "1000", "--body-timeout", "0.3"]).await;
    let _phone = server.sse("bob/phone").await;
    let s3cret = claim("s3cret/s3cret");
    let long = format!("data=s3cret{}", "x".repeat(1_000));
    for (head, headers, body, status) in [
        ("GET /s3cret?s3cret", &[][..], "", 404),
        ("GET /user/s3cret%00/devices", &[], "", 400),
        ("DELETE /user/s3cret/device/s3cret", &[], "", 405),
        ("GET /subscribe?format=s3cret", &[("x-user-claim", s3cret.as_str())], "", 400),
        ("GET /subscribe/ana/device/s3cret", &[("x-user-claim", &s3cret)], "", 403),
        ("GET /subscribe", &[("x-user-claim", "s3cret")], "", 401),
        ("POST /user/s3cret/device/s3cret", &[("content-type", FORM)], "data=s3cret", 404),
        (POST, &[("content-type", "text/s3cret")], "s3cret", 415),
        (POST, &[("content-type", FORM)], "data=x&event=s3cret+s3cret", 400),
        (POST, &[("content-type", JSON)], r#"{"s3cret"#, 400),
        (POST, &[("content-type", FORM), ("ttl", "s3cret")], "data=x", 400),
        (POST, &[("content-type", FORM)], &long, 413),
        ("POST /backend_signal.v1.Signal/Send?s3cret", &[("content-type", "text/s3cret")], "s3cret", 415),
    ] {
        let answer = server.request(head, headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{head}");
        answer.problem();
        assert!(!format!("{:?}{}", answer.headers, answer.text()).contains("s3cret"), "{head}: {answer:?}");
    }
    let mut connection = Connection::open(server.address).await;
    connection.ask(POST, &[("content-type", FORM), ("content-length", "100")]).await;
    connection.write(b"data=s3cret").await;
    let slow = connection.response(false).await;
    assert_eq!((slow.status, slow.text().contains("s3cret")), (408, false));
}

#[tokio::test]
async fn the_default_limit_of_a_body_is_100_kib() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let most = 100 * 1024 - "data=".len();
    let post = async |length| {
        let body = format!("data={}", "x".repeat(length));
        server.request(POST, &[("content-type", FORM)], body.as_bytes()).await
    };
    assert_eq!(post(most).await.status, 200);
    assert_eq!(phone.data().await.len(), most);
    let refused = post(most + 1).await;
    assert_eq!((refused.status, refused.problem().as_str()), (413, "too_large"));
}

#[tokio::test]
async fn an_event_name_has_1_to_64_allowed_characters() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let post = async |name: &str| {
        let body = serde_json::json!({"data": "x", "event": name}).to_string();
        server.request(POST, &[("content-type", JSON)], body.as_bytes()).await
    };
    for name in
        [&"e".repeat(64), "a", "AZaz09._:-", "signal", "signals.x", "Signal.ready", "message", "Error", "opened"]
    {
        assert_eq!(post(name).await.status, 200, "{name}");
        assert_eq!(phone.next().await.name, *name);
    }
    for name in [&"e".repeat(65), "\u{e9}", "a/b", "a\0", "a\r", "signal.", "signal.x", "error", "open", " ", "a,b"] {
        let refused = post(name).await;
        assert_eq!((refused.status, refused.problem().as_str()), (400, "invalid_event"), "{name:?}");
    }
}

#[tokio::test]
async fn a_json_value_that_is_not_a_string_loses_only_its_white_space() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for (written, compact) in [
        ("0", "0"),
        ("-0", "-0"),
        ("1.50", "1.50"),
        ("1e-7", "1e-7"),
        ("true", "true"),
        ("[ ]", "[]"),
        (r#"{ "b" : [ 1 , null ] , "a" : { } }"#, r#"{"b":[1,null],"a":{}}"#),
        (r#"[" a : b "]"#, r#"[" a : b "]"#),
        ("0.1234567890123456789", "0.1234567890123456789"),
    ] {
        let body = format!(r#"{{"data": {written} }}"#);
        assert_eq!(server.request(POST, &[("content-type", JSON)], body.as_bytes()).await.status, 200, "{written}");
        assert_eq!(phone.data().await, compact);
    }
}

#[tokio::test]
async fn a_number_with_an_exponent_is_delivered_unchanged() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    for number in ["1e3", "1E3", "1E+3", "-2.5e10"] {
        let body = format!(r#"{{"data":{number}}}"#);
        assert_eq!(server.request(POST, &[("content-type", JSON)], body.as_bytes()).await.status, 200, "{number}");
        assert_eq!(phone.data().await, number);
    }
}

#[tokio::test]
async fn both_ids_of_a_path_are_checked_on_every_route() {
    let server = Server::start().await;
    let claim = claim("bob/phone");
    for bad in ["%00", "%7f", "%c2%85", "%0d%0a", "%ff", ".", "..", "%2e", &"%e2%82%ac".repeat(86)] {
        for head in [
            format!("POST /user/{bad}/device/phone"),
            format!("POST /user/bob/device/{bad}"),
            format!("POST /user/{bad}/devices"),
            format!("GET /user/{bad}/devices"),
            format!("GET /subscribe/{bad}/device/phone"),
            format!("GET /subscribe/bob/device/{bad}"),
        ] {
            let headers = [("x-user-claim", claim.as_str()), ("content-type", FORM)];
            let body: &[u8] = if head.starts_with("POST") { b"data=x" } else { b"" };
            let answer = server.request(&head, &headers, body).await;
            assert_eq!(answer.status, 400, "{head:.60}");
            assert!(answer.problem().starts_with("invalid_"), "{head:.60}");
        }
    }
    let longest = "%e2%82%ac".repeat(85) + "x";
    assert_eq!(server.request(&format!("GET /user/{longest}/devices"), &[], b"").await.text(), "[]");
}

/// The limit counts the path too.
#[tokio::test]
async fn a_head_over_32_kib_is_431() {
    let server = Server::start().await;
    let head = format!("GET /user/{}/devices", "x".repeat(70_000));
    assert_eq!(server.request(&head, &[], b"").await.status, 431);
}

#[tokio::test]
async fn a_body_that_arrives_byte_by_byte_is_408_after_the_timeout() {
    let server = Server::with(&["--body-timeout", "0.5"]).await;
    let _phone = server.sse("bob/phone").await;
    let mut connection = Connection::open(server.address).await;
    connection.ask(POST, &[("content-type", FORM), ("content-length", "10000")]).await;
    let answer = loop {
        // Ignore errors: the server may close the connection during this write.
        let _ = connection.stream.try_write(b"x");
        let pause = tokio::time::timeout(Duration::from_millis(50), connection.stream.readable()).await;
        if pause.is_ok() {
            break connection.response(false).await;
        }
    };
    assert_eq!((answer.status, answer.header("connection")), (408, "close"));
}

#[tokio::test]
async fn deeply_nested_json_is_400_and_does_not_overflow_the_stack() {
    let server = Server::with(&["--body-limit", "262144"]).await;
    let mut phone = server.sse("bob/phone").await;
    for body in [
        "[".repeat(200_000),
        format!(r#"{{"data":{}"#, "[".repeat(200_000)),
        format!(r#"{{"data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)),
        format!(r#"{{"data":{}1{}}}"#, r#"{"a":"#.repeat(40_000), "}".repeat(40_000)),
    ] {
        let answer = server.request(POST, &[("content-type", JSON)], body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed_body"), "{body:.20}");
    }
    assert_eq!(server.post("bob/phone", "alive").await.status, 200);
    assert_eq!(phone.data().await, "alive");
}

#[tokio::test]
async fn streams_and_errors_carry_cors_headers() {
    let server = Server::with(&["--body-timeout", "0.3"]).await;
    let origin = ("origin", "https://a.example");
    let bob = claim("bob/phone");
    let mut stream = Connection::open(server.address).await;
    stream.ask("GET /subscribe", &[origin, ("x-user-claim", &bob)]).await;
    assert_eq!(cors(&stream.head().await), (200, "*".into()));
    let seen = server.sse("bob/laptop").await.parser.last_event_id;
    let _newer = server.sse("bob/laptop").await;
    let laptop = claim("bob/laptop");
    let headers = [origin, ("x-user-claim", &laptop), ("last-event-id", &seen)];
    assert_eq!(cors(&server.request("GET /subscribe", &headers, b"").await), (204, "*".into()));
    let mut slow = Connection::open(server.address).await;
    slow.ask(POST, &[origin, ("content-type", FORM), ("content-length", "9")]).await;
    assert_eq!(cors(&slow.response(false).await), (408, "*".into()));
    let headers = [origin, ("content-type", "text/plain")];
    assert_eq!(cors(&server.request("POST /backend_signal.v1.Signal/Send", &headers, b"x").await), (415, "*".into()));
    server.drain.start();
    let headers = [origin, ("content-type", FORM)];
    until(async || cors(&server.request(POST, &headers, b"data=x").await), |found| *found == (503, "*".into())).await;
}

fn cors(answer: &Response) -> (u16, String) {
    (answer.status, answer.header("access-control-allow-origin").to_owned())
}

#[tokio::test]
async fn over_http_2_errors_have_the_same_statuses_and_the_connection_stays_open() {
    let server = Server::with(&["--body-limit", "1000", "--body-timeout", "0.3"]).await;
    let mut phone = server.sse("bob/phone").await;
    let mut connection = Http2::open(server.address).await;
    let uri = connection.uri("/user/bob/device/phone");
    let (never, _kept) = crate::harness::http2::body_without_end();
    for (kind, body, status) in [
        (FORM, Body::from("data="), 400),
        ("text/plain", Body::from("x"), 415),
        (FORM, Body::from(vec![b'x'; 1_001]), 413),
        (FORM, never, 408),
        (FORM, Body::from("data=x"), 200),
    ] {
        let request = http::Request::post(&uri).header("content-type", kind).body(body).expect("a request");
        let answer = connection.send(request).await;
        assert_eq!((answer.status().as_u16(), answer.headers().get("connection")), (status, None));
        within(axum::body::to_bytes(Body::new(answer.into_body()), 1 << 16)).await.expect("a body");
    }
    assert_eq!(phone.data().await, "x");
}
