//! Lists, broadcasts and watches over all nodes: never a part that looks whole.

use std::time::Duration;

use backend_signal::grpc::proto::BroadcastRequest;
use serde_json::Value;
use tonic::Code;

use crate::harness::{
    Event, Sse,
    cut_proxy::CutProxy,
    nodes::{Nodes, node},
    redis_server::RedisServer,
    until, within,
};

/// An event of a watch.
fn seen(event: &Event) -> (&str, &str) {
    (&event.name, &event.data)
}

#[tokio::test]
async fn lists_and_broadcasts_are_of_all_nodes() {
    let Some(nodes) = Nodes::certain(3, &[]).await else { return };
    let mut phones = [nodes[0].sse("bob/a").await, nodes[1].sse("bob/b").await, nodes[2].sse("bob/c").await];
    // A device that only has messages waiting is not connected.
    assert_eq!(nodes[1].post_with_ttl("bob/d", "x", "60").await.status, 202);
    for node in nodes.iter() {
        assert_eq!(node.list("bob").await, (200, r#"["a","b","c"]"#.into()));
        assert_eq!(node.grpc_devices("bob").await, ["a", "b", "c"]);
        let both = node.request("GET /devices?user=bob&user=nobody", &[], b"").await.text();
        assert_eq!(both, r#"{"bob":["a","b","c"],"nobody":[]}"#);
        let answer = node.broadcast("bob", "x").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"delivered":["a","b","c"]}"#));
        for phone in &mut phones {
            assert_eq!(phone.data().await, "x");
        }
        let nobody = node.broadcast("nobody", "x").await;
        assert_eq!((nobody.status, nobody.problem().as_str()), (404, "not_connected"));
        assert_eq!(node.list("nobody").await, (200, "[]".into()));
    }
    drop(phones);
    for node in nodes.iter() {
        until(|| node.list("bob"), |answer| *answer == (200, "[]".into())).await;
        assert_eq!(node.broadcast("bob", "x").await.status, 404);
    }
}

#[tokio::test]
async fn a_watch_on_any_node_sees_every_device_come_and_go_once() {
    let Some(nodes) = Nodes::certain(3, &[]).await else { return };
    let a = nodes[0].sse("bob/a").await;
    let mut watches = Vec::new();
    for node in nodes.iter() {
        let mut watch = node.watch("bob").await;
        assert_eq!(seen(&watch.next().await), ("signal.devices", r#"["a"]"#));
        watches.push(watch);
    }
    let b = nodes[1].sse("bob/b").await;
    expect(&mut watches, "signal.online", "b").await;
    drop(a);
    expect(&mut watches, "signal.offline", "a").await;
    // The same page on another node is no news. A new page is.
    let cursor = b.leave();
    let b = nodes[2].back("bob/b", &cursor).await;
    let newer = nodes[0].sse("bob/b").await;
    assert_eq!(b.end().await, "superseded");
    expect(&mut watches, "signal.online", "b").await;
    drop(newer);
    expect(&mut watches, "signal.offline", "b").await;
    let _c = nodes[0].sse("bob/c").await;
    expect(&mut watches, "signal.online", "c").await;
}

/// The next event of each watch, about a device.
async fn expect(watches: &mut [Sse], name: &str, device: &str) {
    for (node, watch) in watches.iter_mut().enumerate() {
        let (event, data) = (watch.next().await, format!(r#"{{"device":"{device}"}}"#));
        assert_eq!(seen(&event), (name, data.as_str()), "at node {node}");
    }
}

#[tokio::test]
async fn the_devices_of_a_killed_node_go_offline_for_watchers_elsewhere() {
    let Some(mut nodes) = Nodes::certain(2, &[]).await else { return };
    let _stays = nodes[0].sse("bob/a").await;
    let _goes = nodes[1].sse("bob/b").await;
    let mut watch = nodes[0].watch("bob").await;
    assert_eq!(seen(&watch.next().await), ("signal.devices", r#"["a","b"]"#));
    nodes.remove(1).signal("KILL");
    assert_eq!(seen(&watch.next().await), ("signal.offline", r#"{"device":"b"}"#));
    assert_eq!(nodes[0].list("bob").await, (200, r#"["a"]"#.into()));
}

#[tokio::test]
async fn while_a_node_is_frozen_lists_and_broadcasts_are_503_and_nothing_is_sent() {
    let Some(nodes) = Nodes::certain(3, &[]).await else { return };
    let mut phones = [nodes[0].sse("bob/a").await, nodes[1].sse("bob/b").await, nodes[2].sse("bob/c").await];
    nodes[2].signal("STOP");
    for node in &nodes[..2] {
        let broadcast = node.broadcast("bob", "lost").await;
        assert_eq!((broadcast.status, broadcast.problem().as_str()), (503, "unreachable"));
        let list = node.request("GET /user/bob/devices", &[], b"").await;
        assert_eq!((list.status, list.problem().as_str()), (503, "unreachable"));
        assert!(!list.header("retry-after").is_empty(), "{list:?}");
        let request = BroadcastRequest { user: "bob".into(), event: String::new(), data: "lost".into() };
        let refused = within(node.grpc().await.broadcast(request)).await.expect_err("unknown");
        assert_eq!(refused.code(), Code::Unavailable);
    }
    // Of other users everything is known.
    let _ana = nodes[0].sse("ana/a").await;
    assert_eq!(nodes[1].list("ana").await, (200, r#"["a"]"#.into()));
    nodes[2].signal("CONT");
    until(|| nodes[1].list("bob"), |answer| answer.1 == r#"["a","b","c"]"#).await;
    assert_eq!(nodes[1].broadcast("bob", "new").await.status, 200);
    for phone in &mut phones {
        assert_eq!(phone.data().await, "new");
    }
}

#[tokio::test]
async fn a_broadcast_that_a_node_does_not_answer_is_504_with_the_devices_that_have_it() {
    let Some(redis) = RedisServer::start().await else { return };
    let link = CutProxy::start(redis.address);
    let nodes = [node(&redis.url(), &[]), node(&redis.url(), &[]), node(&link.url(), &[])];
    for node in &nodes {
        node.certain().await;
    }
    let mut phones = [nodes[0].sse("bob/a").await, nodes[1].sse("bob/b").await, nodes[2].sse("bob/c").await];
    for round in 0..2 {
        // The list of the devices is complete. Then the message itself does not get through.
        link.stall_at("the message");
        let answer = if round == 0 {
            let broadcast = nodes[0].broadcast("bob", "the message").await;
            assert_eq!((broadcast.status, broadcast.problem().as_str()), (504, "unknown_outcome"));
            let document: Value = serde_json::from_slice(&broadcast.body).expect("JSON");
            document["delivered"].to_string()
        } else {
            let request = BroadcastRequest { user: "bob".into(), event: String::new(), data: "the message".into() };
            let unknown = within(nodes[0].grpc().await.broadcast(request)).await.expect_err("unknown");
            assert_eq!(unknown.code(), Code::DeadlineExceeded);
            r#"["a","b"]"#.to_owned()
        };
        assert_eq!(answer, r#"["a","b"]"#);
        for phone in &mut phones[..2] {
            assert_eq!(phone.data().await, "the message");
        }
        // Longer than the clocks of the nodes may differ: it is then too old for the node that gets it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        link.heal();
        until(|| nodes[0].list("bob"), |answer| answer.1 == r#"["a","b","c"]"#).await;
        assert_eq!(nodes[0].broadcast("bob", "new").await.status, 200);
        // What was answered 504 does not come late.
        for phone in &mut phones {
            assert_eq!(phone.data().await, "new");
        }
    }
}
