//! The limits of one user and of one caller: past a limit the answer says so, and all others are served.

use backend_signal::grpc::proto::{BroadcastRequest, SendRequest, WatchDevicesRequest};
use tonic::Code;

use crate::harness::{
    Connection, FORM, Response, Server, Sse, claim,
    grpc::{claimed, message},
    http2::Http2,
    path, until, within,
};

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

async fn hold(server: &Server, device: &str, data: &str) -> Response {
    let headers = [("content-type", FORM), ("ttl", "60")];
    server.request(&format!("POST {}", path(device)), &headers, format!("data={data}").as_bytes()).await
}

async fn grpc_hold(server: &Server, device: &str) -> Result<(), Code> {
    let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request = SendRequest { ttl, ..message(device, "", "x") };
    within(server.grpc().await.send(request)).await.map(drop).map_err(|status| status.code())
}

/// Opens a watch, or returns the whole answer of a refused one.
async fn watch(server: &Server, caller: &str) -> Result<Sse, Response> {
    let claim = claim(caller);
    let headers = [("x-user-claim", claim.as_str()), EVENTS];
    let mut connection = Connection::open(server.address).await;
    connection.ask("GET /user/bob/devices", &headers).await;
    let head = connection.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
    // Only a refusal has a length.
    if !head.header("content-length").is_empty() {
        return Err(server.request("GET /user/bob/devices", &headers, b"").await);
    }
    let mut stream = Sse::after_head(connection);
    assert_eq!(stream.next().await.name, "signal.devices");
    Ok(stream)
}

fn assert_too_many(refused: &Response) {
    assert_eq!((refused.status, refused.problem().as_str()), (429, "too_many"));
    let seconds: u32 = refused.header("retry-after").parse().expect("seconds");
    assert!((2..=6).contains(&seconds), "{seconds}");
}

/// A refused stream tells an EventSource when to come back, then ends.
fn assert_told_to_come_back(refused: &Response) {
    assert_eq!((refused.status, refused.header("content-type")), (200, "text/event-stream"));
    assert!(refused.text().contains("retry: ") && !refused.text().contains("data"), "{}", refused.text());
}

#[tokio::test]
async fn messages_are_held_for_a_limited_number_of_devices_of_a_user() {
    let server = Server::with(&["--user-held-devices", "3"]).await;
    for device in ["bob/1", "bob/2", "bob/3", "bob/1"] {
        assert_eq!(hold(&server, device, "x").await.status, 202);
    }
    assert_too_many(&hold(&server, "bob/4", "x").await);
    assert_eq!(grpc_hold(&server, "bob/4").await, Err(Code::ResourceExhausted));
    assert_eq!(hold(&server, "ana/4", "x").await.status, 202, "another user has other limits");
    // A mailbox with a stream is not one that only holds messages.
    let _first = server.sse("bob/1").await;
    assert_eq!(grpc_hold(&server, "bob/4").await, Ok(()));
}

