//! A device is on any node, and a send arrives at any node.

use std::time::Duration;

use backend_signal::grpc::proto::{Continuity, EndReason};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{
    Connection, FORM, Sse, claim,
    cut_proxy::CutProxy,
    nodes::{Nodes, continuity, node},
    path,
    redis_server::RedisServer,
    tokens::{SECRET, file, token},
    until, within,
};

#[tokio::test]
async fn a_device_resumes_on_another_node_and_gets_what_it_missed() {
    let Some(nodes) = Nodes::start(2, &[]).await else { return };
    let phone = nodes[0].sse("bob/phone").await;
    assert_eq!(continuity(&phone), "new");
    let mut cursor = phone.leave();
    for round in 0..6 {
        let (old, new) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
        until(|| old.devices("bob"), |devices| devices == "[]").await;
        // Held on the node that had the device last, whichever node gets them.
        for (from, data) in [(old, "1"), (new, "2"), (old, "3")] {
            assert_eq!(from.post_with_ttl("bob/phone", data, "60").await.status, 202, "{round}");
        }
        let mut phone = new.back("bob/phone", &cursor).await;
        assert_eq!((continuity(&phone), &phone.ready["replayed"]), ("resumed", &json!(3)), "{round}");
        assert_eq!(old.send("bob/phone", "4").await, 200);
        for data in ["1", "2", "3", "4"] {
            assert_eq!(phone.data().await, data, "{round}");
        }
        cursor = phone.leave();
    }
}

#[tokio::test]
async fn a_node_that_has_just_started_reaches_the_devices_of_others() {
    let Some(nodes) = Nodes::certain(1, &[]).await else { return };
    let mut phone = nodes[0].sse("bob/phone").await;
    for round in 0..5 {
        let new = node(&nodes.redis.url(), &[]);
        assert_eq!(new.send("bob/phone", "1").await, 200, "{round}");
        assert_eq!(phone.data().await, "1", "{round}");
    }
}

#[tokio::test]
async fn a_device_that_resumes_elsewhere_gets_again_what_it_did_not_read() {
    let Some(nodes) = Nodes::start(2, &[]).await else { return };
    let phone = nodes[0].sse("bob/phone").await;
    let cursor = phone.parser.last_event_id.clone();
    for data in ["1", "2", "3"] {
        assert_eq!(nodes[1].send("bob/phone", data).await, 200);
    }
    // The stream is still open: its network is gone, and nobody has noticed.
    let mut again = nodes[1].back("bob/phone", &cursor).await;
    assert_eq!((continuity(&again), &again.ready["replayed"]), ("resumed", &json!(3)));
    for data in ["1", "2", "3"] {
        assert_eq!(again.data().await, data);
    }
    drop(phone);
    let mut grpc = nodes[0].grpc_stream("bob/phone", &cursor).await.expect("a stream");
    assert_eq!((grpc.ready.continuity(), grpc.ready.replayed), (Continuity::Resumed, 3));
    for data in ["1", "2", "3"] {
        assert_eq!(grpc.data().await, data);
    }
}

#[tokio::test]
async fn a_send_to_another_node_gets_the_answers_of_the_node_that_has_the_device() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut phone = nodes[0].sse("bob/phone").await;
    assert_eq!(nodes[1].send("bob/phone", "1").await, 200);
    assert!(nodes[1].grpc_send("bob/phone", "2").await.is_ok());
    assert_eq!(nodes[1].post_with_ttl("bob/phone", "3", "60").await.status, 200, "the device is connected");
    for data in ["1", "2", "3"] {
        assert_eq!(phone.data().await, data);
    }
    let absent = nodes[1].post("bob/laptop", "x").await;
    assert_eq!((absent.status, absent.problem().as_str()), (404, "not_connected"));
    assert_eq!(nodes[1].grpc_send("bob/laptop", "x").await, Err(Code::NotFound));
    drop(phone);
    until(|| nodes[1].send("bob/phone", "x"), |status| *status == 404).await;
    // 64 messages wait; one more is too many.
    for number in 0..64 {
        assert_eq!(nodes[1].post_with_ttl("bob/phone", "x", "60").await.status, 202, "{number}");
    }
    let full = nodes[1].post_with_ttl("bob/phone", "x", "60").await;
    assert_eq!((full.status, full.problem().as_str()), (429, "mailbox_full"));
    assert!(!full.header("retry-after").is_empty(), "{full:?}");
}

