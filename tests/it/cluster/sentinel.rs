//! A failover by Sentinel, and what a primary that was cut off does with and without the settings that `docs/cluster.md` asks for.

use crate::harness::{
    nodes::{continuity, node},
    sentinels::Sentinels,
    until,
};

/// A primary that has no replica any more refuses writes.
const SAFE: [&str; 4] = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"];

#[tokio::test]
async fn after_a_failover_everything_is_told_again_and_nothing_was_404() {
    let Some(mut redis) = Sentinels::start(&SAFE).await else { return };
    let nodes = [node(&redis.url(), &[]), node(&redis.url(), &[])];
    for node in &nodes {
        node.certain().await;
    }
    let (mut here, mut there) = (nodes[0].sse("bob/here").await, nodes[1].sse("bob/there").await);
    redis.primary.kill();
    redis.link.cut();
    nodes[0].degraded().await;
    assert_eq!(nodes[0].send("bob/here", "1").await, 200);
    assert_eq!(here.data().await, "1");
    for (node, device, stream) in [(&nodes[0], "bob/there", &mut there), (&nodes[1], "bob/here", &mut here)] {
        let statuses = node.sends_until(device, "2", 200).await;
        assert!(statuses[..statuses.len() - 1].iter().all(|status| *status == 503), "{statuses:?}");
        assert_eq!(stream.data().await, "2");
    }
    let cursor = there.leave();
    let again = nodes[0].back("bob/there", &cursor).await;
    assert_eq!(continuity(&again), "resumed");
}

#[tokio::test]
async fn a_primary_that_was_cut_off_refuses_and_its_node_gives_no_false_404() {
    let Some(redis) = Sentinels::start(&SAFE).await else { return };
    let (cut_off, other) = (node(&redis.primary.url(), &[]), node(&redis.url(), &[]));
    cut_off.certain().await;
    other.certain().await;
    let (_here, there) = (cut_off.sse("bob/here").await, other.sse("bob/there").await);
    redis.link.cut();
    // The replicas elect another primary. The node of the old one is refused its beats.
    cut_off.degraded().await;
    other.linked().await;
    until(|| other.send("bob/there", "x"), |status| *status == 200).await;
    let mut statuses = Vec::new();
    let seven_seconds = tokio::time::Instant::now() + std::time::Duration::from_secs(7);
    while tokio::time::Instant::now() < seven_seconds {
        statuses.push(cut_off.send("bob/there", "x").await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    assert_eq!(cut_off.send("bob/here", "x").await, 200);
    drop(there);
}

#[tokio::test]
async fn without_min_replicas_to_write_the_node_of_a_cut_off_primary_gives_a_false_404() {
    let Some(redis) = Sentinels::start(&[]).await else { return };
    let (cut_off, other) = (node(&redis.primary.url(), &[]), node(&redis.url(), &[]));
    cut_off.certain().await;
    other.certain().await;
    let mut there = other.sse("bob/there").await;
    redis.link.cut();
    // Two directories now, each with a node that it believes to be the only one. That is what the setting is for.
    let statuses = cut_off.sends_until("bob/there", "x", 404).await;
    assert!(statuses[..statuses.len() - 1].iter().all(|status| [503, 504].contains(status)), "{statuses:?}");
    other.linked().await;
    until(|| other.send("bob/there", "y"), |status| *status == 200).await;
    assert_eq!(there.data().await, "y");
}
