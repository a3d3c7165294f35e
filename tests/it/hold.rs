//! Holding a message for a device that is not connected, because its sender asked for it.

use backend_signal::grpc::proto::{Continuity, Outcome, SendRequest};
use tonic::Code;

use crate::harness::{Connection, FORM, Response, Server, claim, grpc::message, until, within};

async fn send(server: &Server, data: &str, seconds: i64) -> Result<Outcome, Code> {
    let ttl = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = SendRequest { ttl, ..message("bob/phone", "", data) };
    let sent = within(server.grpc().await.send(request)).await;
    sent.map(|answer| answer.into_inner().outcome()).map_err(|status| status.code())
}

#[tokio::test]
async fn a_message_with_a_time_to_live_waits_for_its_device() {
    let server = Server::start().await;
    let held = server.post_with_ttl("bob/phone", "1", "60").await;
    assert_eq!((held.status, held.body.len()), (202, 0));
    assert_eq!(send(&server, "2", 60).await, Ok(Outcome::Held));
    assert_eq!(server.devices("bob").await, "[]", "a device with held messages is not connected");
    assert_eq!(server.post_with_ttl("bob/phone", "now", "0").await.status, 404);
    assert_eq!(send(&server, "now", 0).await, Err(Code::NotFound));
    let mut phone = server.sse("bob/phone").await;
    assert_eq!((&phone.ready["continuity"], &phone.ready["replayed"]), (&"new".into(), &2.into()));
    assert_eq!((phone.data().await.as_str(), phone.data().await.as_str()), ("1", "2"));
    assert_eq!(
        server.post_with_ttl("bob/phone", "3", "60").await.status,
        200,
        "delivered, because the device is connected"
    );
    assert_eq!(send(&server, "4", 60).await, Ok(Outcome::Delivered));
    assert_eq!((phone.data().await.as_str(), phone.data().await.as_str()), ("3", "4"));
}

#[tokio::test]
async fn waiting_messages_are_written_together_until_they_are_16_kib() {
    let server = Server::start().await;
    let (small, large) = ("x".repeat(100), "y".repeat(20_000));
    for data in [&small, &small, &small, &large, &large, &small] {
        assert_eq!(server.post_with_ttl("bob/phone", data, "60").await.status, 202);
    }
    let mut phone = Connection::open(server.address).await;
    phone.ask("GET /subscribe", &[("x-user-claim", &claim("bob/phone"))]).await;
    assert_eq!(phone.head().await.status, 200);
    let mut messages = Vec::new();
    while messages.iter().sum::<usize>() < 6 {
        let chunk = String::from_utf8(phone.chunk().await.expect("more to come")).expect("UTF-8");
        messages.push(chunk.lines().filter(|line| line.starts_with("data: x") || line.starts_with("data: y")).count());
    }
    // The opening may come alone, and a large message in several chunks.
    messages.retain(|count| *count > 0);
    assert_eq!(messages, [4, 1, 1], "together until they are 16 KiB");
}

#[tokio::test]
async fn a_held_message_comes_over_grpc_too() {
    let server = Server::start().await;
    assert_eq!(server.post_with_ttl("bob/phone", "1", "60").await.status, 202);
    let mut phone = server.grpc_stream("bob/phone", "").await.expect("a stream");
    assert_eq!(phone.ready.replayed, 1);
    assert_eq!(phone.data().await, "1");
}

#[tokio::test]
async fn a_held_message_is_dropped_when_its_time_is_over() {
    let server = Server::start().await;
    assert_eq!(server.post_with_ttl("bob/phone", "short", "1").await.status, 202);
    assert_eq!(server.post_with_ttl("bob/phone", "long", "60").await.status, 202);
    until(|| server.metrics(), |text| text.contains("signal_expired_total 1")).await;
    let mut phone = server.sse("bob/phone").await;
    assert_eq!(phone.ready["replayed"], 1);
    assert_eq!(phone.data().await, "long");
}

#[tokio::test]
async fn the_server_limits_how_long_it_holds() {
    let server = Server::with(&["--hold-limit", "0.3"]).await;
    assert_eq!(server.post_with_ttl("bob/phone", "x", "99999999999999999999999").await.status, 202);
    until(|| server.metrics(), |text| text.contains("signal_expired_total 1")).await;
    assert_eq!(server.sse("bob/phone").await.ready["replayed"], 0);
}

