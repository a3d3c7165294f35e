//! Streams, watches and calls end when the token that opened them expires.

use backend_signal::grpc::proto::{
    EndReason, ListDevicesRequest, SendStreamRequest, SubscribeRequest, WatchDevicesRequest,
    send_stream_response::Result as Sent, watch_devices_response::Kind,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::harness::{
    Connection, Server, Sse,
    grpc::{Stream, message},
    tokens::{SECRET, Signer, claims, file, seconds_from_now, token},
    within,
};

async fn server() -> Server {
    let secret = file("secret", SECRET);
    Server::with(&["--auth", "jwt", "--jwt-secret-file", &secret]).await
}

/// A token that expires in some seconds.
pub fn short_lived(device: &str, seconds: i64) -> String {
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

/// How many seconds a token lives that must not expire before a test has opened its streams. A slow machine gets a longer one.
const LIFETIMES: [i64; 3] = [2, 5, 10];

/// What was opened with tokens of the first lifetime that is long enough. `open` gives `None` if a token had expired by then.
pub async fn opened<T>(open: impl AsyncFn(i64) -> Option<T>) -> T {
    for seconds in LIFETIMES {
        if let Some(opened) = open(seconds).await {
            return opened;
        }
    }
    panic!("a token expires within {} s, before its stream is open", LIFETIMES[2]);
}

/// Opens an event stream. `None`: its token has expired.
pub async fn try_open(server: &Server, path: &str, headers: &[(&str, &str)]) -> Option<Sse> {
    let mut connection = Connection::open(server.address).await;
    connection.ask(&format!("GET {path}"), &[headers, &[("accept", "text/event-stream")]].concat()).await;
    let head = connection.head().await;
    assert!([200, 401].contains(&head.status), "{head:?}");
    (head.status == 200).then(|| Sse::after_head(connection))
}

/// `None`: the token of a call has expired.
fn unless_expired<T>(answer: Result<T, Status>) -> Option<T> {
    answer.inspect_err(|status| assert_eq!(status.code(), Code::Unauthenticated, "{status}")).ok()
}

#[tokio::test]
async fn streams_end_with_expired_and_the_device_comes_back_with_a_new_token() {
    let (server, mut phone, watch, many, laptop) = opened(async |seconds| {
        let server = server().await;
        let short = short_lived("bob/phone", seconds);
        let phone = try_open(&server, &format!("/subscribe?token={short}"), &[]).await?;
        let watch = try_open(&server, &format!("/user/bob/devices?token={short}"), &[]).await?;
        let many = try_open(&server, &format!("/devices?user=bob&user=ana&token={short}"), &[]).await?;
        let laptop = bearing(&short_lived("bob/laptop", seconds), SubscribeRequest::default());
        let laptop = unless_expired(Stream::begin(&mut server.grpc().await, laptop).await)?;
        Some((server, phone, watch, many, laptop))
    })
    .await;
    assert_eq!(phone.next().await.name, "signal.ready");
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
    let (server, mut old, other) = opened(async |seconds| {
        let server = server().await;
        let path = |device: &str| format!("/subscribe?token={}", short_lived(device, seconds));
        let old = try_open(&server, &path("bob/phone"), &[]).await?;
        // Opened later, so it does not expire before the one before it.
        let other = try_open(&server, &path("bob/tv"), &[]).await?;
        Some((server, old, other))
    })
    .await;
    assert_eq!(old.next().await.name, "signal.ready");
    let cursor = old.parser.last_event_id.clone();
    let again = [("last-event-id", cursor.as_str())];
    let mut new = Sse::open(server.address, &format!("/subscribe?token={}", token("bob/phone")), &again).await;
    assert_eq!(within(other.end()).await, "expired", "by now the older token has expired");
    let bearer = format!("Bearer {}", token("ana/phone"));
    let post = [("authorization", bearer.as_str()), ("content-type", crate::harness::FORM)];
    assert_eq!(server.request("POST /user/bob/device/phone", &post, b"data=hi").await.status, 200);
    assert_eq!(new.data().await, "hi");
}

#[tokio::test]
async fn a_call_of_send_stream_ends_with_unauthenticated_between_two_requests() {
    let server = server().await;
    // The sender of the requests is kept: without it, the call would end by itself.
    let (_requests, mut responses) = opened(async |seconds| {
        let (requests, receiver) = mpsc::channel(1);
        let call = bearing(&short_lived("bob/phone", seconds), ReceiverStream::new(receiver));
        let mut responses = unless_expired(within(server.grpc().await.send_stream(call)).await)?.into_inner();
        // Fails if the call is over.
        let _ = requests.send(SendStreamRequest { send: Some(message("ana/phone", "", "hi")) }).await;
        let first = unless_expired(within(responses.next()).await.expect("an answer or an end"))?;
        assert!(matches!(first.result, Some(Sent::Error(error)) if error.code == i32::from(Code::NotFound)));
        Some((requests, responses))
    })
    .await;
    let end = within(responses.next()).await.expect("an end").expect_err("a status");
    assert_eq!((end.code(), end.message().contains("expired")), (Code::Unauthenticated, true), "{end}");
}

#[tokio::test]
async fn a_watch_over_grpc_ends_with_the_reason() {
    let server = server().await;
    let mut watch = opened(async |seconds| {
        let request = WatchDevicesRequest { users: vec!["bob".into()], heartbeat: None };
        let request = bearing(&short_lived("bob/phone", seconds), request);
        Some(unless_expired(within(server.grpc().await.watch_devices(request)).await)?.into_inner())
    })
    .await;
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
    let (_requests, mut answers) = opened(async |seconds| {
        let (requests, receiver) = mpsc::channel(1);
        let call = bearing(&short_lived("bob/phone", seconds), ReceiverStream::new(receiver));
        let mut client = ServerReflectionClient::new(channel.clone());
        let mut answers = unless_expired(within(client.server_reflection_info(call)).await)?.into_inner();
        let _ = requests.send(list()).await;
        unless_expired(within(answers.message()).await)?.expect("an answer");
        Some((requests, answers))
    })
    .await;
    assert_eq!(within(answers.message()).await.expect_err("the end").code(), Code::Unauthenticated);
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let check = tonic_health::pb::HealthCheckRequest { service: String::new() };
    assert!(within(health.check(check)).await.is_ok());
}

#[tokio::test]
async fn a_token_that_expired_a_moment_ago_opens_no_stream_and_takes_no_device_over() {
    let server = server().await;
    let mut phone = Sse::open(server.address, &format!("/subscribe?token={}", token("bob/phone")), &[]).await;
    // A new one for each request, so that each is within the 5 s in which the token is good for other requests.
    let old = || short_lived("bob/phone", 0);
    let bearer = |token: &str| format!("Bearer {token}");
    for path in ["/subscribe", "/subscribe/bob/device/phone", "/user/bob/devices", "/devices?user=bob"] {
        let headers = [("accept", "text/event-stream"), ("authorization", &*bearer(&old()))];
        let refused = server.request(&format!("GET {path}"), &headers, b"").await;
        assert_eq!((refused.status, refused.problem().as_str()), (401, "unauthenticated"), "{path}");
        assert!(refused.text().contains("expired"), "{path}: {}", refused.text());
    }
    // No stream could be opened with this ticket.
    assert_eq!(server.request("POST /ticket", &[("authorization", &bearer(&old()))], b"").await.status, 401);
    let mut client = server.grpc().await;
    let (list, watch) = (ListDevicesRequest { user: "bob".into() }, WatchDevicesRequest::default());
    let subscribed = within(client.subscribe(bearing(&old(), SubscribeRequest::default()))).await.map(drop);
    let watched = within(client.watch_devices(bearing(&old(), watch))).await.map(drop);
    let sending = within(client.send_stream(bearing(&old(), tokio_stream::empty()))).await.map(drop);
    for refused in [subscribed, watched, sending] {
        assert_eq!(refused.expect_err("an old token").code(), Code::Unauthenticated);
    }
    let ask = [("authorization", &*bearer(&old()))];
    assert_eq!(server.request("GET /user/bob/devices", &ask, b"").await.text(), r#"["phone"]"#);
    assert_eq!(
        within(client.list_devices(bearing(&old(), list))).await.expect("a list").into_inner().devices,
        ["phone"]
    );
    let post = [("authorization", &*bearer(&old())), ("content-type", crate::harness::FORM)];
    assert_eq!(server.request("POST /user/bob/device/phone", &post, b"data=hi").await.status, 200);
    assert_eq!(phone.data().await, "hi", "the stream goes on");
}
