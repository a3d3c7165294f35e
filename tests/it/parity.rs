//! HTTP and gRPC give the same errors, the same messages and the same cursors.
//!
//! `NODES=2 cargo test --test it parity -- --skip of_one_node` runs these tests with two nodes behind nginx, which sends each request
//! to a random one.

use backend_signal::grpc::proto::SubscribeRequest;
use tonic::Code;

use crate::harness::{
    FORM, Server, claim,
    grpc::{claimed, message},
    http2::Http2,
    path, within,
};

/// A send that both protocols get.
struct Attempt<'a> {
    claim: Option<&'a str>,
    to: &'a str,
    event: &'a str,
    data: &'a str,
}

/// The answers of both protocols. A request without an origin skips the router, and must get the same answer as one with an origin.
async fn answers(server: &Server, attempt: &Attempt<'_>) -> (u16, Code) {
    let without_origin = answers_with(server, attempt, None).await;
    assert_eq!(answers_with(server, attempt, Some("https://app.example")).await, without_origin);
    without_origin
}

async fn answers_with(server: &Server, attempt: &Attempt<'_>, origin: Option<&str>) -> (u16, Code) {
    let body =
        format!("data={}{}{}", attempt.data, if attempt.event.is_empty() { "" } else { "&event=" }, attempt.event);
    let mut headers = vec![("content-type", FORM)];
    let more = attempt.claim.map(|claim| ("x-user-claim", claim)).into_iter().chain(origin.map(|it| ("origin", it)));
    headers.extend(more.clone());
    let head = format!("POST {}", path(attempt.to));
    let status = server.request(&head, &headers, body.as_bytes()).await.status;
    let mut request = tonic::Request::new(message(attempt.to, attempt.event, attempt.data));
    for (name, value) in more {
        request.metadata_mut().insert(name, value.parse().expect("ASCII"));
    }
    let code = within(server.grpc().await.send(request)).await.map_or_else(|status| status.code(), |_| Code::Ok);
    (status, code)
}

#[tokio::test]
async fn errors_of_a_send_have_their_codes_in_both_protocols() {
    let server = Server::with(&["--body-limit", "1000", "--drain-window", "5"]).await;
    let _phone = server.sse("bob/phone").await;
    let (ok, big) = (Attempt { claim: None, to: "bob/phone", event: "", data: "x" }, "x".repeat(2_000));
    for (attempt, expected) in [
        (Attempt { ..ok }, (200, Code::Ok)),
        (Attempt { data: "", ..ok }, (400, Code::InvalidArgument)),
        (Attempt { event: "signal.x", ..ok }, (400, Code::InvalidArgument)),
        (Attempt { to: "bob/..", ..ok }, (400, Code::InvalidArgument)),
        (Attempt { claim: Some("{}"), ..ok }, (401, Code::Unauthenticated)),
        (Attempt { to: "bob/laptop", ..ok }, (404, Code::NotFound)),
        (Attempt { data: &big, ..ok }, (413, Code::OutOfRange)),
    ] {
        assert_eq!(answers(&server, &attempt).await, expected);
    }
    let (post, send) = ("/user/{user}/device/{device}", "/backend_signal.v1.Signal/Send");
    for (route, status) in [(post, "200"), (post, "404"), (post, "413"), (send, "200"), (send, "NotFound")] {
        let name = format!(r#"signal_requests_total{{route="{route}",status="{status}"}}"#);
        assert_eq!(server.counted(&name).await, 2, "{name}");
    }
    server.drain.start();
    crate::harness::until(|| answers_with(&server, &ok, None), |found| *found == (503, Code::Unavailable)).await;
    assert_eq!(answers(&server, &ok).await, (503, Code::Unavailable));
}

#[tokio::test]
async fn errors_of_a_subscribe_have_their_codes_in_both_protocols() {
    let server = Server::start().await;
    let older = server.sse("bob/phone").await;
    let cursor = older.parser.last_event_id.clone();
    let _newer = server.sse("bob/phone").await;
    let bob = claim("bob/phone");
    for (claim, cursor, expected) in
        [("no claim", "", (401, Code::Unauthenticated)), (bob.as_str(), cursor.as_str(), (204, Code::Aborted))]
    {
        let headers = [("x-user-claim", claim), ("last-event-id", cursor)];
        let status = server.request("GET /subscribe", &headers, b"").await.status;
        let mut request = tonic::Request::new(SubscribeRequest { cursor: cursor.into(), heartbeat: None });
        request.metadata_mut().insert("x-user-claim", claim.parse().expect("ASCII"));
        let code = within(server.grpc().await.subscribe(request)).await.expect_err("refused").code();
        assert_eq!((status, code), expected);
    }
}

#[tokio::test]
async fn a_full_budget_of_one_node_is_unavailable_in_both_protocols() {
    // Two messages take 2 * (128 + 64) bytes and ten bytes of data. The stream reads none of them.
    let server = Server::with(&["--memory-budget", "394", "--stall-timeout", "50"]).await;
    let _unread = Http2::with_window(server.address, 10).await.unread("bob/phone", "/subscribe").await;
    assert_eq!(server.post("bob/phone", "12345678").await.status, 200);
    let refused = server.post("bob/phone", "123").await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "over_memory_budget"));
    let over_grpc = within(server.grpc().await.send(message("bob/phone", "", "123"))).await.expect_err("refused");
    assert_eq!(over_grpc.code(), Code::Unavailable);
    let metadata = over_grpc.metadata().get("retry-after").and_then(|value| value.to_str().ok());
    for seconds in [refused.header("retry-after"), metadata.expect("a time")] {
        assert!(seconds.parse().is_ok_and(|seconds: u32| (2..=6).contains(&seconds)), "{seconds}");
    }
    assert_eq!(server.post("bob/phone", "12").await.status, 200);
}

