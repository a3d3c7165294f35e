//! What is not there yet says so, in both protocols.

use backend_signal::grpc::proto::{BroadcastRequest, SendRequest, WatchDevicesRequest};
use tonic::Code;

use crate::harness::{FORM, Server, grpc::message, within};

#[tokio::test]
async fn broadcast_watch_and_hold_are_not_implemented_and_do_nothing() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let form = ("content-type", FORM);
    let broadcast = server.request("POST /user/bob/devices", &[form], b"data=x").await;
    let watch = server.request("GET /user/bob/devices", &[("accept", "text/event-stream")], b"").await;
    let hold = server.request("POST /user/bob/device/phone", &[form, ("ttl", "60")], b"data=x").await;
    for answer in [broadcast, watch, hold] {
        assert_eq!((answer.status, answer.problem().as_str()), (501, "not_implemented"));
    }
    let mut client = server.grpc().await;
    let broadcast = BroadcastRequest { user: "bob".into(), event: String::new(), data: "x".into() };
    let hold =
        SendRequest { ttl: Some(prost_types::Duration { seconds: 1, nanos: 0 }), ..message("bob/phone", "", "x") };
    let codes = [
        within(client.broadcast(broadcast)).await.map(drop).map_err(|status| status.code()),
        within(client.watch_devices(WatchDevicesRequest { user: "bob".into() }))
            .await
            .map(drop)
            .map_err(|status| status.code()),
        within(client.send(hold)).await.map(drop).map_err(|status| status.code()),
    ];
    assert_eq!(codes, [Err(Code::Unimplemented); 3]);
    assert_eq!(server.request("POST /user/bob/device/phone", &[form, ("ttl", "0")], b"data=first").await.status, 200);
    assert_eq!(phone.data().await, "first");
}

#[tokio::test]
async fn a_time_to_live_has_to_be_a_whole_number() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    for ttl in ["-1", "1.5", "x", ""] {
        let answer =
            server.request("POST /user/bob/device/phone", &[("content-type", FORM), ("ttl", ttl)], b"data=x").await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid_ttl"), "{ttl}");
    }
}
