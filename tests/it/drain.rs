//! Stopping: nothing that was answered with 200 is lost, every stream is told, and the process ends with 0.

use std::time::{Duration, Instant};

use crate::harness::{Connection, Process, Server, Sse, claim, http2::Http2, until, within};

#[tokio::test]
async fn a_message_answered_200_is_written_before_its_stream_ends() {
    let server = Server::with(&["--drain-window", "2"]).await;
    let connection = Http2::open(server.address).await;
    let mut streams = Vec::new();
    for device in 0..40 {
        let name = format!("bob/{device}");
        streams.push(if device % 2 == 0 { server.sse(&name).await } else { Sse::open_h2(&connection, &name).await });
    }
    let address = server.address;
    let senders: Vec<_> = (0..4).map(|first| tokio::spawn(send_until_refused(address, first))).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.drain.start();
    let mut received = Vec::new();
    for mut stream in streams {
        let mut count = 0;
        loop {
            let event = stream.next().await;
            match event.name.as_str() {
                "message" => count += 1,
                "signal.end" => break assert_eq!(event.data, r#"{"reason":"draining"}"#),
                _ => {}
            }
        }
        assert_eq!(stream.try_next().await, None, "a clean end");
        received.push(count);
    }
    let mut accepted = vec![0; 40];
    for sender in senders {
        for (device, count) in within(sender).await.expect("no panic") {
            accepted[device] += count;
        }
    }
    assert_eq!(received, accepted);
    assert!(accepted.iter().sum::<i32>() > 40, "{accepted:?}");
    server.stopped().await;
}

/// Posts to every fourth device in turn until the server takes no more; gives how many each accepted.
async fn send_until_refused(address: std::net::SocketAddr, first: usize) -> Vec<(usize, i32)> {
    let devices: Vec<usize> = (first..40).step_by(4).collect();
    let mut accepted: Vec<_> = devices.iter().map(|device| (*device, 0)).collect();
    loop {
        for (device, count) in &mut accepted {
            let head = format!("POST /user/bob/device/{device}");
            let headers = [("content-type", crate::harness::FORM)];
            match Connection::open(address).await.request(&head, &headers, b"data=x").await.status {
                200 => *count += 1,
                503 | 404 => return accepted,
                other => panic!("{other}"),
            }
        }
    }
}

#[tokio::test]
async fn while_draining_nothing_new_is_taken_and_probes_are_answered() {
    let server = Server::with(&["--drain-window", "3"]).await;
    let _held = [server.sse("bob/a").await, server.sse("bob/b").await, server.sse("bob/c").await];
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
    let claim = claim("bob/phone");
    let mut connections = Vec::new();
    for path in 0..8 {
        let device = serde_json::json!({"userid": path, "clientid": "phone"}).to_string();
        connections.push(Sse::open(process.address, "/subscribe", &[("x-user-claim", &device)]).await);
    }
    drop(claim);
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
