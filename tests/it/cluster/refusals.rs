//! Servers that a cluster must not run on: refused at the start, in one line.

use crate::harness::{cut_proxy::CutProxy, process, redis_server::RedisServer};

/// Starts a node, which must refuse. Gives its line.
fn refused(url: &str) -> String {
    let (code, out, errors) = process::run(&["--port", "0", "--host", "127.0.0.1", "--redis", url]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_in_one_line() {
    let Some(redis) = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]).await else { return };
    let line = refused(&redis.url());
    assert!(line.contains("maxmemory-policy") && line.contains("noeviction"), "{line}");
}

#[tokio::test]
async fn a_replica_is_refused_in_one_line() {
    let Some(primary) = RedisServer::start().await else { return };
    let of = format!("127.0.0.1 {}", primary.address.port());
    let Some(replica) = RedisServer::with(&["--replicaof", &of]).await else { return };
    let line = refused(&replica.url());
    assert!(line.contains("replica"), "{line}");
}

#[tokio::test]
async fn a_server_in_cluster_mode_is_refused_in_one_line() {
    let Some(redis) = RedisServer::with(&["--cluster-enabled", "yes"]).await else { return };
    let line = refused(&redis.url());
    assert!(line.contains("Redis Cluster"), "{line}");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_in_one_line() {
    let Some(redis) = RedisServer::start().await else { return };
    let old = CutProxy::replacing(redis.address, Some(("redis_version:7.0.15", "redis_version:6.2.06")));
    let line = refused(&old.url());
    assert!(line.contains("6.2.7"), "{line}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_is_not_in_the_line() {
    let Some(redis) = RedisServer::with(&["--requirepass", "right"]).await else { return };
    let line = refused(&format!("redis://:not-this-one@{}", redis.address));
    assert!(!line.contains("not-this-one"), "{line}");
}

#[tokio::test]
async fn a_server_that_becomes_unfit_keeps_the_link_down_and_the_node_says_why() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let mut node = crate::harness::nodes::node(&redis.url(), &[]);
    node.linked().await;
    let mut phone = node.sse("bob/phone").await;
    assert_eq!(redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await, "OK");
    // It is looked at when the node connects.
    assert!(redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.parse::<u32>().is_ok_and(|killed| killed > 0));
    node.log_until("maxmemory-policy is allkeys-lru");
    node.degraded().await;
    assert_eq!(node.send("bob/phone", "x").await, 200);
    assert_eq!(phone.data().await, "x");
    redis.kill();
    redis.restart_empty().await;
    node.linked().await;
}
