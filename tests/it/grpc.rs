//! The gRPC service, method by method, with a native client.

use std::time::{Duration, Instant};

use backend_signal::grpc::proto::{
    Address, Continuity, EndReason, ListDevicesRequest, Outcome, SendRequest, SubscribeRequest,
    subscribe_response::Kind,
};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::harness::{
    Server, claim,
    grpc::{Stream, claimed, message},
    within,
};

#[tokio::test]
async fn a_stream_begins_with_ready_and_carries_messages_and_pings() {
    let server = Server::with(&["--heartbeat", "0.5"]).await;
    let mut stream = server.grpc_stream("bob/phone", "").await.expect("a stream");
    let ready = &stream.ready;
    assert_eq!(ready.address, Some(Address { user: "bob".into(), device: "phone".into() }));
    assert_eq!((ready.continuity(), ready.replayed), (Continuity::New, 0));
    assert_eq!(ready.heartbeat.as_ref().map(|it| (it.seconds, it.nanos)), Some((0, 500_000_000)));
    let mut client = server.grpc().await;
    let sent = within(client.send(claimed("ana/laptop", message("bob/phone", "offer", "a\r\nb")))).await;
    assert_eq!(sent.expect("sent").into_inner().outcome(), Outcome::Delivered);
    let found = stream.message().await;
    assert_eq!((found.event.as_str(), found.data.as_str()), ("offer", "a\r\nb"));
    assert_eq!(found.sender, Some(Address { user: "ana".into(), device: "laptop".into() }));
    assert!(found.sent_at.is_some_and(|at| at.seconds > 1_700_000_000));
    assert!(found.cursor > stream.ready.cursor);
    assert_eq!(server.grpc_send("bob/phone", "anonymous").await.map(|sent| sent.outcome()), Ok(Outcome::Delivered));
    assert_eq!(stream.message().await.sender, None);
    let ping = stream.next().await.expect("a response");
    assert!(matches!(&ping, Some(Kind::Ping(ping)) if ping.at.is_some()), "{ping:?}");
}

