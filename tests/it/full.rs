//! A server that has reached `--max-connections` or its memory budget: it refuses requests with an answer, and still answers health
//! checks.

use tokio::io::AsyncReadExt as _;

use crate::harness::{
    Connection, EVENT_STREAM, FORM, Process, Server, claim, grpc::framed, http2::Http2, process, until, within,
};

/// How many connections over the limit are answered: `OVER_LIMIT` of `serve/connection_limit.rs`.
const OVER_LIMIT: usize = 16;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A server that allows one connection, and the stream that is this connection.
async fn full() -> (Server, crate::harness::Sse) {
    let server = Server::with(&["--max-connections", "1"]).await;
    let phone = server.sse("bob/phone").await;
    (server, phone)
}

#[tokio::test]
async fn a_full_server_is_healthy_and_ready() {
    let (server, _phone) = full().await;
    for probe in ["GET /healthz", "GET /readyz"] {
        let mut connection = Connection::open(server.address).await;
        let answer = connection.request(probe, &[], b"").await;
        assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{probe}");
        assert_eq!(connection.closed().await, b"", "closed after one request");
    }
}

#[tokio::test]
async fn a_full_server_answers_a_health_check_over_grpc() {
    let (server, _phone) = full().await;
    let mut connection = Http2::open(server.address).await;
    let request = http::Request::post(connection.uri(CHECK)).header("content-type", "application/grpc");
    let body = axum::body::Body::from(framed(&tonic_health::pb::HealthCheckRequest::default()));
    let response = connection.send(request.body(body).expect("a request")).await;
    assert_eq!(response.status(), 200);
    let body = axum::body::Body::new(response.into_body());
    let serving = framed(&tonic_health::pb::HealthCheckResponse { status: 1 });
    assert_eq!(within(axum::body::to_bytes(body, 1 << 10)).await.expect("an answer"), serving);
}

#[tokio::test]
async fn a_full_server_refuses_other_requests_and_says_when_to_come_back() {
    let (server, mut phone) = full().await;
    let devices = "/user/bob/devices";
    let post = "/user/bob/device/phone";
    for (head, body) in
        [(format!("GET {devices}"), ""), (format!("POST {post}"), "data=x"), ("GET /metrics".into(), "")]
    {
        let mut connection = Connection::open(server.address).await;
        // A sender that accepts an event stream must not get the 200 of a refused stream: it means "delivered".
        let accept = if head.starts_with("POST") { "text/event-stream" } else { "*/*" };
        let headers = [("content-type", FORM), ("accept", accept)];
        let answer = connection.request(&head, &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (503, "no_place"), "{head}");
        assert_eq!((answer.header("retry-after"), answer.header("connection")), ("5", "close"), "{head}");
        connection.closed().await;
    }
    let mut connection = Http2::open(server.address).await;
    let request = http::Request::post(connection.uri("/backend_signal.v1.Signal/Send"))
        .header("content-type", "application/grpc");
    let response = connection.send(request.body(axum::body::Body::empty()).expect("a request")).await;
    assert_eq!(response.headers()["grpc-status"], "14", "UNAVAILABLE");
    drop(connection);
    // No refused message was delivered.
    server.drain.start();
    assert_eq!(phone.next().await.name, "signal.end");
}

#[tokio::test]
async fn a_full_server_tells_an_event_source_when_to_come_back() {
    let (server, _phone) = full().await;
    for path in ["/subscribe", "/user/bob/devices"] {
        let (mut connection, claim) = (Connection::open(server.address).await, claim("bob/laptop"));
        let headers = [("accept", "text/event-stream"), ("x-user-claim", claim.as_str())];
        let answer = connection.request(&format!("GET {path}"), &headers, b"").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, EVENT_STREAM), "{path}");
        assert!(
            answer.text().starts_with("retry: ") && answer.text().contains("overloaded"),
            "{path}: {}",
            answer.text()
        );
        connection.closed().await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_makes_room_for_the_next_one() {
    let (server, phone) = full().await;
    assert_eq!(server.request("GET /user/bob/devices", &[], b"").await.status, 503);
    drop(phone);
    let listed = until(|| server.request("GET /user/bob/devices", &[], b""), |answer| answer.status == 200).await;
    assert_eq!(listed.text(), "[]");
}

