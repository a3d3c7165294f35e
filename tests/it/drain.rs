//! Draining: no message that was answered with 200 is lost, every stream ends with a reason, and the process exits with 0.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use backend_signal::grpc::proto::{EndReason, subscribe_response::Kind};
use tonic::Code;

use crate::harness::{
    Connection, Process, Server, Sse, claim,
    frames::{self, Frames},
    grpc::{Client, Stream, message},
    http2::Http2,
    metric, until, within,
};

/// The receivers of messages under load; a third of them over each of HTTP/1.1, HTTP/2 and gRPC.
const DEVICES: usize = 42;

#[tokio::test]
async fn a_message_answered_200_is_written_before_its_stream_ends() {
    let server = Server::with(&["--drain-window", "2"]).await;
    let connection = Http2::open(server.address).await;
    let mut receivers = Vec::new();
    for device in 0..DEVICES {
        let name = format!("bob/{device}");
        receivers.push(match device % 3 {
            0 => tokio::spawn(received(server.sse(&name).await)),
            1 => tokio::spawn(received(Sse::open_h2(&connection, &name).await)),
            _ => tokio::spawn(received_over_grpc(server.grpc_stream(&name, "").await.expect("a stream"))),
        });
    }
    let sent: Arc<Vec<AtomicUsize>> = Arc::new((0..DEVICES).map(|_| AtomicUsize::new(0)).collect());
    let mut senders = Vec::new();
    for first in 0..2 {
        senders.push(tokio::spawn(send_until_refused(server.address, first, sent.clone())));
        senders.push(tokio::spawn(send_over_grpc_until_refused(server.grpc().await, first, sent.clone())));
    }
    let total = async || sent.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>();
    until(total, |total| *total > 10 * DEVICES).await;
    server.drain.start();
    for sender in senders {
        within(sender).await.expect("no panic");
    }
    for (device, receiver) in receivers.into_iter().enumerate() {
        let received = within(receiver).await.expect("a clean end");
        assert_eq!(received, sent[device].load(Ordering::Relaxed), "{device}");
    }
    server.stopped().await;
}

