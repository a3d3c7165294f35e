//! While the daemon or the login service is down: browsers stay, and nobody takes a failure for a delivery.

use super::{ACCEPT, SetUp, blocks, daemon, section, session};
use crate::harness::{FORM, Response, Sse, event_stream::Parser, grpc::message, http2::Http2, until, within};

const STREAM: &str = "GET /subscribe?device=phone";

/// Asserts that an `EventSource` comes back later.
fn assert_comes_back(answer: &Response) {
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let mut parser = Parser::default();
    assert_eq!(parser.push(&answer.body), []);
    assert!(parser.retry.is_some_and(|after| (2_000..=5_000).contains(&after)), "{:?}", answer.text());
}

/// Requests that must not get a 200 while the daemon is down.
async fn assert_others_fail(set_up: &SetUp) {
    let cookie = session("ana");
    let form = ("content-type", FORM);
    for (head, headers, body) in [
        ("POST /user/bob/device/phone", &[form][..], &b"data=x"[..]),
        // An EventSource never posts, whatever a client says that it accepts.
        ("POST /user/bob/device/phone", &[form, ACCEPT], b"data=x"),
        ("POST /user/bob/devices", &[form, ACCEPT], b"data=x"),
        ("GET /user/bob/devices", &[("accept", "application/json")], b""),
        ("GET /user/bob/devices", &[], b""),
        ("GET /healthz", &[("accept", "*/*")], b""),
    ] {
        let headers = [headers, &[("cookie", &cookie)]].concat();
        assert_eq!(set_up.ask(head, &headers, body).await.status, 502, "{head} {headers:?}");
    }
    let mut http2 = Http2::open(set_up.http2.address).await;
    let request = http::Request::post(http2.uri("/user/bob/device/phone")).header("cookie", &cookie);
    let request = request.header("content-type", FORM).body(axum::body::Body::from("data=x")).expect("a request");
    assert_eq!(http2.send(request).await.status(), 502);
    let mut request = tonic::Request::new(message("bob/phone", "", "x"));
    request.metadata_mut().insert("cookie", cookie.parse().expect("ASCII"));
    let refused = within(set_up.grpc().await.send(request)).await.expect_err("down");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
}

#[tokio::test]
async fn while_the_daemon_is_down_an_event_source_comes_back_and_a_post_is_502() {
    let Some(mut set_up) = SetUp::start("down").await else { return };
    let stream = set_up.stream("bob", "phone").await;
    let (cookie, address) = (session("bob"), set_up.daemon.address);
    set_up.daemon.signal("TERM");
    // The end of the drain reaches the browser through nginx.
    assert_eq!(stream.end().await, "draining");
    until(async || tokio::net::TcpStream::connect(address).await.is_err(), |down| *down).await;
    for (head, origin) in [(STREAM, "https://signal.example.org"), ("GET /user/bob/devices", "")] {
        let answer = set_up.ask(head, &[("cookie", &cookie), ACCEPT, ("origin", origin)], b"").await;
        assert_comes_back(&answer);
        // A page of another origin could not read the stream without this, and would not come back.
        assert_eq!(answer.header("access-control-allow-origin"), origin);
    }
    let answer = set_up.ask(STREAM, &[("cookie", &cookie), ("accept", "Text/Event-Stream")], b"").await;
    assert_comes_back(&answer);
    assert_eq!(set_up.ask(STREAM, &[ACCEPT], b"").await.status, 401, "who has no session has nothing to come back for");
    assert_others_fail(&set_up).await;
    set_up.daemon = daemon(section("Behind nginx"), address.port(), "");
    let stream = Sse::open(set_up.http1.address, "/subscribe?device=phone", &[("cookie", &cookie), ACCEPT]).await;
    assert_eq!(stream.ready["continuity"], "new");
    assert_eq!(set_up.post("ana", "bob/phone", "x").await, 200);
}

#[tokio::test]
async fn while_the_login_service_is_down_an_event_source_comes_back_and_a_post_fails() {
    let Some(set_up) = SetUp::start("login").await else { return };
    let _phone = set_up.stream("bob", "phone").await;
    set_up.login.stop();
    // A connection that nginx keeps may still get one answer.
    until(|| set_up.post("ana", "bob/phone", "x"), |status| *status != 200).await;
    let cookie = session("bob");
    assert_comes_back(&set_up.ask("GET /user/bob/devices", &[("cookie", &cookie), ACCEPT], b"").await);
    assert_others_fail(&set_up).await;
}

#[test]
fn nginx_waits_longer_for_a_stream_than_its_longest_heartbeat() {
    let configuration = blocks(section("Behind nginx"), "nginx")[0];
    let waits = configuration.lines().filter_map(|line| line.trim().strip_prefix("proxy_read_timeout "));
    let waits: Vec<u32> = waits.filter_map(|rest| rest.split("s;").next()?.parse().ok()).collect();
    assert!(!waits.is_empty() && waits.iter().all(|seconds| *seconds > 66), "{waits:?}");
}

#[tokio::test]
async fn what_the_daemon_answers_is_not_replaced() {
    let Some(set_up) = SetUp::start("answers").await else { return };
    let cookie = session("ana");
    let headers = [("cookie", cookie.as_str()), ("content-type", FORM)];
    let absent = set_up.ask("POST /user/bob/device/phone", &headers, b"data=x").await;
    assert_eq!((absent.status, absent.problem().as_str()), (404, "not_connected"));
    let large = [b"data=", &vec![b'x'; 200_000][..]].concat();
    let refused = set_up.ask("POST /user/bob/device/phone", &headers, &large).await;
    assert_eq!((refused.status, refused.problem().as_str()), (413, "too_large"));
    let forbidden = set_up.ask("GET /subscribe/bob/device/phone", &[("cookie", &cookie), ACCEPT], b"").await;
    assert_eq!((forbidden.status, forbidden.problem().as_str()), (403, "forbidden"));
}