#[tokio::test]
async fn the_answer_says_for_how_long_the_message_is_held() {
    let server = Server::with(&["--hold-limit", "90.5"]).await;
    let is_exposed =
        |answer: &Response| answer.header("access-control-expose-headers").split(',').any(|name| name == "ttl");
    for (asked, held) in [("30", "30"), ("90", "90"), ("91", "90"), ("99999999999999999999999", "90")] {
        let answer = server.post_with_ttl("bob/phone", "x", asked).await;
        assert_eq!((answer.status, answer.header("ttl")), (202, held), "{asked}");
        assert!(is_exposed(&answer), "{answer:?}");
        // A request of a page takes the router.
        let headers = [("content-type", FORM), ("ttl", asked), ("origin", "https://a.example")];
        let answer = server.request("POST /user/bob/device/phone", &headers, b"data=x").await;
        assert_eq!((answer.status, answer.header("ttl")), (202, held), "{asked} from a page");
        assert!(is_exposed(&answer), "{answer:?}");
        let seconds = asked.parse().unwrap_or(i64::MAX);
        let request =
            SendRequest { ttl: Some(prost_types::Duration { seconds, nanos: 0 }), ..message("bob/phone", "", "x") };
        let sent = within(server.grpc().await.send(request)).await.expect("held");
        assert_eq!(sent.metadata().get("ttl").expect("a time"), held, "{asked} over gRPC");
    }
    let _phone = server.sse("bob/phone").await;
    assert_eq!(server.post_with_ttl("bob/phone", "x", "30").await.header("ttl"), "", "delivered");
    let request =
        SendRequest { ttl: Some(prost_types::Duration { seconds: 30, nanos: 0 }), ..message("bob/phone", "", "x") };
    let sent = within(server.grpc().await.send(request)).await.expect("delivered");
    assert!(sent.metadata().get("ttl").is_none());
}

#[tokio::test]
async fn a_time_to_live_has_to_be_a_whole_number() {
    let server = Server::start().await;
    for ttl in ["-1", "1.5", "x", "", "1, 2"] {
        let answer = server.post_with_ttl("bob/phone", "x", ttl).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid_ttl"), "{ttl}");
    }
    assert_eq!(send(&server, "x", -1).await, Err(Code::InvalidArgument));
}

#[tokio::test]
async fn a_mailbox_holds_at_most_64_messages() {
    let server = Server::start().await;
    for number in 0..64 {
        assert_eq!(server.post_with_ttl("bob/phone", &number.to_string(), "60").await.status, 202);
    }
    assert_eq!(server.post_with_ttl("bob/phone", "one more", "60").await.problem(), "mailbox_full");
    assert_eq!(send(&server, "one more", 60).await, Err(Code::ResourceExhausted));
    let mut phone = server.sse("bob/phone").await;
    for number in 0..64 {
        assert_eq!(phone.data().await, number.to_string());
    }
    assert_eq!(server.post("bob/phone", "room again").await.status, 200);
}

#[tokio::test]
async fn a_device_that_comes_back_after_a_held_message_expired_is_told_that_one_is_missing() {
    let server = Server::start().await;
    let cursor = server.sse("bob/phone").await.leave();
    until(|| server.devices("bob"), |devices| devices == "[]").await;
    assert_eq!(server.post_with_ttl("bob/phone", "missed", "1").await.status, 202);
    until(|| server.metrics(), |text| text.contains("signal_expired_total 1")).await;
    let phone = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
    assert_eq!(phone.ready["continuity"], "broken");
}

#[tokio::test]
async fn a_device_whose_held_message_expired_before_its_first_stream_is_told_that_one_is_missing() {
    for over_grpc in [false, true] {
        let server = Server::start().await;
        assert_eq!(server.post_with_ttl("bob/phone", "missed", "1").await.status, 202);
        assert_eq!(server.post_with_ttl("bob/phone", "kept", "60").await.status, 202);
        until(|| server.metrics(), |text| text.contains("signal_expired_total 1")).await;
        if over_grpc {
            let mut phone = server.grpc_stream("bob/phone", "").await.expect("a stream");
            assert_eq!((phone.data().await.as_str(), phone.ready.continuity()), ("kept", Continuity::Broken));
        } else {
            let mut phone = server.sse("bob/phone").await;
            assert_eq!((phone.data().await.as_str(), &phone.ready["continuity"]), ("kept", &"broken".into()));
        }
    }
}

#[tokio::test]
async fn held_messages_expire_in_time_with_any_heartbeat() {
    let server = Server::with(&["--heartbeat", "12000", "--stall-timeout", "50"]).await;
    for device in 0..40 {
        assert_eq!(server.post_with_ttl(&format!("bob/{device}"), "x", "1").await.status, 202);
    }
    until(|| server.metrics(), |text| text.contains("signal_expired_total 40")).await;
}
