//! Every route through nginx: the caller is the one of the session, over every protocol.

use axum::body::Body;
use backend_signal::grpc::proto::{
    BroadcastRequest, ListDevicesRequest, SendStreamRequest, SubscribeRequest, subscribe_response::Kind,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use super::{ACCEPT, SetUp, session};
use crate::harness::{
    Connection, FORM, JSON, claim,
    grpc::{framed, message},
    http2::Http2,
    within,
};

/// A request of a browser or an app that has logged in.
fn with_session<T>(user: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("cookie", session(user).parse().expect("ASCII"));
    request
}

/// The sender and the data of a message in an envelope.
fn sent(envelope: &str) -> [Value; 2] {
    let envelope: Value = serde_json::from_str(envelope).expect("JSON");
    [envelope["from"]["user"].clone(), envelope["data"].clone()]
}

#[tokio::test]
async fn the_caller_is_the_one_of_the_session_and_no_header_of_the_client_changes_that() {
    let Some(set_up) = SetUp::start("session").await else { return };
    let mut phone = set_up.stream("bob", "phone").await;
    assert_eq!((&phone.ready["user"], &phone.ready["device"]), (&"bob".into(), &"phone".into()));
    let (forged, cookie) = (claim("eve/phone"), session("ana"));
    for name in ["x-user-claim", "X-USER-CLAIM", "x_user_claim", "x.user.claim"] {
        let headers = [("cookie", cookie.as_str()), (name, &forged), ("content-type", FORM)];
        assert_eq!(set_up.ask("POST /user/bob/device/phone", &headers, b"data=x").await.status, 200, "{name}");
        assert_eq!(sent(&phone.data().await), ["ana", "x"], "{name}");
        // Without a session there is no caller at all.
        for path in ["/user/bob/devices", "/subscribe", "/subscribe/eve/device/phone", "/devices?user=bob"] {
            let answer = set_up.ask(&format!("GET {path}"), &[(name, &forged)], b"").await;
            assert_eq!(answer.status, 401, "{name} {path}");
        }
    }
    let mut client = set_up.grpc().await;
    let mut request = with_session("ana", message("bob/phone", "", "by gRPC"));
    request.metadata_mut().insert("x-user-claim", forged.parse().expect("ASCII"));
    within(client.send(request)).await.expect("delivered");
    assert_eq!(sent(&phone.data().await), ["ana", "by gRPC"]);
    let mut request = Request::new(ListDevicesRequest { user: "bob".into() });
    request.metadata_mut().insert("x-user-claim", forged.parse().expect("ASCII"));
    assert_eq!(within(client.list_devices(request)).await.expect_err("no session").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_login_service_sees_the_original_method_and_uri_and_so_does_the_daemon() {
    let Some(set_up) = SetUp::start("uri").await else { return };
    let (device, cookie) = ("a%2Fb%20%E2%98%8E", session("bob"));
    let path = format!("/subscribe/bob/device/{device}?x=%41+b&&y");
    let mut connection = Connection::open(set_up.http1.address).await;
    connection.ask(&format!("GET {path}"), &[("cookie", &cookie), ACCEPT]).await;
    assert_eq!(connection.head().await.status, 200);
    assert_eq!(set_up.login.asked(), [format!("GET {path}")]);
    assert_eq!(set_up.ask("GET /user/bob/devices", &[("cookie", &cookie)], b"").await.text(), r#"["a/b ☎"]"#);
    let post = format!("POST /user/bob/device/{device}");
    let headers = [("cookie", cookie.as_str()), ("content-type", JSON)];
    assert_eq!(set_up.ask(&post, &headers, br#"{"data":"x"}"#).await.status, 200);
    assert_eq!(set_up.login.asked()[1..], [post]);
}

#[tokio::test]
async fn one_server_block_serves_both_versions_of_http_and_grpc_in_any_order() {
    let Some(set_up) = SetUp::start("protocols").await else { return };
    let mut phone = set_up.stream("bob", "phone").await;
    let (mut client, mut http2) = (set_up.grpc().await, Http2::open(set_up.http2.address).await);
    let mut request = with_session("bob", SubscribeRequest::default());
    request.metadata_mut().insert("x-signal-device", "laptop".parse().expect("ASCII"));
    let mut laptop = within(client.subscribe(request)).await.expect("a stream").into_inner();
    let ready = within(laptop.message()).await.expect("a response").and_then(|response| response.kind);
    assert!(matches!(ready, Some(Kind::Ready(_))), "{ready:?}");
    // One after the other, so that idle connections to the daemon are used again. In a common pool those of HTTP/1.1 and of HTTP/2
    // would be mixed up.
    for round in 0..5 {
        assert_eq!(set_up.post("ana", "bob/phone", "a").await, 200, "{round}");
        within(client.send(with_session("ana", message("bob/phone", "", "b")))).await.expect("delivered");
        let request = http::Request::post(http2.uri("/user/bob/device/phone")).header("cookie", session("ana"));
        let request = request.header("content-type", FORM).body(Body::from("data=c")).expect("a request");
        assert_eq!(http2.send(request).await.status(), 200, "{round}");
        let (cookie, web) = (session("ana"), "application/grpc-web+proto");
        let headers = [("cookie", cookie.as_str()), ("content-type", web)];
        let body = framed(&message("bob/phone", "", "d"));
        let web = set_up.ask("POST /backend_signal.v1.Signal/Send", &headers, &body).await;
        assert_eq!((web.status, web.header("grpc-status")), (200, ""), "{web:?}");
        for expected in ["a", "b", "c", "d"] {
            assert_eq!(sent(&phone.data().await), ["ana", expected], "{round}");
        }
    }
    let request = BroadcastRequest { user: "bob".into(), data: "all".into(), ..BroadcastRequest::default() };
    let delivered = within(client.broadcast(with_session("ana", request))).await.expect("delivered");
    assert_eq!(delivered.into_inner().delivered, ["laptop", "phone"]);
    let received = within(laptop.message()).await.expect("a response").and_then(|response| response.kind);
    assert!(matches!(&received, Some(Kind::Message(message)) if message.data == "all"), "{received:?}");
    // Without keep-alive each of the requests would have opened a connection.
    let metrics = Connection::open(set_up.daemon.address).await.request("GET /metrics", &[], b"").await.text();
    let connections = metrics.lines().find_map(|line| line.strip_prefix("signal_connections_total "));
    let connections: u32 = connections.expect("a metric").parse().expect("a number");
    assert!(connections < 12, "{connections} connections for 21 requests and 2 streams");
}

/// Asks which services there are, in one version of the reflection protocol. The types of both versions have the same names.
macro_rules! services {
    ($version:ident, $channel:expr) => {{
        use $version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest,
        };
        let message_request = Some(MessageRequest::ListServices(String::new()));
        let question = ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new($channel);
        let mut said = String::new();
        // About 1 of 25 calls through nginx ends with OK and no answer, for a reason that is not known. Directly none does.
        for _ in 0..5 {
            // Open until the answer has come, as tools keep it.
            let questions =
                tokio_stream::StreamExt::chain(tokio_stream::iter([question.clone()]), tokio_stream::pending());
            let call = within(client.server_reflection_info(with_session("ana", questions))).await;
            said = format!("{:?}", within(call.expect("a call").into_inner().message()).await.expect("an answer"));
            if said != "None" {
                break;
            }
        }
        said
    }};
}

#[tokio::test]
async fn health_and_reflection_of_grpc_come_through() {
    let Some(set_up) = SetUp::start("health").await else { return };
    let channel = Channel::from_shared(format!("http://{}", set_up.http2.address)).expect("a URI");
    let channel = within(channel.connect()).await.expect("listens");
    let check = HealthCheckRequest { service: "backend_signal.v1.Signal".into() };
    let health = within(HealthClient::new(channel.clone()).check(with_session("ana", check))).await.expect("an answer");
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    for services in [services!(v1, channel.clone()), services!(v1alpha, channel.clone())] {
        assert!(services.contains("backend_signal.v1.Signal"), "{services}");
    }
    // Who is not logged in gets a status of gRPC and no page of HTML.
    let check = HealthCheckRequest { service: String::new() };
    let refused = within(HealthClient::new(channel).check(check)).await.expect_err("no session");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

#[tokio::test]
async fn a_send_stream_call_may_carry_more_than_the_body_limit_of_nginx() {
    let Some(set_up) = SetUp::start("send-stream").await else { return };
    let mut phone = set_up.stream("bob", "phone").await;
    let mut client = set_up.grpc().await;
    let (requests, receiver) = mpsc::channel(1);
    let call = client.send_stream(with_session("ana", ReceiverStream::new(receiver)));
    let data = "x".repeat(90_000);
    let send = || SendStreamRequest { send: Some(message("bob/phone", "", &data)) };
    requests.send(send()).await.expect("open");
    let mut answers = within(call).await.expect("a call").into_inner();
    for count in 1..=16 {
        let answer = format!("{:?}", within(answers.next()).await.expect("an answer").expect("no error"));
        assert!(answer.contains("Sent("), "{count}: {answer:.200}");
        assert!(phone.data().await.len() > data.len(), "{count}");
        requests.send(send()).await.expect("open");
    }
}

#[tokio::test]
async fn metrics_are_closed_however_they_are_written() {
    let Some(set_up) = SetUp::start("metrics").await else { return };
    let cookie = session("bob");
    for path in ["/metrics", "/metrics?x", "/%6detrics", "//metrics", "/./metrics", "/x/../metrics"] {
        let answer = set_up.ask(&format!("GET {path}"), &[("cookie", &cookie)], b"").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("signal_"), "{path}");
    }
    assert_eq!(set_up.ask("GET /healthz", &[("cookie", &cookie)], b"").await.status, 200);
}

#[tokio::test]
async fn pages_of_the_own_and_of_listed_origins_may_act_and_pages_of_other_sites_may_not() {
    let Some(set_up) = SetUp::start("origins").await else { return };
    let _phone = set_up.stream("bob", "phone").await;
    let cookie = session("ana");
    // The harness asks for the host `localhost`.
    for (site, origin, status) in [
        ("same-origin", "https://localhost", 200),
        ("", "https://localhost", 200),
        ("cross-site", "https://signal.example.org", 200),
        ("cross-site", "https://evil.example", 403),
        ("", "https://evil.example", 403),
        ("same-site", "https://evil.localhost", 403),
    ] {
        let mut headers = vec![("cookie", cookie.as_str()), ("content-type", FORM), ("origin", origin)];
        if !site.is_empty() {
            headers.push(("sec-fetch-site", site));
        }
        let answer = set_up.ask("POST /user/bob/device/phone", &headers, b"data=x").await;
        assert_eq!(answer.status, status, "{site} {origin}");
    }
    let image = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "image")];
    assert_eq!(set_up.ask("GET /subscribe?device=phone", &image, b"").await.status, 403);
    // A preflight has no cookie.
    let preflight = [
        ("origin", "https://signal.example.org"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let answer = set_up.ask("OPTIONS /user/bob/device/phone", &preflight, b"").await;
    assert_eq!((answer.status, answer.header("access-control-allow-credentials")), (204, "true"));
    assert_eq!(answer.header("access-control-allow-origin"), "https://signal.example.org");
}