#[tokio::test]
async fn messages_cross_in_all_four_directions() {
    let server = Server::start().await;
    let mut sse = server.sse("bob/sse").await;
    let mut grpc = server.grpc_stream("bob/grpc", "").await.expect("a stream");
    assert_eq!(server.devices("bob").await, r#"["grpc","sse"]"#);
    assert_eq!(server.grpc_devices("bob").await, ["grpc", "sse"]);
    for round in ["1", "2"] {
        assert_eq!(server.post("bob/sse", &format!("http{round}")).await.status, 200);
        assert!(server.grpc_send("bob/sse", &format!("grpc{round}")).await.is_ok());
        assert_eq!(server.post("bob/grpc", &format!("http{round}")).await.status, 200);
        assert!(server.grpc_send("bob/grpc", &format!("grpc{round}")).await.is_ok());
        for expected in [format!("http{round}"), format!("grpc{round}")] {
            assert_eq!(sse.data().await, expected);
            assert_eq!(grpc.data().await, expected);
        }
    }
}

#[tokio::test]
async fn a_message_has_the_same_cursor_sender_and_time_in_both_protocols() {
    let server = Server::start().await;
    let mut sse = server.sse_with("bob/phone", "/subscribe?format=envelope", &[]).await;
    let start = sse.parser.last_event_id.clone();
    within(server.grpc().await.send(claimed("ana/laptop", message("bob/phone", "offer", "x")))).await.expect("sent");
    let event = sse.message().await;
    let mut grpc = server.grpc_stream("bob/phone", &start).await.expect("the same page");
    let message = grpc.message().await;
    let envelope: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
    assert_eq!((&message.cursor, &message.event, message.data.as_str()), (&event.id, &event.name, "x"));
    let from = message.sender.expect("a sender");
    assert_eq!(envelope["from"], serde_json::json!({"user": from.user, "device": from.device}));
    let sent_at = message.sent_at.expect("a time").to_string();
    assert_eq!(envelope["sent_at"].as_str().expect("a time")[..19], sent_at[..19]);
}
