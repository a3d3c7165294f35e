//! Redis dies, comes back empty or older, is not there at the start, is full or frozen.

use std::time::Duration;

use crate::harness::{
    Door, Process, Sse, lasting_port,
    nodes::{Nodes, continuity, node},
    redis_server::RedisServer,
    until,
};

/// Devices that are connected to a node.
async fn connect(node: &Door, names: &[&str]) -> Vec<Sse> {
    let mut streams = Vec::new();
    for name in names {
        streams.push(node.sse(name).await);
    }
    streams
}

/// Sends to a device until it gets a message again; no answer on the way may say that it is not connected. 504: the link went down
/// meanwhile.
async fn reachable(node: &Door, device: &str, stream: &mut Sse) {
    let statuses = node.sends_until(device, "again", 200).await;
    assert!(statuses[..statuses.len() - 1].iter().all(|status| [503, 504].contains(status)), "{device}: {statuses:?}");
    assert_eq!(stream.data().await, "again", "{device}");
}

#[tokio::test]
async fn without_redis_local_devices_work_and_everything_else_is_503_until_it_is_back_empty() {
    let Some(mut nodes) = Nodes::certain(2, &[]).await else { return };
    let mut here = nodes[0].sse("bob/here").await;
    let mut there = nodes[1].sse("bob/there").await;
    nodes.redis.kill();
    nodes[0].degraded().await;
    nodes[1].degraded().await;
    assert_eq!(nodes[0].send("bob/here", "1").await, 200);
    assert_eq!(here.data().await, "1");
    for device in ["bob/there", "bob/nowhere"] {
        let refused = nodes[0].post(device, "lost").await;
        assert_eq!((refused.status, refused.problem().as_str()), (503, "unreachable"), "{device}");
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        assert_eq!(nodes[0].post_with_ttl(device, "lost", "60").await.status, 503);
    }
    for head in ["GET /user/bob/devices", "GET /devices?user=bob"] {
        assert_eq!(nodes[0].request(head, &[], b"").await.status, 503, "{head}");
    }
    assert_eq!(nodes[0].broadcast("bob", "lost").await.status, 503);
    // A device that comes is served where it is. Nobody knows what it missed.
    let mut new = nodes[0].sse("bob/new").await;
    assert_eq!(continuity(&new), "broken");
    assert_eq!(nodes[0].send("bob/new", "1").await, 200);
    assert_eq!(new.data().await, "1");
    nodes.redis.restart_empty().await;
    reachable(&nodes[0], "bob/there", &mut there).await;
    reachable(&nodes[1], "bob/here", &mut here).await;
    reachable(&nodes[1], "bob/new", &mut new).await;
    nodes[0].linked().await;
    let statuses = nodes[0].sends_until("bob/nowhere", "x", 404).await;
    assert!(statuses[..statuses.len() - 1].iter().all(|status| *status == 503), "{statuses:?}");
    assert_eq!(nodes[1].list("bob").await, (200, r#"["here","new","there"]"#.into()));
}

#[tokio::test]
async fn redis_that_comes_back_older_is_told_what_it_forgot() {
    let Some(mut nodes) = Nodes::certain(2, &[]).await else { return };
    let old = nodes[0].sse("bob/moved").await;
    let _gone = nodes[0].sse("bob/gone").await;
    assert_eq!(nodes.redis.command(&["SAVE"]).await, "OK");
    // After this moment, one device has moved, one has left for ever, and one is new.
    let mut moved = nodes[1].back("bob/moved", &old.leave()).await;
    assert_eq!(continuity(&moved), "resumed");
    let mut new = nodes[1].sse("bob/new").await;
    nodes.redis.kill();
    nodes[0].degraded().await;
    nodes.redis.restart().await;
    reachable(&nodes[0], "bob/moved", &mut moved).await;
    reachable(&nodes[0], "bob/new", &mut new).await;
    assert_eq!(nodes[1].sends_until("bob/gone", "x", 200).await.last(), Some(&200));
    until(|| nodes[0].list("bob"), |answer| answer.1 == r#"["gone","moved","new"]"#).await;
}

#[tokio::test]
async fn a_flushed_redis_is_noticed_and_told_everything_again() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut streams = connect(&nodes[1], &["bob/a", "bob/b", "ana/c"]).await;
    for round in 0..3 {
        assert_eq!(nodes.redis.command(&["FLUSHALL"]).await, "OK");
        for (stream, device) in streams.iter_mut().zip(["bob/a", "bob/b", "ana/c"]) {
            reachable(&nodes[0], device, stream).await;
        }
        until(|| nodes[0].list("bob"), |answer| answer.0 == 200).await;
        assert_eq!(nodes[0].list("bob").await.1, r#"["a","b"]"#, "{round}");
    }
}

#[tokio::test]
async fn what_somebody_else_wrote_among_the_nodes_is_removed() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut phone = nodes[1].sse("bob/phone").await;
    for row in [["abc", "x"], ["not a node", "1 up"], ["0123456789abcdef", ""]] {
        assert_eq!(nodes.redis.command(&["HSET", "bs:m", row[0], row[1]]).await, "1");
        let exists = ["HEXISTS", "bs:m", row[0]];
        until(|| nodes.redis.command(&exists), |exists| exists == "0").await;
        reachable(&nodes[0], "bob/phone", &mut phone).await;
    }
}

#[tokio::test]
async fn a_node_starts_without_redis_serves_its_own_devices_and_joins_later() {
    let port = lasting_port();
    let url = format!("redis://127.0.0.1:{port}");
    if RedisServer::start().await.is_none() {
        return;
    }
    let nodes: [Process; 2] = [node(&url, &[]), node(&url, &[])];
    for node in &nodes {
        node.degraded().await;
    }
    let mut phone = nodes[0].sse("bob/phone").await;
    assert_eq!(nodes[0].send("bob/phone", "1").await, 200);
    assert_eq!(phone.data().await, "1");
    assert_eq!(nodes[1].send("bob/phone", "x").await, 503);
    let _redis = RedisServer::on(port).await;
    for node in &nodes {
        node.linked().await;
    }
    reachable(&nodes[1], "bob/phone", &mut phone).await;
}

#[tokio::test]
async fn a_redis_that_is_full_is_as_good_as_gone_until_it_has_memory_again() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut here = nodes[0].sse("bob/here").await;
    let mut there = nodes[1].sse("bob/there").await;
    assert_eq!(nodes.redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await, "OK");
    nodes[0].degraded().await;
    assert_eq!(nodes[0].send("bob/here", "1").await, 200);
    assert_eq!(here.data().await, "1");
    let refused = nodes[0].post("bob/there", "lost").await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "unreachable"));
    assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    assert_eq!(nodes.redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await, "OK");
    reachable(&nodes[0], "bob/there", &mut there).await;
    nodes[0].linked().await;
}

#[tokio::test]
async fn what_was_sent_while_redis_was_frozen_never_comes_late() {
    let Some(nodes) = Nodes::certain(2, &[]).await else { return };
    let mut here = nodes[0].sse("bob/here").await;
    let mut there = nodes[1].sse("bob/there").await;
    nodes.redis.signal("STOP");
    let mut unknown = 0;
    // Some of them are on their way when the node notices.
    let statuses = nodes[0].sends_until("bob/there", "late", 503).await;
    for status in &statuses {
        assert!([503, 504].contains(status), "{statuses:?}");
        unknown += usize::from(*status == 504);
    }
    assert!(unknown <= 2, "{statuses:?}");
    assert_eq!(nodes[0].send("bob/here", "1").await, 200);
    assert_eq!(here.data().await, "1");
    // Longer than anybody waits for an answer.
    tokio::time::sleep(Duration::from_secs(2)).await;
    nodes.redis.signal("CONT");
    reachable(&nodes[0], "bob/there", &mut there).await;
}