/// Counts the messages until the stream ends; it must end with a reason and without a reset.
async fn received(mut stream: Sse) -> usize {
    let mut count = 0;
    loop {
        let event = stream.next().await;
        match event.name.as_str() {
            "message" => count += 1,
            "signal.end" => {
                assert_eq!(event.data, r#"{"reason":"draining"}"#);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(stream.try_next().await, None, "a clean end");
    count
}

async fn received_over_grpc(mut stream: Stream) -> usize {
    let mut count = 0;
    loop {
        match stream.next().await.expect("OK at the end") {
            Some(Kind::Message(_)) => count += 1,
            Some(Kind::End(end)) => {
                assert_eq!(end.reason(), EndReason::Draining);
                break;
            }
            Some(_) => {}
            None => panic!("an end without a reason"),
        }
    }
    assert_eq!(stream.next().await.expect("OK at the end"), None);
    count
}

/// Posts to every second device in turn until the server refuses, and counts the accepted messages.
///
/// A refusal is 503, or 404 when the stream ended between the check for the drain and the push.
async fn send_until_refused(address: std::net::SocketAddr, first: usize, sent: Arc<Vec<AtomicUsize>>) {
    loop {
        for device in (first..DEVICES).step_by(2) {
            let head = format!("POST /user/bob/device/{device}");
            let headers = [("content-type", crate::harness::FORM)];
            match Connection::open(address).await.request(&head, &headers, b"data=x").await.status {
                200 => sent[device].fetch_add(1, Ordering::Relaxed),
                503 | 404 => return,
                other => panic!("{other}"),
            };
        }
    }
}

async fn send_over_grpc_until_refused(mut client: Client, first: usize, sent: Arc<Vec<AtomicUsize>>) {
    loop {
        for device in (first..DEVICES).step_by(2) {
            match within(client.send(message(&format!("bob/{device}"), "", "x"))).await {
                Ok(_) => sent[device].fetch_add(1, Ordering::Relaxed),
                Err(status) if [Code::Unavailable, Code::NotFound].contains(&status.code()) => return,
                Err(status) => panic!("{status:?}"),
            };
        }
    }
}

#[tokio::test]
async fn a_request_that_began_before_the_drain_is_answered() {
    let server = Server::with(&["--drain-window", "3"]).await;
    // Open streams keep the drain window open.
    let _open = [server.sse("bob/a").await, server.sse("bob/b").await, server.sse("bob/c").await];
    let mut connection = Connection::open(server.address).await;
    let headers = [("content-type", crate::harness::FORM), ("content-length", "6"), ("expect", "100-continue")];
    connection.ask("POST /user/bob/device/a", &headers).await;
    // The server has begun to read the body.
    assert_eq!(connection.head().await.status, 100);
    server.drain.start();
    until(|| server.request("GET /readyz", &[], b""), |answer| answer.status == 503).await;
    connection.write(b"data=x").await;
    let answer = connection.response(false).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "draining"));
    assert_eq!(connection.closed().await, b"");
    server.stopped().await;
}

#[tokio::test]
async fn without_streams_a_drain_does_not_wait_for_its_window() {
    let process = Process::start(&["--drain-window", "600"]);
    let mut idle = Connection::open(process.address).await;
    assert_eq!(idle.request("GET /healthz", &[], b"").await.status, 200);
    process.signal("TERM");
    assert_eq!(idle.closed().await, b"");
    let began = Instant::now();
    assert_eq!(process.exited().0, Some(0));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test]
async fn while_draining_new_work_is_refused_and_probes_are_answered() {
    let server = Server::with(&["--drain-window", "3"]).await;
    let _open = [server.sse("bob/a").await, server.sse("bob/b").await, server.sse("bob/c").await];
    server.drain.start();
    until(|| server.request("GET /readyz", &[], b""), |answer| answer.status == 503).await;
    assert_eq!(server.request("GET /healthz", &[], b"").await.status, 200);
    let refused = server.post("bob/a", "x").await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "draining"));
    assert_eq!(server.grpc_send("bob/a", "x").await, Err(tonic::Code::Unavailable));
    server.stopped().await;
}

#[tokio::test]
async fn streams_end_over_the_window_and_not_all_at_once() {
    let server = Server::with(&["--drain-window", "2"]).await;
    let mut streams = Vec::new();
    for user in 0..50 {
        streams.push(server.sse(&format!("{user}/phone")).await);
    }
    let began = Instant::now();
    server.drain.start();
    let ends: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            tokio::spawn(async move {
                assert_eq!(stream.end().await, "draining");
                began.elapsed()
            })
        })
        .collect();
    let mut times = Vec::new();
    for end in ends {
        times.push(within(end).await.expect("no panic"));
    }
    times.sort();
    assert!(times[49] > times[0] + Duration::from_millis(500), "{times:?}");
    server.stopped().await;
}

#[tokio::test]
async fn a_signal_drains_the_process_which_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let process = Process::start(&["--drain-window", "1"]);
        let claim = claim("bob/phone");
        let stream = Sse::open(process.address, "/subscribe", &[("x-user-claim", &claim)]).await;
        process.signal(signal);
        assert_eq!(stream.end().await, "draining");
        let (code, log) = process.exited();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("draining") && log.contains("stopped"), "{log}");
    }
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let process = Process::start(&["--drain-window", "60"]);
    let mut streams = Vec::new();
    for user in 0..8 {
        let claim = claim(&format!("{user}/phone"));
        streams.push(Sse::open(process.address, "/subscribe", &[("x-user-claim", &claim)]).await);
    }
    process.signal("TERM");
    until(
        || async { Connection::open(process.address).await.request("GET /readyz", &[], b"").await.status },
        |status| *status == 503,
    )
    .await;
    let began = Instant::now();
    process.signal("TERM");
    let (code, _) = process.exited();
    assert_eq!(code, Some(1));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_request_in_hand_has_the_whole_window_also_without_streams() {
    let process = Process::start(&["--drain-window", "10"]);
    let mut connection = Connection::open(process.address).await;
    let headers = [("content-type", crate::harness::FORM), ("content-length", "6"), ("expect", "100-continue")];
    connection.ask("POST /user/bob/device/phone", &headers).await;
    assert_eq!(connection.head().await.status, 100);
    connection.write(b"dat").await;
    process.signal("TERM");
    let began = Instant::now();
    // Longer than the second that connections get after the window.
    tokio::time::sleep(Duration::from_secs(2)).await;
    connection.write(b"a=x").await;
    let answer = connection.response(false).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "draining"));
    assert_eq!(connection.closed().await, b"");
    let (code, log) = process.exited();
    assert_eq!(code, Some(0));
    assert!(log.contains("all_tasks_ended=true"), "{log}");
    assert!(began.elapsed() < Duration::from_secs(10), "nothing was in hand any more: {:?}", began.elapsed());
}

