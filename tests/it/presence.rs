//! Broadcast to a user's devices, and watching them come and go, over both protocols.

use backend_signal::grpc::proto::{
    BroadcastRequest, WatchDevicesRequest, WatchDevicesResponse, watch_devices_response::Kind,
};
use tonic::{Code, Streaming};

use crate::harness::{FORM, Response, Server, Sse, http2::Http2, within};

async fn broadcast(server: &Server, data: &str) -> Response {
    let body = format!("data={data}&event=ring");
    server.request("POST /user/bob/devices", &[("content-type", FORM)], body.as_bytes()).await
}

async fn grpc_broadcast(server: &Server, data: &str) -> Result<Vec<String>, Code> {
    let request = BroadcastRequest { user: "bob".into(), event: "ring".into(), data: data.into() };
    let sent = within(server.grpc().await.broadcast(request)).await;
    sent.map(|answer| answer.into_inner().delivered).map_err(|status| status.code())
}

/// A stream that begins with the list and not with `signal.ready`.
async fn watch(server: &Server) -> Sse {
    Sse::open_plain(server.address, "/user/bob/devices", &[("accept", "text/event-stream")]).await
}

async fn grpc_watch(server: &Server) -> Streaming<WatchDevicesResponse> {
    let request = WatchDevicesRequest { user: "bob".into() };
    within(server.grpc().await.watch_devices(request)).await.expect("a stream").into_inner()
}

async fn next(watch: &mut Streaming<WatchDevicesResponse>) -> Kind {
    within(watch.message()).await.expect("no error").and_then(|response| response.kind).expect("a response")
}

#[tokio::test]
async fn a_broadcast_reaches_every_connected_device_of_the_user() {
    let server = Server::start().await;
    let connection = Http2::open(server.address).await;
    let mut sse = [server.sse("bob/phone").await, Sse::open_h2(&connection, "bob/Watch").await];
    let mut grpc = server.grpc_stream("bob/laptop", "").await.expect("a stream");
    let mut other = server.sse("ana/phone").await;
    let answer = broadcast(&server, "1").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.text(), r#"{"delivered":["Watch","laptop","phone"]}"#);
    assert_eq!(grpc_broadcast(&server, "2").await, Ok(vec!["Watch".into(), "laptop".into(), "phone".into()]));
    for stream in &mut sse {
        for expected in ["1", "2"] {
            let event = stream.message().await;
            assert_eq!((event.name.as_str(), event.data.as_str()), ("ring", expected));
        }
    }
    assert_eq!((grpc.data().await.as_str(), grpc.data().await.as_str()), ("1", "2"));
    server.post("ana/phone", "only this").await;
    assert_eq!(other.data().await, "only this");
}

#[tokio::test]
async fn a_broadcast_to_nobody_is_404_and_one_of_the_wrong_shape_400() {
    let server = Server::start().await;
    let answer = broadcast(&server, "x").await;
    assert_eq!((answer.status, answer.problem().as_str()), (404, "not_connected"));
    assert_eq!(grpc_broadcast(&server, "x").await, Err(Code::NotFound));
    let answer = broadcast(&server, "").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "no_data"));
    assert_eq!(grpc_broadcast(&server, "").await, Err(Code::InvalidArgument));
}