#[tokio::test]
async fn requests_of_the_wrong_shape_are_invalid_arguments() {
    let server = Server::start().await;
    let _phone = server.sse("bob/phone").await;
    let mut client = server.grpc().await;
    let long = "x".repeat(257);
    for request in [
        message("bob/phone", "", ""),
        message("bob/phone", "a b", "x"),
        message("bob/phone", "signal.end", "x"),
        message("/phone", "", "x"),
        message("bob/..", "", "x"),
        message("bob/a\nb", "", "x"),
        message(&format!("{long}/phone"), "", "x"),
        SendRequest { to: None, ..message("bob/phone", "", "x") },
        SendRequest { ttl: Some(prost_types::Duration { seconds: -1, nanos: 0 }), ..message("bob/phone", "", "x") },
        SendRequest { ttl: Some(prost_types::Duration { seconds: 0, nanos: 1 }), ..message("bob/phone", "", "x") },
    ] {
        let refused = within(client.send(request.clone())).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}");
    }
    for user in ["", "a\0", long.as_str()] {
        let refused = within(client.list_devices(ListDevicesRequest { user: user.into() })).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

/// A call whose message is no request of any method; its status.
async fn malformed_call(server: &Server, method: &str, claim: Option<&str>) -> Status {
    let channel = Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    let mut client = tonic::client::Grpc::new(within(channel.connect()).await.expect("listens"));
    within(client.ready()).await.expect("ready");
    // The first field of `Duration` is a number; in every request it is a string or a message.
    let codec = tonic_prost::ProstCodec::<prost_types::Duration, SendRequest>::default();
    let mut wrong = Request::new(prost_types::Duration { seconds: 7, nanos: 0 });
    if let Some(claim) = claim {
        wrong.metadata_mut().insert("x-user-claim", claim.parse().expect("ASCII"));
    }
    let path = format!("/backend_signal.v1.Signal/{method}").parse().expect("a path");
    within(client.unary(wrong, path, codec)).await.expect_err("refused")
}

const METHODS: [&str; 6] = ["Send", "SendStream", "Broadcast", "ListDevices", "Subscribe", "WatchDevices"];

#[tokio::test]
async fn a_malformed_protobuf_message_is_an_invalid_argument_for_every_method() {
    let server = Server::start().await;
    let claim = claim("bob/phone");
    for method in METHODS {
        let refused = malformed_call(&server, method, Some(&claim)).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{method}: {refused}");
    }
}

#[tokio::test]
async fn an_identity_that_is_not_valid_is_unauthenticated_even_if_the_message_is_malformed() {
    let server = Server::start().await;
    for method in METHODS {
        let refused = malformed_call(&server, method, Some("no claim")).await;
        assert_eq!(refused.code(), Code::Unauthenticated, "{method}: {refused}");
    }
    let refused = malformed_call(&server, "Subscribe", None).await;
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let metrics = server.request("GET /metrics", &[], b"").await.text();
    assert!(metrics.contains("signal_refused_identities_total 6"), "{metrics}");
}

#[tokio::test]
async fn identity_is_checked_before_the_fields_and_the_fields_before_the_device() {
    let server = Server::start().await;
    let mut client = server.grpc().await;
    let mut request = Request::new(message("bob/phone", "", ""));
    request.metadata_mut().insert("x-user-claim", "no claim".parse().expect("ASCII"));
    assert_eq!(within(client.send(request)).await.expect_err("refused").code(), Code::Unauthenticated);
    assert_eq!(server.grpc_send("bob/phone", "").await, Err(Code::InvalidArgument));
    assert_eq!(server.grpc_send("bob/phone", "x").await, Err(Code::NotFound));
}

#[tokio::test]
async fn devices_are_listed_sorted() {
    let server = Server::start().await;
    assert!(server.grpc_devices("bob").await.is_empty());
    let _streams = [server.grpc_stream("bob/phone", "").await, server.grpc_stream("bob/Watch", "").await];
    assert_eq!(server.grpc_devices("bob").await, ["Watch", "phone"]);
}

#[tokio::test]
async fn a_message_over_the_limit_is_out_of_range() {
    let server = Server::with(&["--body-limit", "1000"]).await;
    let _phone = server.sse("bob/phone").await;
    assert_eq!(server.grpc_send("bob/phone", &"x".repeat(2_000)).await, Err(Code::OutOfRange));
    assert!(server.grpc_send("bob/phone", &"x".repeat(900)).await.is_ok());
}

#[tokio::test]
async fn a_stream_ends_at_the_deadline_of_its_call() {
    let server = Server::start().await;
    let mut client = server.grpc().await;
    let mut request = claimed("bob/phone", SubscribeRequest::default());
    request.metadata_mut().insert("grpc-timeout", "300m".parse().expect("ASCII"));
    let began = Instant::now();
    let mut responses = within(client.subscribe(request)).await.expect("a stream").into_inner();
    within(responses.message()).await.expect("ready");
    let ended = within(responses.message()).await.expect_err("too late");
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
    crate::harness::until(|| server.grpc_devices("bob"), Vec::is_empty).await;
}

#[tokio::test]
async fn a_call_whose_message_does_not_arrive_ends_at_its_deadline() {
    let server = Server::start().await;
    let mut connection = crate::harness::http2::Http2::open(server.address).await;
    let (body, _kept) = crate::harness::http2::body_without_end();
    let request = http::Request::post(connection.uri("/backend_signal.v1.Signal/Send"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m")
        .body(body)
        .expect("a request");
    let response = connection.send(request).await;
    assert_eq!(response.headers()["grpc-status"], "4");
}

#[tokio::test]
async fn a_stream_ends_with_a_reason_and_its_status() {
    let server = Server::start().await;
    let first = server.grpc_stream("bob/phone", "").await.expect("a stream");
    let second = server.grpc_stream("bob/phone", "").await.expect("a stream");
    assert_eq!(first.end().await, (EndReason::Superseded.into(), Code::Aborted));
    server.drain.start();
    assert_eq!(second.end().await, (EndReason::Draining.into(), Code::Ok));
}

#[tokio::test]
async fn many_streams_share_one_connection() {
    let server = Server::start().await;
    let mut client = server.grpc().await;
    let mut streams = Vec::new();
    for device in 0..20 {
        streams.push(Stream::open(&mut client, &format!("bob/{device}"), "").await.expect("a stream"));
    }
    for (device, stream) in streams.iter_mut().enumerate() {
        let to = format!("bob/{device}");
        within(client.send(message(&to, "", &to))).await.expect("sent");
        assert_eq!(stream.data().await, to);
    }
}

#[tokio::test]
async fn the_health_check_says_whether_the_service_accepts_work() {
    let server = Server::with(&["--drain-window", "5"]).await;
    let _open = server.sse("bob/phone").await;
    let channel = Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    let mut health = HealthClient::new(within(channel.connect()).await.expect("listens"));
    for service in ["", "backend_signal.v1.Signal"] {
        let request = HealthCheckRequest { service: service.into() };
        assert_eq!(within(health.check(request)).await.expect("known").into_inner().status, 1);
    }
    let unknown = within(health.check(HealthCheckRequest { service: "x".into() })).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);
    server.drain.start();
    // A draining server refuses new calls on old connections, so each probe opens a new one.
    let ask = async || {
        let channel = Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
        let mut health = HealthClient::new(within(channel.connect()).await.expect("listens"));
        let request = HealthCheckRequest { service: "backend_signal.v1.Signal".into() };
        within(health.check(request)).await.map_or(0, |answer| answer.into_inner().status)
    };
    crate::harness::until(ask, |status| *status == 2).await;
}

#[tokio::test]
async fn a_health_watch_of_an_unknown_service_says_so_and_goes_on() {
    let server = Server::start().await;
    let channel = Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
    let mut health = HealthClient::new(within(channel.connect()).await.expect("listens"));
    let watch = within(health.watch(HealthCheckRequest { service: "x".into() })).await;
    let mut watch = watch.expect("a stream").into_inner();
    let first = within(watch.message()).await.expect("no error").expect("a response");
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    server.drain.start();
    assert_eq!(within(watch.message()).await.expect_err("the drain").code(), Code::Unavailable);
}

#[tokio::test]
async fn an_unknown_service_or_method_is_unimplemented() {
    let server = Server::start().await;
    for path in ["/nobody.v1.Nothing/Call", "/backend_signal.v1.Signal/Nothing"] {
        let channel = Channel::from_shared(format!("http://{}", server.address)).expect("a URI");
        let mut client = tonic::client::Grpc::new(within(channel.connect()).await.expect("listens"));
        client.ready().await.expect("ready");
        let codec = tonic_prost::ProstCodec::<ListDevicesRequest, ListDevicesRequest>::default();
        let call = client.unary(Request::new(ListDevicesRequest::default()), path.parse().expect("a path"), codec);
        assert_eq!(within(call).await.expect_err("unknown").code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn a_request_that_is_no_grpc_call_is_415_on_a_grpc_path() {
    let server = Server::start().await;
    let path = "/backend_signal.v1.Signal/Send";
    for (head, kind) in [
        (format!("POST {path}"), "text/plain"),
        (format!("POST {path}"), "application/json"),
        (format!("POST {path}"), "application/grpcx"),
        (format!("GET {path}"), "application/grpc"),
        ("POST /grpc.health.v1.Health/Check".to_owned(), "application/x-www-form-urlencoded"),
    ] {
        let answer = server.request(&head, &[("content-type", kind)], b"x").await;
        assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported_media_type"), "{head} {kind}");
    }
}