#[tokio::test]
async fn the_log_says_that_all_has_ended_whatever_was_open() {
    let process = Process::start(&["--drain-window", "1"]);
    let address = process.address;
    let silent = Connection::open(address).await;
    let mut idle = Connection::open(address).await;
    assert_eq!(idle.request("GET /healthz", &[], b"").await.status, 200);
    let idle_h2 = Http2::open(address).await;
    let h2 = Http2::open(address).await;
    let subscribe =
        async |path: &str, device: &str| Sse::open(address, path, &[("x-user-claim", claim(device).as_str())]).await;
    let streams = [
        subscribe("/subscribe", "bob/plain").await,
        subscribe("/subscribe?format=envelope", "bob/envelope").await,
        Sse::open_h2(&h2, "bob/h2").await,
    ];
    let watch = h2.unread("bob/watch", "/user/bob/devices").await;
    let mut legacy = Connection::open(address).await;
    legacy.ask("GET /subscribe?format=legacy", &[("x-user-claim", &claim("bob/legacy"))]).await;
    legacy.head().await;
    process.signal("TERM");
    // This connection comes during the drain, and stays open.
    let mut late = Connection::open(address).await;
    until(async || Connection::open(address).await.request("GET /readyz", &[], b"").await.status, |s| *s == 503).await;
    assert_eq!(late.request("GET /healthz", &[], b"").await.status, 200);
    for stream in streams {
        assert_eq!(stream.end().await, "draining");
    }
    legacy.closed().await;
    // In a thread of its own: meanwhile the connections of HTTP/2 must answer the PING that comes with GOAWAY.
    let (code, log) = tokio::task::spawn_blocking(|| process.exited()).await.expect("no panic");
    assert_eq!(code, Some(0));
    assert!(log.contains("all_tasks_ended=true"), "{log}");
    drop((silent, idle, idle_h2, h2, watch, late));
}

#[tokio::test]
async fn the_log_says_that_not_all_has_ended_when_the_window_is_too_short_for_a_request() {
    let process = Process::start(&["--drain-window", "0.2"]);
    let mut connection = Connection::open(process.address).await;
    let headers = [("content-type", crate::harness::FORM), ("content-length", "6"), ("expect", "100-continue")];
    connection.ask("POST /user/bob/device/phone", &headers).await;
    assert_eq!(connection.head().await.status, 100);
    process.signal("TERM");
    let (code, log) = process.exited();
    assert_eq!(code, Some(0));
    assert!(log.contains("all_tasks_ended=false"), "{log}");
}

#[tokio::test]
async fn a_connection_that_has_asked_nothing_does_not_hold_the_drain() {
    let process = Process::start(&["--drain-window", "600", "--header-timeout", "600"]);
    let mut silent = Connection::open(process.address).await;
    // Connections are accepted in order.
    assert_eq!(Connection::open(process.address).await.request("GET /healthz", &[], b"").await.status, 200);
    process.signal("TERM");
    assert_eq!(silent.closed().await, b"");
    let (code, log) = process.exited();
    assert_eq!(code, Some(0));
    assert!(log.contains("all_tasks_ended=true"), "{log}");
}