#[tokio::test]
async fn a_watcher_sees_the_list_and_then_every_change_once() {
    let server = Server::start().await;
    let phone = server.sse("bob/phone").await;
    let mut sse = watch(&server).await;
    let mut grpc = grpc_watch(&server).await;
    let list = sse.next().await;
    assert_eq!((list.name.as_str(), list.data.as_str(), list.id.as_str()), ("signal.devices", r#"["phone"]"#, ""));
    assert!(matches!(next(&mut grpc).await, Kind::Devices(list) if list.devices == ["phone"]));
    let laptop = server.grpc_stream("bob/laptop", "").await.expect("a stream");
    let _other = server.sse("ana/laptop").await;
    let online = sse.next().await;
    assert_eq!((online.name.as_str(), online.data.as_str()), ("signal.online", r#"{"device":"laptop"}"#));
    assert_eq!(next(&mut grpc).await, Kind::Online("laptop".into()));
    drop(laptop);
    let offline = sse.next().await;
    assert_eq!((offline.name.as_str(), offline.data.as_str()), ("signal.offline", r#"{"device":"laptop"}"#));
    assert_eq!(next(&mut grpc).await, Kind::Offline("laptop".into()));
    drop(phone);
    assert_eq!(sse.next().await.data, r#"{"device":"phone"}"#);
    assert_eq!(next(&mut grpc).await, Kind::Offline("phone".into()));
}

#[tokio::test]
async fn a_device_that_resumes_at_once_is_not_reported() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let mut sse = watch(&server).await;
    assert_eq!(sse.next().await.data, r#"["phone"]"#);
    for _ in 0..5 {
        let cursor = phone.leave();
        phone = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
    }
    let _laptop = server.sse("bob/laptop").await;
    let event = sse.next().await;
    assert_eq!((event.name.as_str(), event.data.as_str()), ("signal.online", r#"{"device":"laptop"}"#));
}

#[tokio::test]
async fn watchers_that_start_while_devices_connect_miss_no_change() {
    let server = std::sync::Arc::new(Server::start().await);
    let coming = tokio::spawn({
        let server = server.clone();
        async move {
            let mut streams = Vec::new();
            for device in 0..60 {
                streams.push(server.sse(&format!("bob/{device:02}")).await);
            }
            streams
        }
    });
    let mut watchers = Vec::new();
    while !coming.is_finished() {
        watchers.push(watch(&server).await);
    }
    let _streams = within(coming).await.expect("no panic");
    let all: Vec<String> = (0..60).map(|device| format!("{device:02}")).collect();
    assert!(watchers.len() > 3, "{}", watchers.len());
    for mut watcher in watchers {
        let mut seen: Vec<String> = serde_json::from_str(&watcher.next().await.data).expect("a list");
        while seen.len() < all.len() {
            let event = watcher.next().await;
            assert_eq!(event.name, "signal.online");
            let device: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
            seen.push(device["device"].as_str().expect("an id").to_owned());
        }
        assert_eq!(seen, all, "in order, each once");
    }
}

#[tokio::test]
async fn a_watch_has_heartbeats_and_ends_with_a_reason() {
    let server = Server::with(&["--heartbeat", "0.3"]).await;
    let mut sse = watch(&server).await;
    let mut grpc = grpc_watch(&server).await;
    assert_eq!(sse.next().await.data, "[]");
    assert!(matches!(next(&mut grpc).await, Kind::Devices(list) if list.devices.is_empty()));
    assert_eq!(sse.next().await.name, "signal.ping");
    server.drain.start();
    assert_eq!(sse.end().await, "draining");
    assert!(within(grpc.message()).await.expect("OK").is_none());
}

#[tokio::test]
async fn with_a_full_memory_budget_an_event_source_is_told_when_to_come_back() {
    let server = Server::with(&["--memory-budget", "202", "--stall-timeout", "60"]).await;
    let _unread = Http2::with_window(server.address, 10).await.unread("bob/phone", "/subscribe").await;
    assert_eq!(server.post("bob/phone", "1234567890").await.status, 200);
    let claim = crate::harness::claim("bob/laptop");
    let headers = [("x-user-claim", claim.as_str()), ("accept", "text/event-stream")];
    let polite = server.request("GET /subscribe", &headers, b"").await;
    assert_eq!((polite.status, polite.header("content-type")), (200, "text/event-stream"));
    assert!(polite.text().contains("retry: ") && !polite.text().contains("data"), "{}", polite.text());
    assert_eq!(server.request("GET /subscribe", &headers[..1], b"").await.problem(), "over_memory_budget");
    let refused = server.grpc_stream("bob/laptop", "").await.err().expect("refused");
    assert_eq!(refused.code(), Code::Unavailable);
    let mut back = server.sse("bob/phone").await;
    assert_eq!(back.data().await, "1234567890", "a device with a mailbox may come back");
}
