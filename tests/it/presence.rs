//! Broadcast to a user's devices, and watching them come and go, over both protocols.

use backend_signal::grpc::proto::{
    Address, BroadcastRequest, EndReason, WatchDevicesRequest, WatchDevicesResponse, watch_devices_response::Kind,
};
use tonic::{Code, Streaming};

use crate::harness::{FORM, Response, Server, Sse, http2::Http2, until, within};

async fn broadcast(server: &Server, data: &str) -> Response {
    let body = format!("data={data}&event=ring");
    server.request("POST /user/bob/devices", &[("content-type", FORM)], body.as_bytes()).await
}

async fn grpc_broadcast(server: &Server, data: &str) -> Result<Vec<String>, Code> {
    let request = BroadcastRequest { user: "bob".into(), event: "ring".into(), data: data.into() };
    let sent = within(server.grpc().await.broadcast(request)).await;
    sent.map(|answer| answer.into_inner().delivered).map_err(|status| status.code())
}

/// A device of bob.
fn of_bob(device: &str) -> Address {
    Address { user: "bob".into(), device: device.into() }
}

/// A stream that begins with the list and not with `signal.ready`.
async fn watch(server: &Server) -> Sse {
    Sse::open_plain(server.address, "/user/bob/devices", &[("accept", "text/event-stream")]).await
}

async fn grpc_watch(server: &Server) -> Streaming<WatchDevicesResponse> {
    let request = WatchDevicesRequest { users: vec!["bob".into()], heartbeat: None };
    within(server.grpc().await.watch_devices(request)).await.expect("a stream").into_inner()
}

async fn next(watch: &mut Streaming<WatchDevicesResponse>) -> Kind {
    within(watch.message()).await.expect("no error").and_then(|response| response.kind).expect("a response")
}

#[tokio::test]
async fn a_broadcast_reaches_every_connected_device_of_the_user() {
    let server = Server::start().await;
    let connection = Http2::open(server.address).await;
    let mut sse = [server.sse("bob/phone").await, Sse::open_h2(&connection, "bob/Tablet").await];
    let mut grpc = server.grpc_stream("bob/laptop", "").await.expect("a stream");
    let mut other = server.sse("ana/phone").await;
    let answer = broadcast(&server, "1").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.text(), r#"{"delivered":["Tablet","laptop","phone"]}"#);
    assert_eq!(grpc_broadcast(&server, "2").await, Ok(vec!["Tablet".into(), "laptop".into(), "phone".into()]));
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
    assert!(matches!(next(&mut grpc).await, Kind::Devices(list) if list.user == "bob" && list.devices == ["phone"]));
    let laptop = server.grpc_stream("bob/laptop", "").await.expect("a stream");
    let _other = server.sse("ana/laptop").await;
    let online = sse.next().await;
    assert_eq!((online.name.as_str(), online.data.as_str()), ("signal.online", r#"{"device":"laptop"}"#));
    assert_eq!(next(&mut grpc).await, Kind::Online(of_bob("laptop")));
    drop(laptop);
    let offline = sse.next().await;
    assert_eq!((offline.name.as_str(), offline.data.as_str()), ("signal.offline", r#"{"device":"laptop"}"#));
    assert_eq!(next(&mut grpc).await, Kind::Offline(of_bob("laptop")));
    drop(phone);
    assert_eq!(sse.next().await.data, r#"{"device":"phone"}"#);
    assert_eq!(next(&mut grpc).await, Kind::Offline(of_bob("phone")));
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
async fn a_device_that_began_a_new_page_is_reported_again() {
    let server = Server::start().await;
    let mut page = server.sse("bob/phone").await;
    let mut sse = watch(&server).await;
    let mut grpc = grpc_watch(&server).await;
    assert_eq!(sse.next().await.data, r#"["phone"]"#);
    assert!(matches!(next(&mut grpc).await, Kind::Devices(list) if list.devices == ["phone"]));
    // Another tab takes over. Then the page is reloaded: it leaves, and the next one comes at once.
    for reload in [false, false, true, true] {
        if reload {
            page.leave();
        }
        page = server.sse("bob/phone").await;
        let event = sse.next().await;
        assert_eq!((event.name.as_str(), event.data.as_str()), ("signal.online", r#"{"device":"phone"}"#));
        assert_eq!(next(&mut grpc).await, Kind::Online(of_bob("phone")));
    }
    // A page that resumes is still the same page.
    let cursor = page.leave();
    drop(server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await);
    assert_eq!(sse.next().await.name, "signal.offline");
    assert_eq!(next(&mut grpc).await, Kind::Offline(of_bob("phone")));
}

/// Of a block without data, some clients never learn the time, and some deliver an empty message.
#[tokio::test]
async fn a_watch_begins_with_one_block_that_has_the_list() {
    let server = Server::start().await;
    let mut watch = watch(&server).await;
    let mut begin = String::new();
    while !begin.ends_with("\n\n") {
        begin += std::str::from_utf8(&watch.bytes().await.expect("the list")).expect("UTF-8");
    }
    let retry =
        begin.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\nevent: signal.devices\ndata: []\n\n"));
    let retry: u64 = retry.and_then(|retry| retry.parse().ok()).unwrap_or_else(|| panic!("{begin}"));
    assert!((1_000..=4_000).contains(&retry), "{retry}");
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
    let ping = next(&mut grpc).await;
    assert!(matches!(&ping, Kind::Ping(ping) if ping.at.is_some()), "{ping:?}");
    server.drain.start();
    assert_eq!(sse.end().await, "draining");
    let end = loop {
        match next(&mut grpc).await {
            Kind::Ping(_) => {}
            other => break other,
        }
    };
    assert!(matches!(&end, Kind::End(end) if end.reason() == EndReason::Draining), "{end:?}");
    assert!(within(grpc.message()).await.expect("OK").is_none());
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
        assert_eq!(server.post_with_ttl(device, "x", "60").await.status, 202);
    }
    let form = [("content-type", FORM)];
    assert_eq!(server.request("POST /user/bob/devices", &form, b"data=x").await.status, 200);
    for user in ["ana", "nobody"] {
        assert_eq!(server.request(&format!("POST /user/{user}/devices"), &form, b"data=x").await.status, 404);
    }
    let metrics = server.metrics().await;
    for line in [r#"signal_sends_total{outcome="delivered"} 2"#, r#"signal_sends_total{outcome="not_connected"} 2"#] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}
