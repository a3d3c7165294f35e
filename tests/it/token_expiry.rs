//! Streams, watches and calls end when the token that opened them expires.

use backend_signal::grpc::proto::{
    EndReason, SendStreamRequest, SubscribeRequest, WatchDevicesRequest, send_stream_response::Result as Sent,
    watch_devices_response::Kind,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::harness::{
    Server, Sse,
    grpc::{Stream, message},
    tokens::{SECRET, Signer, claims, file, seconds_from_now, token},
    until, within,
};

async fn server() -> Server {
    let secret = file("secret", SECRET);
    Server::with(&["--auth", "jwt", "--jwt-secret-file", &secret]).await
}

/// A token that expires in some seconds.
fn short_lived(device: &str, seconds: i64) -> String {
    let mut claims = claims(device);
    claims["exp"] = Value::from(seconds_from_now(seconds));
    Signer::secret(SECRET).sign(&json!({"alg": "HS256"}), &claims)
}

/// A gRPC request with a token.
fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    request
}

#[tokio::test]
async fn streams_end_with_expired_and_the_device_comes_back_with_a_new_token() {
    let server = server().await;
    let short = short_lived("bob/phone", 2);
    let open = format!("/subscribe?token={short}");
    let phone = Sse::open(server.address, &open, &[]).await;
    let watch = Sse::open_plain(
        server.address,
        &format!("/user/bob/devices?token={short}"),
        &[("accept", "text/event-stream")],
    )
    .await;
    let many = format!("/devices?user=bob&user=ana&token={short}");
    let many = Sse::open_plain(server.address, &many, &[("accept", "text/event-stream")]).await;
    let mut client = server.grpc().await;
    let laptop = short_lived("bob/laptop", 2);
    let laptop = Stream::begin(&mut client, bearing(&laptop, SubscribeRequest::default())).await.expect("a stream");
    let cursor = phone.parser.last_event_id.clone();
    let ends = within(async { tokio::join!(phone.end(), watch.end(), many.end()) }).await;
    assert_eq!([ends.0, ends.1, ends.2], ["expired"; 3]);
    assert_eq!(within(laptop.end()).await, (EndReason::Expired.into(), Code::Unauthenticated));
    let again = [("last-event-id", cursor.as_str())];
    let phone = Sse::open(server.address, &format!("/subscribe?token={}", token("bob/phone")), &again).await;
    assert_eq!(phone.ready["continuity"], "resumed");
    let metrics = server.metrics().await;
    assert!(metrics.contains(r#"signal_streams_ended_total{reason="expired"} 5"#), "{metrics}");
}

#[tokio::test]
async fn a_stream_of_a_newer_token_outlives_the_token_of_the_stream_that_it_replaced() {
    let server = server().await;
    let old = Sse::open(server.address, &format!("/subscribe?token={}", short_lived("bob/phone", 2)), &[]).await;
    let other = Sse::open(server.address, &format!("/subscribe?token={}", short_lived("bob/tv", 2)), &[]).await;
    let cursor = old.parser.last_event_id.clone();
    let again = [("last-event-id", cursor.as_str())];
    let mut new = Sse::open(server.address, &format!("/subscribe?token={}", token("bob/phone")), &again).await;
    assert_eq!(within(other.end()).await, "expired", "by now the older token has expired");
    let bearer = format!("Bearer {}", token("ana/phone"));
    let post = [("authorization", bearer.as_str()), ("content-type", crate::harness::FORM)];
    assert_eq!(server.request("POST /user/bob/device/phone", &post, b"data=hi").await.status, 200);
    assert_eq!(new.data().await, "hi");
}

/// How many seconds a token lives that must not expire before the first answer. A slow machine gets a longer one.
const LIFETIMES: [i64; 3] = [2, 5, 10];

#[tokio::test]
async fn a_call_of_send_stream_ends_with_unauthenticated_between_two_requests() {
    let server = server().await;
    for lifetime in LIFETIMES {
        let (requests, receiver) = mpsc::channel(1);
        let call = bearing(&short_lived("bob/phone", lifetime), ReceiverStream::new(receiver));
        let mut responses = within(server.grpc().await.send_stream(call)).await.expect("a call").into_inner();
        // Fails if the call is over.
        let _ = requests.send(SendStreamRequest { send: Some(message("ana/phone", "", "hi")) }).await;
        let first = within(responses.next()).await.expect("an answer or an end");
        let end = match first {
            Err(too_early) if lifetime < LIFETIMES[2] => {
                assert_eq!(too_early.code(), Code::Unauthenticated);
                continue;
            }
            first => {
                let answer = first.expect("OK").result.expect("a result");
                assert!(matches!(answer, Sent::Error(error) if error.code == i32::from(Code::NotFound)));
                within(responses.next()).await.expect("an end").expect_err("a status")
            }
        };
        assert_eq!((end.code(), end.message().contains("expired")), (Code::Unauthenticated, true), "{end}");
        return;
    }
}

#[tokio::test]
async fn a_watch_over_grpc_ends_with_the_reason() {
    let server = server().await;
    let request =
        bearing(&short_lived("bob/phone", 2), WatchDevicesRequest { users: vec!["bob".into()], heartbeat: None });
    let mut watch = within(server.grpc().await.watch_devices(request)).await.expect("a watch").into_inner();
    let Some(Kind::Devices(_)) = within(watch.message()).await.expect("a list").expect("a list").kind else {
        panic!("no list")
    };
    let Some(Kind::End(end)) = within(watch.message()).await.expect("an end").expect("an end").kind else {
        panic!("no end")
    };
    assert_eq!(end.reason, i32::from(EndReason::Expired));
    assert_eq!(within(watch.message()).await.expect_err("a status").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn reflection_needs_a_token_and_ends_with_it_and_health_needs_none() {
    let server = server().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    let channel = within(channel.connect()).await.expect("listens");
    let mut client = ServerReflectionClient::new(channel.clone());
    let list = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let refused = within(client.server_reflection_info(tokio_stream::iter([list()]))).await.expect_err("no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(refused.metadata().get("www-authenticate").expect("a challenge"), r#"Bearer realm="backend-signal""#);
    let (requests, receiver) = mpsc::channel(1);
    let call = bearing(&short_lived("bob/phone", LIFETIMES[1]), ReceiverStream::new(receiver));
    let mut answers = within(client.server_reflection_info(call)).await.expect("a call").into_inner();
    requests.send(list()).await.expect("open");
    assert!(within(answers.message()).await.is_ok_and(|answer| answer.is_some()));
    assert_eq!(within(answers.message()).await.expect_err("the end").code(), Code::Unauthenticated);
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let check = tonic_health::pb::HealthCheckRequest { service: String::new() };
    assert!(within(health.check(check)).await.is_ok());
}

#[tokio::test]
async fn a_stream_with_a_token_that_expired_a_moment_ago_opens_and_says_so() {
    let server = server().await;
    let head = format!("GET /subscribe?token={}", short_lived("bob/phone", -1));
    let stream = server.request(&head, &[], b"").await.text();
    assert!(stream.contains("signal.ready") && stream.ends_with("data: {\"reason\":\"expired\"}\n\n"), "{stream}");
    // The mailbox is gone from the list.
    let bearer = format!("Bearer {}", token("bob/tv"));
    let headers = [("authorization", bearer.as_str())];
    let list = || server.request("GET /user/bob/devices", &headers, b"");
    until(list, |answer| answer.text() == "[]").await;
}
