//! Listing and watching several users at once, over both protocols.

use backend_signal::grpc::proto::{
    Address, DeviceList, SubscribeRequest, WatchDevicesRequest, WatchDevicesResponse, watch_devices_response::Kind,
};
use tonic::{Code, Status, Streaming};

use crate::harness::{
    Server, Sse,
    grpc::{Stream, claimed},
    metric, until, within,
};

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

/// A query or the field of a call that names numbered users.
fn numbered(users: std::ops::Range<u32>) -> Vec<String> {
    users.map(|user| user.to_string()).collect()
}

fn query(users: &[String]) -> String {
    let users: Vec<_> = users.iter().map(|user| format!("user={user}")).collect();
    format!("GET /devices?{}", users.join("&"))
}

async fn watch(server: &Server, query: &str) -> Sse {
    Sse::open_plain(server.address, &format!("/devices?{query}"), &[EVENTS]).await
}

async fn grpc_watch(server: &Server, users: &[String]) -> Result<Streaming<WatchDevicesResponse>, Status> {
    let request = WatchDevicesRequest { users: users.to_vec(), heartbeat: None };
    Ok(within(server.grpc().await.watch_devices(claimed("ana/1", request))).await?.into_inner())
}

async fn next(watch: &mut Streaming<WatchDevicesResponse>) -> Kind {
    within(watch.message()).await.expect("no error").and_then(|response| response.kind).expect("a response")
}

/// A response that says: this user has these devices.
fn list(user: &str, devices: &[&str]) -> Kind {
    Kind::Devices(DeviceList { user: user.into(), devices: devices.iter().map(|&device| device.into()).collect() })
}

fn address(user: &str, device: &str) -> Address {
    Address { user: user.into(), device: device.into() }
}

#[tokio::test]
async fn the_devices_of_several_users_are_one_object() {
    let server = Server::start().await;
    let _streams = [server.sse("bob/phone").await, server.sse("bob/laptop").await, server.sse("a b/☎").await];
    let answer = server.request("GET /devices?user=bob&x=%ff&user=a+b&user=nobody&user=%ff&user=bob", &[], b"").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.text(), r#"{"a b":["☎"],"bob":["laptop","phone"],"nobody":[]}"#);
    assert_eq!(server.request(&query(&numbered(0..64)), &[], b"").await.status, 200);
}

#[tokio::test]
async fn no_user_too_many_users_and_a_bad_id_are_refused() {
    let server = Server::start().await;
    let too_many = query(&numbered(0..65));
    let refused = [
        ("GET /devices", "invalid_users"),
        ("GET /devices?user=%ff", "invalid_users"),
        (too_many.as_str(), "invalid_users"),
        ("GET /devices?user=bob&user=", "invalid_user"),
        ("GET /devices?user=..", "invalid_user"),
    ];
    for (head, code) in refused {
        for headers in [&[][..], &[EVENTS]] {
            let answer = server.request(head, headers, b"").await;
            assert_eq!((answer.status, answer.problem().as_str()), (400, code), "{head}");
        }
    }
    for users in [numbered(0..0), numbered(0..65), vec![String::new()]] {
        let refused = grpc_watch(&server, &users).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{users:?}");
    }
    // A user that is named twice counts once.
    let twice = [numbered(0..64), numbered(0..64)].concat();
    let mut watch = grpc_watch(&server, &twice).await.expect("a watch");
    for _ in 0..64 {
        assert!(matches!(next(&mut watch).await, Kind::Devices(_)));
    }
    assert_eq!(metric(&server, "signal_watches").await, 64);
}