#[tokio::test]
async fn silent_connections_do_not_block_the_health_checks_of_a_full_server() {
    let (server, _phone) = full().await;
    let mut silent = Vec::new();
    for _ in 0..2 * OVER_LIMIT {
        silent.push(Connection::open(server.address).await);
    }
    assert_eq!(server.request("GET /healthz", &[], b"").await.status, 200);
    let mut ended = 0;
    for connection in &mut silent {
        ended += usize::from(within(connection.stream.read(&mut [0])).await.is_ok_and(|length| length == 0));
    }
    assert_eq!(ended, 2 * OVER_LIMIT);
}

#[tokio::test]
async fn no_more_than_16_connections_over_the_limit_are_accepted() {
    let (server, _phone) = full().await;
    let mut heads = Vec::new();
    for _ in 0..OVER_LIMIT {
        let mut connection = Connection::open(server.address).await;
        connection.write(b"GET /he").await;
        heads.push(connection);
    }
    let mut late = Connection::open(server.address).await;
    late.ask("GET /healthz", &[]).await;
    within(late.stream.readable()).await.expect("open");
    // `late` was accepted only after one of `heads` had timed out.
    assert!(
        heads.iter().any(|head| matches!(head.stream.try_read(&mut [0]), Ok(0))),
        "accepted past the connections over the limit"
    );
    assert_eq!(late.response(false).await.status, 200);
}

#[tokio::test]
async fn the_health_check_of_a_full_server_says_healthy() {
    let process = Process::start(&["--max-connections", "1"]);
    let mut phone = Connection::open(process.address).await;
    phone.ask("GET /subscribe", &[("x-user-claim", &claim("bob/phone"))]).await;
    assert_eq!(phone.head().await.status, 200);
    let port = process.address.port().to_string();
    assert_eq!(process::run(&["healthcheck", "--port", &port]).0, Some(0));
}

/// A daemon that may have 256 descriptors. It keeps a quarter of them back, so it allows 192 connections.
fn limited(options: &str) -> Process {
    let executable = env!("CARGO_BIN_EXE_backend-signal");
    let script = format!("ulimit -n 256 && exec {executable} --host 127.0.0.1 --port 0 --drain-window 1 {options}");
    Process::spawn(process::command_of("sh").args(["-c", &script]))
}

#[tokio::test]
async fn with_few_descriptors_fewer_connections_are_allowed_and_a_warning_says_so() {
    let process = limited("");
    let mut kept = Vec::new();
    for device in 0..192 {
        let mut connection = Connection::open(process.address).await;
        connection.ask("GET /subscribe", &[("x-user-claim", &claim(&format!("bob/{device}")))]).await;
        assert_eq!(connection.head().await.status, 200, "{device}");
        kept.push(connection);
    }
    let more = Connection::open(process.address).await.request("GET /user/bob/devices", &[], b"").await;
    assert_eq!(more.status, 503);
    assert_eq!(Connection::open(process.address).await.request("GET /healthz", &[], b"").await.status, 200);
    let log = process.preface.clone();
    process.signal("TERM");
    assert_eq!(process.exited().0, Some(0));
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("192"), "{log}");
}

#[test]
fn more_allowed_connections_than_descriptors_are_a_warning() {
    for (options, warnings) in [("--max-connections 100", 0), ("--max-connections 1000", 1)] {
        let log = limited(options).preface.clone();
        let found: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(found.len(), warnings, "{options}: {log}");
        assert!(found.iter().all(|line| line.contains("1000") && line.contains("192")), "{log}");
    }
}

#[tokio::test]
async fn with_a_full_memory_budget_an_event_source_is_told_when_to_come_back() {
    // The budget is one message: 64 bytes for its entry, 128 for itself, and 10 of data.
    let server = Server::with(&["--memory-budget", "202", "--stall-timeout", "50"]).await;
    let _unread = Http2::with_window(server.address, 10).await.unread("bob/phone", "/subscribe").await;
    assert_eq!(server.post("bob/phone", "1234567890").await.status, 200);
    let claim = claim("bob/laptop");
    let headers = [("x-user-claim", claim.as_str()), ("accept", "text/event-stream")];
    let told_to_wait = server.request("GET /subscribe", &headers, b"").await;
    assert_eq!((told_to_wait.status, told_to_wait.header("content-type")), (200, EVENT_STREAM));
    assert!(
        told_to_wait.text().starts_with("retry: ") && told_to_wait.text().contains("overloaded"),
        "{}",
        told_to_wait.text()
    );
    assert_eq!(server.request("GET /subscribe", &headers[..1], b"").await.problem(), "over_memory_budget");
    let refused = server.grpc_stream("bob/laptop", "").await.err().expect("refused");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let mut back = server.sse("bob/phone").await;
    assert_eq!(back.data().await, "1234567890", "a device with a mailbox may come back");
}
