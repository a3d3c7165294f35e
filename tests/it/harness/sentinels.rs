//! A primary with two replicas, and three Sentinels that watch over them.

use super::{cut_proxy::CutProxy, redis_server::RedisServer, until};

/// The set. Everybody reaches the primary through [`Sentinels::link`], except who uses its own URL.
pub struct Sentinels {
    pub primary: RedisServer,
    pub link: CutProxy,
    url: String,
    _others: Vec<RedisServer>,
}

impl Sentinels {
    /// `options` are for all three servers. Everything is connected. `None` if `redis-server` is not installed.
    pub async fn start(options: &[&str]) -> Option<Self> {
        let primary = RedisServer::with(options).await?;
        let link = CutProxy::start(primary.address);
        let port = link.address.port().to_string();
        let (mut replicas, mut sentinels) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let replica = format!("127.0.0.1 {port}");
            replicas.push(RedisServer::with(&[&["--replicaof", &replica], options].concat()).await?);
        }
        for _ in 0..3 {
            // A Sentinel writes this file itself, so it cannot be options.
            let watched = format!(
                "sentinel monitor signal 127.0.0.1 {port} 2\nsentinel down-after-milliseconds signal 1000\n\
                 sentinel failover-timeout signal 3000\n"
            );
            sentinels.push(RedisServer::sentinel(&watched).await?);
        }
        for sentinel in &sentinels {
            let complete = |text: &String| text.contains("num-slaves 2") && text.contains("num-other-sentinels 2");
            until(|| sentinel.command(&["SENTINEL", "MASTER", "signal"]), complete).await;
        }
        let online = |text: &String| text.matches("state=online").count() == 2;
        until(|| primary.command(&["INFO", "replication"]), online).await;
        let hosts: Vec<_> = sentinels.iter().map(|sentinel| sentinel.address.to_string()).collect();
        let url = format!("redis+sentinel://{}/signal", hosts.join(","));
        replicas.append(&mut sentinels);
        Some(Self { primary, link, url, _others: replicas })
    }

    /// The URL for a node that asks the Sentinels for the primary.
    pub fn url(&self) -> String {
        self.url.clone()
    }
}
