//! Nodes of a cluster: the real executable in several processes, with one Redis.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use super::{Door, FORM, Process, Response, Sse, process, redis_server::RedisServer, until, within};

/// A Redis and the nodes that use it.
pub struct Nodes {
    pub redis: RedisServer,
    pub nodes: Vec<Process>,
}

impl Nodes {
    /// Starts so many nodes with these options. They are linked. `None` if `redis-server` is not installed.
    pub async fn start(count: usize, options: &[&str]) -> Option<Self> {
        let redis = RedisServer::start().await?;
        let nodes: Vec<_> = (0..count).map(|_| node(&redis.url(), options)).collect();
        for node in &nodes {
            node.linked().await;
        }
        Some(Self { redis, nodes })
    }

    /// The same, when it is already certain on every node which devices exist: an absent one is 404.
    pub async fn certain(count: usize, options: &[&str]) -> Option<Self> {
        let nodes = Self::start(count, options).await?;
        for node in nodes.iter() {
            node.certain().await;
        }
        Some(nodes)
    }
}

impl Deref for Nodes {
    type Target = Vec<Process>;

    fn deref(&self) -> &Vec<Process> {
        &self.nodes
    }
}

impl DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut Vec<Process> {
        &mut self.nodes
    }
}

/// Starts a node. It may not be linked yet.
pub fn node(url: &str, options: &[&str]) -> Process {
    Process::start(&[&["--redis", url], options].concat())
}

/// The same on a port that it had before.
pub fn node_on(port: u16, url: &str, options: &[&str]) -> Process {
    let port = port.to_string();
    let fixed = ["--port", &port, "--host", "127.0.0.1", "--redis", url];
    Process::spawn(process::command().args([&fixed, options].concat()))
}

/// How a stream continues the one before it.
pub fn continuity(stream: &Sse) -> &str {
    stream.ready["continuity"].as_str().unwrap_or_default()
}

impl Door {
    /// What the node says of itself to a balancer.
    pub async fn readiness(&self) -> (u16, String) {
        let answer = self.request("GET /readyz", &[], b"").await;
        (answer.status, answer.text())
    }

    /// Waits until the node is linked to Redis.
    pub async fn linked(&self) {
        until(|| self.readiness(), |(status, text)| *status == 200 && !text.contains("degraded")).await;
    }

    /// Waits until the node says that it is not.
    pub async fn degraded(&self) {
        until(|| self.readiness(), |(status, text)| *status == 200 && text.starts_with("degraded: redis")).await;
    }

    /// Waits until the node knows which devices are nowhere.
    pub async fn certain(&self) {
        until(|| self.send("nobody/nowhere", "x"), |status| *status == 404).await;
    }

    /// The stream of a device that comes back with a cursor.
    pub async fn back(&self, device: &str, cursor: &str) -> Sse {
        self.sse_with(device, "/subscribe", &[("last-event-id", cursor)]).await
    }

    /// The stream of who comes and goes of a user's devices. It begins with their list.
    pub async fn watch(&self, user: &str) -> Sse {
        Sse::open_plain(self.address, &format!("/user/{user}/devices"), &[("accept", "text/event-stream")]).await
    }

    /// A message to all devices of a user.
    pub async fn broadcast(&self, user: &str, data: &str) -> Response {
        let (head, body) = (format!("POST /user/{user}/devices"), format!("data={data}"));
        self.request(&head, &[("content-type", FORM)], body.as_bytes()).await
    }

    /// The answer to a list: its status, and the list when there is one.
    pub async fn list(&self, user: &str) -> (u16, String) {
        let answer = self.request(&format!("GET /user/{user}/devices"), &[], b"").await;
        (answer.status, if answer.status == 200 { answer.text() } else { String::new() })
    }

    /// The status of a send.
    pub async fn send(&self, device: &str, data: &str) -> u16 {
        self.post(device, data).await.status
    }

    /// The statuses of sends, one after the other, until one of them has this status. No two may come within 20 ms.
    pub async fn sends_until(&self, device: &str, data: &str, wish: u16) -> Vec<u16> {
        let mut statuses = Vec::new();
        within(async {
            loop {
                statuses.push(self.send(device, data).await);
                if statuses.last() == Some(&wish) {
                    return statuses;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}
