//! The metrics, read over HTTP: every number changes when it should, and no label has an id.

use std::{io::Write as _, time::Duration};

use tokio::time::timeout;

use crate::harness::{Connection, FORM, PATIENCE, Server, claim, grpc::message, http2::Http2, until, within};

/// Waits until the metrics have these lines.
async fn wait_for_lines(server: &Server, lines: &[&str]) {
    let missing = |text: &str| lines.iter().find(|line| !text.lines().any(|found| found == **line)).copied();
    let mut text = String::new();
    let asking = async {
        while text.is_empty() || missing(&text).is_some() {
            text = server.metrics().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, asking).await.is_ok(), "{:?} in\n{text}", missing(&text));
}

#[tokio::test]
async fn streams_are_counted_by_continuity_and_so_are_the_messages_that_they_replay() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    let cursor = phone.parser.last_event_id.clone();
    for data in ["1", "2"] {
        assert_eq!(server.post("bob/phone", data).await.status, 200);
        phone.data().await;
    }
    wait_for_lines(&server, &[r#"signal_streams_opened_total{continuity="new"} 1"#, "signal_replayed_total 0"]).await;
    phone = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
    wait_for_lines(&server, &[r#"signal_streams_opened_total{continuity="resumed"} 1"#, "signal_replayed_total 2"])
        .await;
    drop(phone);
    let _grpc = server.grpc_stream("bob/phone", &cursor).await.expect("a stream");
    wait_for_lines(&server, &[r#"signal_streams_opened_total{continuity="resumed"} 2"#, "signal_replayed_total 4"])
        .await;
    let _lost = server.grpc_stream("bob/phone", "of another server").await.expect("a stream");
    let lines = [
        r#"signal_streams_opened_total{continuity="new"} 1"#,
        r#"signal_streams_opened_total{continuity="resumed"} 2"#,
        r#"signal_streams_opened_total{continuity="broken"} 1"#,
        "signal_replayed_total 4",
        "signal_streams 1",
    ];
    wait_for_lines(&server, &lines).await;
}

#[tokio::test]
async fn held_messages_are_counted_with_their_bytes_until_they_expire() {
    let server = Server::start().await;
    // A message takes 64 bytes for its entry, 128 for itself, and its data.
    assert_eq!(server.post_with_ttl("bob/phone", "12345", "1").await.status, 202);
    wait_for_lines(
        &server,
        &[r#"signal_sends_total{outcome="held"} 1"#, "signal_mailbox_bytes 197", "signal_expired_total 0"],
    )
    .await;
    wait_for_lines(&server, &["signal_expired_total 1", "signal_mailbox_bytes 0"]).await;
    let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request = backend_signal::grpc::proto::SendRequest { ttl, ..message("bob/phone", "", "123") };
    within(server.grpc().await.send(request)).await.expect("held");
    wait_for_lines(
        &server,
        &[r#"signal_sends_total{outcome="held"} 2"#, "signal_mailbox_bytes 195", "signal_streams 0"],
    )
    .await;
    let mut phone = server.sse("bob/phone").await;
    assert_eq!(phone.data().await, "123");
    wait_for_lines(&server, &["signal_replayed_total 1", "signal_mailbox_bytes 195", "signal_expired_total 1"]).await;
}

#[tokio::test]
async fn sends_that_are_refused_are_counted_by_their_reason() {
    let server = Server::with(&["--memory-budget", "14000", "--hold-budget", "14000", "--drain-window", "60"]).await;
    assert_eq!(server.post_with_ttl("bob/phone", "absent", "0").await.status, 404);
    assert!(server.grpc_send("bob/phone", "absent").await.is_err());
    wait_for_lines(&server, &[r#"signal_sends_total{outcome="not_connected"} 2"#]).await;
    for _ in 0..64 {
        assert_eq!(server.post_with_ttl("bob/phone", "x", "60").await.status, 202);
    }
    assert_eq!(server.post_with_ttl("bob/phone", "one more", "60").await.status, 429);
    wait_for_lines(&server, &[r#"signal_sends_total{outcome="mailbox_full"} 1"#]).await;
    assert_eq!(server.post_with_ttl("bob/phone", &"x".repeat(1_000), "60").await.status, 503);
    wait_for_lines(&server, &[r#"signal_sends_total{outcome="over_memory_budget"} 1"#]).await;
    let _phones = [server.sse("bob/phone").await, server.sse("ana/phone").await];
    server.drain.start();
    until(|| server.request("GET /readyz", &[], b""), |answer| answer.status == 503).await;
    assert_eq!(server.post_with_ttl("bob/phone", "too late", "60").await.status, 503);
    wait_for_lines(
        &server,
        &[r#"signal_sends_total{outcome="draining"} 1"#, r#"signal_sends_total{outcome="held"} 64"#],
    )
    .await;
}

#[tokio::test]
async fn a_superseded_stream_is_counted_whether_or_not_its_peer_reads_on() {
    let server = Server::start().await;
    let superseded = async |count: usize| {
        wait_for_lines(&server, &[&format!("signal_streams_ended_total{{reason=\"superseded\"}} {count}")]).await;
    };
    let first = server.sse("bob/phone").await;
    let second = server.grpc_stream("bob/phone", "").await.expect("a stream");
    assert_eq!(first.end().await, "superseded");
    superseded(1).await;
    let connection = Http2::with_window(server.address, 10).await;
    let _unread = connection.unread("bob/phone", "/subscribe").await;
    second.end().await;
    superseded(2).await;
    // A page that reconnects replaces its own stream, which does not count as an end.
    let third = server.sse("bob/phone").await;
    superseded(3).await;
    let cursor = third.parser.last_event_id.clone();
    let _fourth = server.sse_with("bob/phone", "/subscribe", &[("last-event-id", &cursor)]).await;
    wait_for_lines(&server, &[r#"signal_streams_opened_total{continuity="resumed"} 1"#]).await;
    superseded(3).await;
}

#[tokio::test]
async fn a_stalled_stream_is_counted_although_its_peer_is_never_told() {
    let server = Server::with(&["--stall-timeout", "0.5"]).await;
    let connection = Http2::with_window(server.address, 10).await;
    let unread_stream = connection.unread("bob/phone", "/subscribe").await;
    let unread_watch = connection.unread("bob/phone", "/user/bob/devices").await;
    wait_for_lines(&server, &["signal_stalled_streams_total 2", "signal_streams 0", "signal_unsent_bytes 0"]).await;
    wait_for_lines(&server, &["signal_stalled_connections_total 0"]).await;
    drop((unread_stream, unread_watch));
    let mut phone = Connection::open(server.address).await;
    phone.ask("GET /subscribe", &[("x-user-claim", &claim("bob/phone"))]).await;
    phone.head().await;
    let data = "x".repeat(60_000);
    until(|| server.post("bob/phone", &data), |answer| answer.status != 200).await;
    wait_for_lines(&server, &["signal_stalled_connections_total 1", "signal_streams 0", "signal_unsent_bytes 0"]).await;
}

#[tokio::test]
async fn one_message_in_16_and_one_request_in_16_are_measured() {
    let server = Server::start().await;
    let mut phone = server.sse("bob/phone").await;
    wait_for_lines(
        &server,
        &[r#"signal_request_seconds_count{route="/subscribe"} 1"#, "signal_send_latency_seconds_count 0"],
    )
    .await;
    let mut sender = Connection::open(server.address).await;
    for _ in 0..1_600 {
        let answer = sender.request("POST /user/bob/device/phone", &[("content-type", FORM)], b"data=x").await;
        assert_eq!(answer.status, 200);
        phone.data().await;
    }
    let lines = [
        r#"signal_sends_total{outcome="delivered"} 1600"#,
        "signal_send_latency_seconds_count 100",
        r#"signal_send_latency_seconds_bucket{le="+Inf"} 100"#,
        r#"signal_requests_total{route="/user/{user}/device/{device}",status="200"} 1600"#,
        r#"signal_request_seconds_count{route="/user/{user}/device/{device}"} 100"#,
        r#"signal_request_seconds_bucket{le="+Inf",route="/user/{user}/device/{device}"} 100"#,
    ];
    wait_for_lines(&server, &lines).await;
    let mut grpc = server.grpc_stream("bob/phone", "").await.expect("a stream");
    for _ in 0..32 {
        server.grpc_send("bob/phone", "x").await.expect("delivered");
        grpc.data().await;
    }
    let lines = [
        "signal_send_latency_seconds_count 102",
        r#"signal_request_seconds_count{route="/backend_signal.v1.Signal/Send"} 2"#,
        r#"signal_request_seconds_count{route="/backend_signal.v1.Signal/Subscribe"} 1"#,
    ];
    wait_for_lines(&server, &lines).await;
}

#[tokio::test]
async fn a_call_is_counted_by_its_method_and_no_peer_can_make_a_label() {
    let server = Server::start().await;
    let _stream = server.grpc_stream("bob/phone", "").await.expect("a stream");
    server.grpc_send("bob/phone", "x").await.expect("delivered");
    let list = backend_signal::grpc::proto::ListDevicesRequest { user: "bob".into() };
    within(server.grpc().await.list_devices(list)).await.expect("a list");
    let mut connection = Http2::open(server.address).await;
    for path in [
        "/backend_signal.v1.Signal/bob",
        "/backend_signal.v1.Signal/bob/phone",
        "/backend_signal.v1.Signal/send",
        "/bob.Signal/Send",
    ] {
        let request = http::Request::post(connection.uri(path)).header("content-type", "application/grpc");
        let response = connection.send(request.body(axum::body::Body::empty()).expect("a request")).await;
        assert_eq!(response.headers()["grpc-status"], "12", "UNIMPLEMENTED: {path}");
    }
    let lines = [
        r#"signal_requests_total{route="/backend_signal.v1.Signal/Subscribe",status="200"} 1"#,
        r#"signal_requests_total{route="/backend_signal.v1.Signal/Send",status="200"} 1"#,
        r#"signal_requests_total{route="/backend_signal.v1.Signal/ListDevices",status="200"} 1"#,
        r#"signal_requests_total{route="/backend_signal.v1.Signal/{*rest}",status="Unimplemented"} 3"#,
        r#"signal_requests_total{route="none",status="Unimplemented"} 1"#,
    ];
    wait_for_lines(&server, &lines).await;
    assert_eq!(server.post("bob/phone", "x").await.status, 200);
    let text = server.metrics().await;
    assert!(!text.contains("bob") && !text.contains("phone"), "an id in\n{text}");
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

#[tokio::test]
async fn the_text_format_is_the_one_that_the_scraper_asks_for() {
    let server = Server::start().await;
    for (accept, expected) in [
        (&[][..], OPEN_METRICS),
        (&["*/*"], OPEN_METRICS),
        (&["text/html, */*"], OPEN_METRICS),
        (&["text/plain"], CLASSIC),
        (&["Text/Plain ; version=0.0.4"], CLASSIC),
        (&["text/plain;version=0.0.4;q=0.3, */*;q=0.1"], CLASSIC),
        (&["text/html", "text/plain"], CLASSIC),
        (&["text/plain;q=0"], OPEN_METRICS),
        (&["text/plain, application/openmetrics-text; Q=0.000"], CLASSIC),
        // What Prometheus sends.
        (
            &["application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
               text/plain;version=0.0.4;q=0.3,*/*;q=0.2"],
            OPEN_METRICS,
        ),
        (&["text/plain", "Application/OpenMetrics-Text"], OPEN_METRICS),
    ] {
        let headers: Vec<_> = accept.iter().map(|accept| ("accept", *accept)).collect();
        let answer = server.request("GET /metrics", &headers, b"").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, expected), "{accept:?}");
        assert_eq!(answer.header("vary"), "accept", "{accept:?}");
        assert_eq!(answer.text().ends_with("# EOF\n"), expected == OPEN_METRICS, "{accept:?}");
    }
}

/// Both texts of a server that has counted something under every label.
async fn both_texts() -> [String; 2] {
    let server = Server::with(&["--memory-budget", "14000", "--hold-budget", "14000"]).await;
    let first = server.sse("bob/phone").await;
    let _second = server.sse("bob/phone").await;
    assert_eq!(first.end().await, "superseded");
    assert_eq!(server.post("bob/phone", "x").await.status, 200);
    let data = "x".repeat(5_000);
    for device in ["bob/a", "bob/b"] {
        assert_eq!(server.post_with_ttl(device, &data, "60").await.status, 202);
    }
    // Evicts a held message.
    assert_eq!(server.post("bob/phone", &data).await.status, 200);
    assert_eq!(server.post_with_ttl("bob/c", &"x".repeat(14_000), "60").await.status, 503);
    let mut texts = [String::new(), String::new()];
    for (text, kind) in texts.iter_mut().zip(["application/openmetrics-text", "text/plain"]) {
        *text = server.request("GET /metrics", &[("accept", kind)], b"").await.text();
    }
    texts
}

/// Checks what `promtool check metrics` checks, and that every name has help.
fn lint(text: &str, suffix_of_counters: &str) -> usize {
    let (mut families, mut family, mut kind) = (0, "", "");
    let mut seen = std::collections::HashSet::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        assert!(seen.insert(line.rsplit_once(' ').expect("a value").0), "twice: {line}");
        if let Some(described) = line.strip_prefix("# HELP ") {
            let help;
            (family, help) = described.split_once(' ').expect("help");
            assert!(!help.trim().is_empty(), "{line}");
            families += 1;
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, found) = typed.split_once(' ').expect("a type");
            assert_eq!(name, family, "help before the type");
            assert!(["counter", "gauge", "histogram"].contains(&found), "{line}");
            assert_eq!(found == "counter" && !suffix_of_counters.is_empty(), name.ends_with("_total"), "{line}");
            kind = found;
        } else {
            let name = line.split(['{', ' ']).next().expect("a name");
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} after {family}"));
            let allowed: &[&str] = match kind {
                "counter" if suffix_of_counters.is_empty() => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(allowed.contains(&suffix), "{line} of the {kind} {family}");
            line.rsplit_once(' ').expect("a value").1.parse::<f64>().expect("a number");
        }
    }
    families
}

#[tokio::test]
async fn both_text_formats_are_well_formed_with_help_for_every_name() {
    let [open_metrics, classic] = both_texts().await;
    let families = lint(&open_metrics, "");
    assert_eq!(families, lint(&classic, "_total"));
    let source = include_str!("../../src/telemetry/metrics.rs");
    let registered = ["registry.zero(\"", "registry.add(\""].map(|call| source.matches(call).count());
    assert_eq!(families, registered.iter().sum::<usize>(), "a family without a sample is not written:\n{open_metrics}");
}

#[tokio::test]
async fn promtool_finds_no_fault_in_the_classic_text() {
    let [_, classic] = both_texts().await;
    let mut promtool = std::process::Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut promtool = match promtool.stderr(std::process::Stdio::piped()).spawn() {
        Ok(promtool) => promtool,
        Err(error) => {
            #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
            let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!must, "with CI=true this test must run: promtool: {error}");
            // Not `eprint!`: the test harness hides its output.
            let _ = std::io::stderr().write_all(b"\nSKIPPED: promtool is not installed\n");
            return;
        }
    };
    promtool.stdin.take().expect("a pipe").write_all(classic.as_bytes()).expect("writable");
    let output = promtool.wait_with_output().expect("a child");
    let said = [output.stdout, output.stderr].concat();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&said).as_ref()), (Some(0), ""), "{classic}");
}
