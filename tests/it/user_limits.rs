//! The limits of one user and of one caller: past a limit the answer says so, and all others are served.

use backend_signal::grpc::proto::{SendRequest, WatchDevicesRequest};
use tonic::{Code, Status};

use crate::harness::{
    Connection, EVENT_STREAM, FORM, Response, Server, Sse, claim,
    grpc::{claimed, message},
    until, within,
};

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

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
    assert_eq!((head.status, head.header("content-type")), (200, EVENT_STREAM));
    // Only the answer of a refused watch has a Content-Length.
    if !head.header("content-length").is_empty() {
        return Err(server.request("GET /user/bob/devices", &headers, b"").await);
    }
    let mut stream = Sse::after_head(connection);
    assert_eq!(stream.next().await.name, "signal.devices");
    Ok(stream)
}

/// The refusals that the metrics count for each of these limits.
async fn limited<const N: usize>(server: &Server, limits: [&str; N]) -> [u64; N] {
    let text = server.metrics().await;
    limits.map(|limit| {
        let line = format!("signal_limited_total{{limit=\"{limit}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    })
}

/// The seconds after which a gRPC client should try again, from the metadata of the status.
fn retry_after(status: &Status) -> Option<u32> {
    status.metadata().get("retry-after")?.to_str().ok()?.parse().ok()
}

fn assert_too_many(refused: &Response) {
    assert_eq!((refused.status, refused.problem().as_str()), (429, "too_many"));
    let seconds: u32 = refused.header("retry-after").parse().expect("seconds");
    assert!((2..=6).contains(&seconds), "{seconds}");
}

/// A refused stream tells an EventSource when to come back, then ends.
fn assert_told_to_come_back(refused: &Response) {
    assert_eq!((refused.status, refused.header("content-type")), (200, EVENT_STREAM));
    let text = refused.text();
    let (retry, end) = text.strip_prefix("retry: ").and_then(|text| text.split_once('\n')).expect("when to come back");
    assert!((2_000..=6_000).contains(&retry.parse().expect("milliseconds")), "{text}");
    assert_eq!(end, "event: signal.end\ndata: {\"reason\":\"overloaded\"}\n\n");
}

#[tokio::test]
async fn messages_are_held_for_a_limited_number_of_devices_of_a_user() {
    let server = Server::with(&["--user-held-devices", "3"]).await;
    for device in ["bob/1", "bob/2", "bob/3", "bob/1"] {
        assert_eq!(server.post_with_ttl(device, "x", "60").await.status, 202);
    }
    assert_too_many(&server.post_with_ttl("bob/4", "x", "60").await);
    assert_eq!(grpc_hold(&server, "bob/4").await, Err(Code::ResourceExhausted));
    assert_eq!(server.post_with_ttl("ana/4", "x", "60").await.status, 202, "another user has other limits");
    // With a stream, the mailbox no longer counts as one that only holds messages.
    let _first = server.sse("bob/1").await;
    assert_eq!(grpc_hold(&server, "bob/4").await, Ok(()));
    assert_eq!(limited(&server, ["user_held_devices", "user_devices"]).await, [2, 0]);
}

#[tokio::test]
async fn the_devices_of_a_user_are_limited_and_a_stream_pushes_out_a_mailbox_that_only_holds() {
    let server = Server::with(&["--user-devices", "3"]).await;
    for device in ["bob/held-1", "bob/held-2"] {
        assert_eq!(server.post_with_ttl(device, "x", "60").await.status, 202);
    }
    let streams = [server.sse("bob/a").await, server.sse("bob/b").await];
    assert_too_many(&server.post_with_ttl("bob/held-3", "x", "60").await);
    let lost = server.sse("bob/held-1").await;
    assert_eq!((&lost.ready["continuity"], &lost.ready["replayed"]), (&"broken".into(), &0.into()));
    let claim = claim("bob/c");
    let headers = [("x-user-claim", claim.as_str()), EVENTS];
    assert_told_to_come_back(&server.request("GET /subscribe", &headers, b"").await);
    assert_too_many(&server.request("GET /subscribe", &headers[..1], b"").await);
    let refused = server.grpc_stream("bob/c", "").await.err().expect("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(retry_after(&refused).is_some_and(|seconds| (2..=6).contains(&seconds)), "{refused:?}");
    assert_eq!(limited(&server, ["user_devices"]).await, [4]);
    assert_eq!(server.devices("bob").await, r#"["a","b","held-1"]"#);
    drop(streams);
}

#[tokio::test]
async fn the_watchers_of_a_user_and_the_watches_of_a_caller_are_limited() {
    let server = Server::with(&["--user-watchers", "3", "--caller-watches", "2"]).await;
    let mut watches =
        vec![watch(&server, "ana/1").await.expect("a watch"), watch(&server, "ana/1").await.expect("a watch")];
    let ana = claim("ana/1");
    let many = [("x-user-claim", ana.as_str()), EVENTS];
    assert_told_to_come_back(&watch(&server, "ana/1").await.err().expect("too many of this caller"));
    assert_told_to_come_back(&server.request("GET /devices?user=bob", &many, b"").await);
    let request = claimed("ana/1", WatchDevicesRequest { users: vec!["bob".into()], heartbeat: None });
    let refused = within(server.grpc().await.watch_devices(request)).await.expect_err("refused");
    assert!(retry_after(&refused).is_some_and(|seconds| (2..=6).contains(&seconds)), "{refused:?}");
    assert_eq!(server.request("GET /devices?user=bob", &many[..1], b"").await.text(), r#"{"bob":[]}"#, "no watch");
    watches.push(watch(&server, "ana/2").await.expect("a watch"));
    assert_told_to_come_back(&watch(&server, "eve/1").await.err().expect("too many of this user"));
    let eve = claim("eve/1");
    let many = [("x-user-claim", eve.as_str()), EVENTS];
    assert_told_to_come_back(&server.request("GET /devices?user=bob", &many, b"").await);
    let request = claimed("eve/1", WatchDevicesRequest { users: vec!["bob".into()], heartbeat: None });
    let refused = within(server.grpc().await.watch_devices(request)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(retry_after(&refused).is_some_and(|seconds| (2..=6).contains(&seconds)), "{refused:?}");
    // A refused watch of `watch` asks twice.
    assert_eq!(limited(&server, ["caller_watches", "user_watchers"]).await, [4, 4]);
    drop(watches);
    until(|| server.metrics(), |text| text.contains("\nsignal_watches 0\n")).await;
    watch(&server, "ana/1").await.expect("there is room again");
}

#[tokio::test]
async fn a_service_has_none_of_these_limits_and_what_it_has_counts_for_all_others() {
    let limits = ["--user-watchers", "1", "--caller-watches", "1", "--user-devices", "3", "--user-held-devices", "1"];
    let server = Server::with(&[&limits[..], &["--service-claim", "backend", "--send-rate", "1"]].concat()).await;
    let service = |device| format!(r#"{{"userid":"bob","clientid":"{device}","backend":true}}"#);
    let claim_of_service = service("main");
    let headers = [("x-user-claim", claim_of_service.as_str()), EVENTS];
    let mut watches = vec![watch(&server, "ana/1").await.expect("a watch")];
    for _ in 0..3 {
        let mut more = Sse::open_plain(server.address, "/user/bob/devices", &headers).await;
        assert_eq!(more.next().await.name, "signal.devices");
        watches.push(more);
    }
    assert_told_to_come_back(&watch(&server, "eve/1").await.err().expect("too many of this user"));
    for number in 0..6 {
        let headers = [headers[0], ("ttl", "60"), ("content-type", FORM)];
        let head = format!("POST /user/bob/device/held-{number}");
        assert_eq!(server.request(&head, &headers, b"data=x").await.status, 202, "{number}: neither devices nor rate");
    }
    assert_too_many(&server.post_with_ttl("bob/another", "x", "60").await);
    let mut streams = Vec::new();
    for device in ["a", "b", "c", "d"] {
        let claim = service(device);
        streams.push(Sse::open(server.address, "/subscribe", &[("x-user-claim", &claim)]).await);
    }
    // It pushed out nobody.
    let held = server.sse("bob/held-0").await;
    assert_eq!((&held.ready["continuity"], &held.ready["replayed"]), (&"new".into(), &1.into()));
    assert_eq!(
        limited(&server, ["user_watchers", "caller_watches", "user_held_devices", "send_rate"]).await,
        [2, 0, 0, 0]
    );
    drop((watches, streams));
}

#[tokio::test]
async fn a_server_whose_hold_budget_is_full_still_accepts_live_messages() {
    let server = Server::with(&["--memory-budget", "500000", "--user-held-devices", "0", "--user-devices", "0"]).await;
    let mut phone = server.sse("ana/phone").await;
    let large = "x".repeat(50_000);
    let mut held = 0;
    let refused = loop {
        let answer = server.post_with_ttl(&format!("bob/{held}"), &large, "60").await;
        if answer.status != 202 {
            break answer;
        }
        held += 1;
    };
    assert_eq!((refused.status, refused.problem().as_str(), held), (503, "over_memory_budget", 2));
    assert_eq!(limited(&server, ["hold_budget", "memory_budget"]).await, [1, 0]);
    for _ in 0..100 {
        assert_eq!(server.post("ana/phone", &large).await.status, 200);
        assert_eq!(phone.data().await.len(), large.len());
    }
    let metrics = server.metrics().await;
    let evicted = metrics.lines().find(|line| line.starts_with(r#"signal_evicted_total{kind="replayed"}"#));
    assert!(evicted.is_some() && !metrics.contains(r#"{kind="held"}"#), "{evicted:?}");
}
