//! `NODES=2 cargo test --test it parity -- --skip of_one_node` runs tests that were written for one daemon with several nodes behind a balancer.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Server, balancer::Balancer, metric, redis_server::RedisServer, until};

/// What stands behind the address of a [`Server`] with several nodes.
pub struct Several {
    pub nodes: Vec<Server>,
    pub balancer: Balancer,
    _redis: RedisServer,
}

impl Several {
    /// `None`: one daemon is wanted.
    pub async fn start(options: &[&str]) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        #[expect(clippy::disallowed_methods, reason = "what the tests run with is not a part of the configuration")]
        let wanted: usize = std::env::var("NODES").ok()?.parse().expect("a number");
        let redis = RedisServer::start().await.expect("redis-server is installed");
        let (mut nodes, url) = (Vec::new(), redis.url());
        for _ in 0..wanted {
            nodes.push(Server::alone(&[options, &["--redis", &url]].concat()).await);
        }
        for node in &nodes {
            // Until it is certain which devices exist.
            until(|| node.list("nobody"), |answer| answer.0 != 503).await;
            let (first, other) = (nodes[0].drain.clone(), node.drain.clone());
            tokio::spawn(async move {
                first.started().await;
                other.start();
            });
        }
        let (number, addresses) = (COUNT.fetch_add(1, Ordering::Relaxed), nodes.iter().map(|node| node.address));
        let balancer = Balancer::start(&format!("several-{number}"), &addresses.collect::<Vec<_>>()).await;
        Some(Self { nodes, balancer: balancer.expect("nginx is installed"), _redis: redis })
    }
}

impl Server {
    /// The value of a counter, or the sum over all nodes. 0 where a node does not have it.
    pub async fn counted(&self, name: &str) -> u64 {
        let Some(several) = &self.several else { return metric(self, name).await };
        let mut sum = 0;
        for node in &several.nodes {
            let text = node.metrics().await;
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
            sum += value.unwrap_or(0);
        }
        sum
    }
}