#[tokio::test]
async fn a_message_that_one_node_holds_for_a_device_nobody_knew_is_delivered_by_another() {
    let Some(nodes) = Nodes::certain(3, &[]).await else { return };
    for (node, data) in nodes.iter().zip(["1", "2", "3"]) {
        assert_eq!(node.post_with_ttl("bob/phone", data, "60").await.status, 202);
    }
    let mut phone = nodes[2].sse("bob/phone").await;
    assert_eq!((continuity(&phone), &phone.ready["replayed"]), ("new", &json!(3)));
    for data in ["1", "2", "3"] {
        assert_eq!(phone.data().await, data);
    }
}

#[tokio::test]
async fn a_newer_page_on_another_node_takes_over_and_the_older_one_gets_204() {
    let Some(nodes) = Nodes::start(3, &[]).await else { return };
    let old = nodes[0].sse("bob/phone").await;
    let cursor = old.parser.last_event_id.clone();
    let new = nodes[1].sse("bob/phone").await;
    assert_eq!(old.end().await, "superseded");
    let claim = claim("bob/phone");
    let back = [("x-user-claim", claim.as_str()), ("last-event-id", cursor.as_str())];
    for node in nodes.iter() {
        let answer = node.request("GET /subscribe", &back, b"").await;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        let refused = node.grpc_stream("bob/phone", &cursor).await.err().expect("refused");
        assert_eq!(refused.code(), Code::Aborted);
    }
    let grpc = nodes[2].grpc_stream("bob/phone", "").await.expect("a stream");
    assert_eq!(new.end().await, "superseded");
    let newest = nodes[0].sse("bob/phone").await;
    assert_eq!(grpc.end().await, (EndReason::Superseded.into(), Code::Aborted));
    drop(newest);
    until(|| nodes[1].devices("bob"), |devices| devices == "[]").await;
    assert_eq!(continuity(&nodes[1].back("bob/phone", &cursor).await), "resumed");
}

#[tokio::test]
async fn a_ticket_opens_one_stream_on_all_nodes_together() {
    let key = file("cluster-ticket-key", "a key of 32 bytes for all tickets");
    let secret = file("secret", SECRET);
    let options = ["--auth", "jwt", "--jwt-secret-file", &secret, "--ticket-key-file", &key];
    let Some(nodes) = Nodes::start(2, &options).await else { return };
    for round in 0..4 {
        let bearer = format!("Bearer {}", token("bob/phone"));
        let answer = nodes[0].request("POST /ticket", &[("authorization", &bearer)], b"").await;
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let path = format!("/subscribe?ticket={}", answer["ticket"].as_str().expect("a ticket"));
        let (first, second) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
        let phone = Sse::open(first.address, &path, &[]).await;
        assert_eq!(phone.ready["user"], "bob");
        let head = format!("GET {path}");
        let used = second.request(&head, &[("accept", "text/event-stream")], b"").await;
        assert_eq!((used.status, used.problem().as_str()), (401, "unauthenticated"));
    }
}