#[tokio::test]
async fn a_watch_of_several_users_gives_one_list_for_each_and_then_every_change_with_its_user() {
    let server = Server::with(&["--drain-window", "1"]).await;
    let phone = server.sse("bob/phone").await;
    let mut sse = watch(&server, "user=bob&user=ana&user=bob").await;
    let mut grpc = grpc_watch(&server, &["bob".into(), "ana".into(), "bob".into()]).await.expect("a watch");
    for expected in [r#"{"user":"ana","devices":[]}"#, r#"{"user":"bob","devices":["phone"]}"#] {
        let event = sse.next().await;
        assert_eq!((event.name.as_str(), event.data.as_str()), ("signal.devices", expected));
    }
    assert_eq!([next(&mut grpc).await, next(&mut grpc).await], [list("ana", &[]), list("bob", &["phone"])]);
    let _laptop = server.sse("ana/laptop").await;
    let online = sse.next().await;
    assert_eq!((online.name.as_str(), online.data.as_str()), ("signal.online", r#"{"user":"ana","device":"laptop"}"#));
    assert_eq!(next(&mut grpc).await, Kind::Online(address("ana", "laptop")));
    // A watch of one user shares the changes, but not their text.
    let mut one = Sse::open_plain(server.address, "/user/bob/devices", &[EVENTS]).await;
    assert_eq!(one.next().await.data, r#"["phone"]"#);
    drop(phone);
    assert_eq!(one.next().await.data, r#"{"device":"phone"}"#);
    let offline = sse.next().await;
    assert_eq!(
        (offline.name.as_str(), offline.data.as_str()),
        ("signal.offline", r#"{"user":"bob","device":"phone"}"#)
    );
    assert_eq!(next(&mut grpc).await, Kind::Offline(address("bob", "phone")));
    server.drain.start();
    assert_eq!(sse.end().await, "draining");
    // Until its own end, a watch sees that the drain ends the streams of its users.
    while !matches!(next(&mut grpc).await, Kind::End(_)) {}
    assert!(within(grpc.message()).await.expect("OK").is_none());
}

#[tokio::test]
async fn a_watch_counts_once_for_its_caller_and_for_each_user_and_a_refused_watch_counts_for_none() {
    let server = Server::with(&["--user-watchers", "2", "--caller-watches", "1"]).await;
    let first = grpc_watch(&server, &["ana".into(), "bob".into()]).await.expect("a watch");
    let refused = grpc_watch(&server, &["carl".into(), "dora".into()]).await.expect_err("the caller has too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(metric(&server, "signal_watches").await, 2);
    let second = watch(&server, "user=bob").await;
    let answer = server.request("GET /devices?user=ana&user=bob", &[EVENTS], b"").await;
    assert!(!answer.text().contains("signal.devices"), "bob has too many watchers: {}", answer.text());
    assert_eq!(metric(&server, "signal_watches").await, 3);
    drop((first, second));
    until(|| metric(&server, "signal_watches"), |watches| *watches == 0).await;
}

#[tokio::test]
async fn a_client_chooses_the_heartbeat_of_its_watch_or_stream() {
    let server = Server::with(&["--heartbeat", "0.3"]).await;
    let half = Some(prost_types::Duration { seconds: 4, nanos: 500_000_000 });
    let asked = [(None, 300), (half, 4_500), (Some(prost_types::Duration::default()), 4_000)];
    for (heartbeat, expected) in asked {
        let request = claimed("bob/phone", SubscribeRequest { cursor: String::new(), heartbeat });
        let ready = Stream::begin(&mut server.grpc().await, request).await.expect("a stream").ready;
        let chosen = ready.heartbeat.expect("a heartbeat");
        assert_eq!((chosen.seconds, chosen.nanos), (expected / 1_000, (expected % 1_000) as i32 * 1_000_000));
    }
    // The server's own heartbeat is short. A watch with a longer one gets the next change before its first ping.
    let mut own = watch(&server, "user=ana&heartbeat=none").await;
    let mut chosen = watch(&server, "user=ana&heartbeat=4").await;
    let mut one = Sse::open_plain(server.address, "/user/ana/devices?heartbeat=0", &[EVENTS]).await;
    let request = WatchDevicesRequest { users: vec!["ana".into()], heartbeat: half };
    let mut grpc = within(server.grpc().await.watch_devices(request)).await.expect("a watch").into_inner();
    assert_eq!(own.next().await.name, "signal.devices");
    assert_eq!(own.next().await.name, "signal.ping");
    let _phone = server.sse("ana/phone").await;
    for stream in [&mut chosen, &mut one] {
        assert_eq!(stream.next().await.name, "signal.devices");
        assert_eq!(stream.next().await.name, "signal.online");
        assert_eq!(stream.next().await.name, "signal.ping");
    }
    assert_eq!(
        [next(&mut grpc).await, next(&mut grpc).await],
        [list("ana", &[]), Kind::Online(address("ana", "phone"))]
    );
    assert!(matches!(next(&mut grpc).await, Kind::Ping(_)));
}