#[tokio::test]
async fn goaway_comes_after_the_last_stream_of_a_connection_has_ended() {
    let server = Server::with(&["--drain-window", "2"]).await;
    let mut peer = Frames::open(server.address, &[]).await;
    for (stream, device) in [(1, "bob/a"), (3, "bob/b"), (5, "bob/c")] {
        let claim = claim(device);
        let head = frames::get("/subscribe", &[("x-user-claim", claim.as_str())]);
        peer.send(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, stream, &head).await;
    }
    until(|| server.devices("bob"), |devices| devices == r#"["a","b","c"]"#).await;
    server.drain.start();
    let mut ends = 0;
    loop {
        let frame = peer.next().await.expect("a GOAWAY before the end");
        match frame.kind {
            frames::DATA => ends += usize::from(String::from_utf8_lossy(&frame.payload).contains("signal.end")),
            frames::GOAWAY => break,
            _ => {}
        }
    }
    assert_eq!(ends, 3, "all streams end before GOAWAY");
    while let Some(frame) = peer.next().await {
        assert_ne!(frame.kind, frames::DATA, "after GOAWAY");
        if frame.kind == frames::PING {
            peer.send(frames::PING, frames::ACK, 0, &frame.payload).await;
        }
    }
    server.stopped().await;
}

/// h2 writes GOAWAY before anything else that it has not written.
#[tokio::test]
async fn goaway_does_not_overtake_the_ends_that_a_full_socket_has_not_taken() {
    let server = Server::with(&["--drain-window", "8", "--stall-timeout", "50"]).await;
    let mut peer = Frames::open(server.address, &[(frames::INITIAL_WINDOW_SIZE, 1 << 20)]).await;
    peer.send(frames::WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes()).await;
    let devices = ["bob/a", "bob/b", "bob/c"];
    for (stream, device) in (1..).step_by(2).zip(devices) {
        let claim = claim(device);
        let head = frames::get("/subscribe", &[("x-user-claim", claim.as_str())]);
        peer.send(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, stream, &head).await;
    }
    until(|| server.devices("bob"), |devices| devices == r#"["a","b","c"]"#).await;
    let message = "x".repeat(10_000);
    for device in devices.iter().cycle().take(300) {
        assert_eq!(server.post(device, &message).await.status, 200);
        if metric(&server, "signal_unsent_bytes").await > 50_000 {
            break;
        }
    }
    server.drain.start();
    until(|| metric(&server, "signal_streams"), |streams| *streams == 0).await;
    let mut ends = 0;
    while let frame = peer.next().await.expect("a GOAWAY before the end")
        && frame.kind != frames::GOAWAY
    {
        ends += usize::from(String::from_utf8_lossy(&frame.payload).contains("signal.end"));
    }
    assert_eq!(ends, 3, "all streams end before GOAWAY");
}

#[tokio::test]
async fn an_idle_connection_of_http_2_gets_goaway_when_the_drain_begins() {
    let server = Server::with(&["--drain-window", "600"]).await;
    let _open = [server.sse("bob/a").await, server.sse("bob/b").await];
    let mut peer = Frames::open(server.address, &[]).await;
    peer.caught_up().await;
    server.drain.start();
    assert_eq!(peer.goodbye().await.0, 0, "NO_ERROR");
}

#[tokio::test]
async fn sighup_does_not_end_the_process() {
    let process = Process::start(&["--drain-window", "1"]);
    let stream = Sse::open(process.address, "/subscribe", &[("x-user-claim", &claim("bob/phone"))]).await;
    process.signal("HUP");
    let head = "POST /user/bob/device/phone";
    let post = async || {
        let headers = [("content-type", crate::harness::FORM)];
        Connection::open(process.address).await.request(head, &headers, b"data=x").await.status
    };
    assert_eq!(post().await, 200);
    process.signal("TERM");
    assert_eq!(stream.end().await, "draining");
    let (code, log) = process.exited();
    assert_eq!((code, log.matches("SIGHUP: ").count()), (Some(0), 1), "{log}");
}