#[tokio::test]
async fn the_devices_of_a_user_are_limited_over_all_nodes() {
    let Some(nodes) = Nodes::certain(2, &["--user-devices", "2"]).await else { return };
    let _streams = [nodes[0].sse("bob/a").await, nodes[1].sse("bob/b").await];
    for node in nodes.iter() {
        let claim = claim("bob/c");
        let headers = [("x-user-claim", claim.as_str()), ("accept", "text/event-stream")];
        let refused = node.request("GET /subscribe", &headers, b"").await;
        assert!(refused.text().ends_with("event: signal.end\ndata: {\"reason\":\"overloaded\"}\n\n"), "{refused:?}");
        let refused = node.grpc_stream("bob/c", "").await.err().expect("refused");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let refused = node.post_with_ttl("bob/c", "x", "60").await;
        assert_eq!((refused.status, refused.problem().as_str()), (429, "too_many"));
    }
    assert_eq!(nodes[0].devices("bob").await, r#"["a","b"]"#);
    // A device that has its place may move, and another user has places of its own.
    assert_eq!(continuity(&nodes[1].sse("bob/a").await), "new");
    drop(nodes[0].sse("ana/a").await);
}

/// Sends numbers until it has sent so many. Gives those that were accepted.
async fn send(address: std::net::SocketAddr, name: char, count: usize) -> Vec<String> {
    let mut accepted = Vec::new();
    let mut connection = Connection::open(address).await;
    for number in 0..count {
        let data = format!("{name}{number}");
        let headers = [("content-type", FORM), ("ttl", "60")];
        let head = format!("POST {}", path("bob/phone"));
        let answer = connection.request(&head, &headers, format!("data={data}").as_bytes()).await;
        match answer.status {
            200 | 202 => accepted.push(data),
            503 => {}
            status => panic!("{status} for {data}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    accepted
}

#[tokio::test]
async fn a_device_that_flies_between_two_nodes_loses_nothing_and_gets_nothing_twice() {
    const COUNT: usize = 200;
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut phone = nodes[0].sse("bob/phone").await;
    let senders: Vec<_> =
        nodes.iter().zip(['a', 'b']).map(|(node, name)| tokio::spawn(send(node.address, name, COUNT))).collect();
    let (mut received, mut cursor) = (Vec::new(), phone.parser.last_event_id.clone());
    for round in 1.. {
        let end = tokio::time::Instant::now() + Duration::from_millis(100);
        while let Ok(event) = tokio::time::timeout_at(end, phone.next()).await {
            cursor.clone_from(&event.id);
            received.extend((!event.name.starts_with("signal.")).then_some(event.data));
        }
        let over = senders.iter().all(tokio::task::JoinHandle::is_finished);
        // Without a word to the node that has it. What is on its way to the old stream is lost, and comes again.
        phone = nodes[round % 2].back("bob/phone", &cursor).await;
        assert_eq!(continuity(&phone), "resumed", "{round}");
        if over {
            break;
        }
    }
    let mut accepted = Vec::new();
    for sender in senders {
        accepted.push(within(sender).await.expect("no panic"));
    }
    while received.len() < accepted.iter().map(Vec::len).sum() {
        received.push(phone.data().await);
    }
    for (name, accepted) in ['a', 'b'].into_iter().zip(accepted) {
        let received: Vec<_> = received.iter().filter(|data| data.starts_with(name)).cloned().collect();
        assert_eq!(received, accepted);
        assert!(accepted.len() > COUNT / 2, "{}", accepted.len());
    }
}

#[tokio::test]
async fn of_two_nodes_that_a_device_reaches_at_once_one_has_it() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    for round in 0..10 {
        let device = format!("bob/{round}");
        let (mut a, mut b) = tokio::join!(nodes[0].sse(&device), nodes[1].sse(&device));
        assert_eq!((continuity(&a), continuity(&b)), ("new", "new"));
        assert_eq!(nodes[round % 2].send(&device, "x").await, 200);
        // One of them was superseded, and the other has the message.
        let (first, second) = (a.next().await, b.next().await);
        let (ended, got) = if first.name == "signal.end" { (first, second) } else { (second, first) };
        assert_eq!((ended.data.as_str(), got.data.as_str()), (r#"{"reason":"superseded"}"#, "x"), "{round}");
    }
}

#[tokio::test]
async fn a_slow_redis_makes_everything_slower_and_nothing_wrong() {
    let Some(redis) = RedisServer::start().await else { return };
    let link = CutProxy::start(redis.address);
    let nodes = [0, 1].map(|_| node(&link.url(), &[]));
    for node in &nodes {
        node.linked().await;
    }
    link.slow(Duration::from_millis(50));
    let mut phone = nodes[0].sse("bob/phone").await;
    for round in 1..5 {
        assert_eq!(nodes[round % 2].send("bob/phone", "x").await, 200);
        assert_eq!(phone.data().await, "x");
        let cursor = phone.parser.last_event_id.clone();
        phone = nodes[round % 2].back("bob/phone", &cursor).await;
        assert_eq!(continuity(&phone), "resumed", "{round}");
        assert!(nodes[(round + 1) % 2].grpc_stream("bob/tablet", "").await.is_ok(), "{round}");
    }
}