#[tokio::test]
async fn the_devices_of_a_user_are_limited_and_a_stream_pushes_out_a_mailbox_that_only_holds() {
    let server = Server::with(&["--user-devices", "3"]).await;
    for device in ["bob/held-1", "bob/held-2"] {
        assert_eq!(hold(&server, device, "x").await.status, 202);
    }
    let streams = [server.sse("bob/a").await, server.sse("bob/b").await];
    assert_too_many(&hold(&server, "bob/held-3", "x").await);
    let lost = server.sse("bob/held-1").await;
    assert_eq!((&lost.ready["continuity"], &lost.ready["replayed"]), (&"broken".into(), &0.into()));
    let claim = claim("bob/c");
    let headers = [("x-user-claim", claim.as_str()), EVENTS];
    assert_told_to_come_back(&server.request("GET /subscribe", &headers, b"").await);
    assert_too_many(&server.request("GET /subscribe", &headers[..1], b"").await);
    let refused = server.grpc_stream("bob/c", "").await.err().expect("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(server.devices("bob").await, r#"["a","b","held-1"]"#);
    drop(streams);
}

#[tokio::test]
async fn the_watchers_of_a_user_and_the_watches_of_a_caller_are_limited() {
    let server = Server::with(&["--user-watchers", "3", "--caller-watches", "2"]).await;
    let mut watches =
        vec![watch(&server, "ana/1").await.expect("a watch"), watch(&server, "ana/1").await.expect("a watch")];
    assert_told_to_come_back(&watch(&server, "ana/1").await.err().expect("too many of this caller"));
    watches.push(watch(&server, "ana/2").await.expect("a watch"));
    assert_told_to_come_back(&watch(&server, "eve/1").await.err().expect("too many of this user"));
    let request = claimed("eve/1", WatchDevicesRequest { user: "bob".into() });
    let refused = within(server.grpc().await.watch_devices(request)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(watches);
    until(|| server.request("GET /metrics", &[], b""), |answer| answer.text().contains("\nsignal_watches 0\n")).await;
    watch(&server, "ana/1").await.expect("there is room again");
}

#[tokio::test]
async fn held_messages_have_a_budget_and_live_messages_are_still_accepted() {
    let server = Server::with(&["--memory-budget", "500000", "--user-held-devices", "0", "--user-devices", "0"]).await;
    let mut phone = server.sse("ana/phone").await;
    let large = "x".repeat(50_000);
    let mut held = 0;
    let refused = loop {
        let answer = hold(&server, &format!("bob/{held}"), &large).await;
        if answer.status != 202 {
            break answer;
        }
        held += 1;
    };
    assert_eq!((refused.status, refused.problem().as_str(), held), (503, "over_memory_budget", 2));
    for _ in 0..100 {
        assert_eq!(server.post("ana/phone", &large).await.status, 200);
        assert_eq!(phone.data().await.len(), large.len());
    }
    let metrics = server.request("GET /metrics", &[], b"").await.text();
    let evicted = metrics.lines().find(|line| line.starts_with(r#"signal_evicted_total{kind="replayed"}"#));
    assert!(evicted.is_some() && !metrics.contains(r#"{kind="held"}"#), "{evicted:?}");
}

#[tokio::test]
async fn a_large_broadcast_arrives_whole_in_every_format_and_protocol() {
    let server = Server::start().await;
    let connection = Http2::open(server.address).await;
    let data = format!("v=0\r\n{}\n\"é\"", "a=candidate ".repeat(5_000));
    let mut plain = [server.sse("bob/a").await, Sse::open_h2(&connection, "bob/b").await];
    let mut grpc = server.grpc_stream("bob/c", "").await.expect("a stream");
    let mut envelope = server.sse_with("bob/d", "/subscribe?format=envelope", &[]).await;
    let body = serde_json::json!({ "data": data }).to_string();
    for _ in 0..2 {
        let json = [("content-type", crate::harness::JSON)];
        let answer = server.request("POST /user/bob/devices", &json, body.as_bytes()).await;
        assert_eq!(answer.text(), r#"{"delivered":["a","b","c","d"]}"#);
        for stream in &mut plain {
            let event = stream.message().await;
            assert_eq!((event.data == data.replace("\r\n", "\n"), event.id.is_empty()), (true, false));
        }
        assert_eq!(grpc.data().await, data);
        let event: serde_json::Value = serde_json::from_str(&envelope.data().await).expect("JSON");
        assert_eq!(event["data"], data.as_str());
    }
    // Each stream has a cursor of its own.
    let cursors: std::collections::HashSet<_> = plain.iter().map(|stream| &stream.parser.last_event_id).collect();
    assert_eq!(cursors.len(), 2);
}

#[tokio::test]
async fn a_broadcast_to_any_user_is_refused_while_the_server_drains() {
    let server = Server::with(&["--drain-window", "60"]).await;
    let _stays = [server.sse("ana/phone").await, server.sse("eve/phone").await];
    server.drain.start();
    until(|| server.request("GET /readyz", &[], b""), |answer| answer.status == 503).await;
    let broadcast = async || server.request("POST /user/nobody/devices", &[("content-type", FORM)], b"data=x").await;
    let refused = until(broadcast, |answer| answer.status == 503).await;
    assert_eq!(refused.problem(), "draining");
    let request = BroadcastRequest { user: "nobody".into(), event: String::new(), data: "x".into() };
    let refused = within(server.grpc().await.broadcast(request)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_broadcast_counts_each_delivery_and_one_refusal_when_no_device_is_connected() {
    let server = Server::start().await;
    let _streams = [server.sse("bob/a").await, server.sse("bob/b").await];
    for device in ["bob/c", "bob/d", "ana/a", "ana/b"] {
        assert_eq!(hold(&server, device, "x").await.status, 202);
    }
    let form = [("content-type", FORM)];
    assert_eq!(server.request("POST /user/bob/devices", &form, b"data=x").await.status, 200);
    for user in ["ana", "nobody"] {
        assert_eq!(server.request(&format!("POST /user/{user}/devices"), &form, b"data=x").await.status, 404);
    }
    let metrics = server.request("GET /metrics", &[], b"").await.text();
    for line in [r#"signal_sends_total{outcome="delivered"} 2"#, r#"signal_sends_total{outcome="not_connected"} 2"#] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}
