//! Tests of the engine on real servers: Redis and Valkey of Debian, as a user with exactly the rights that the documentation names.

mod losses;
mod random_calls;
mod real_server;
mod requirements;
mod same_answers;
mod ways_there;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use super::{RedisEngine, RedisPrefix, RedisServer, RedisSettings};
use crate::{
    auth::{TenantAddress, TenantUser},
    cluster::{
        Happened, Surroundings,
        directory::{About, NodeId},
        wire::{Connection, Engine, INBOX, Published},
    },
    model::DeviceId,
};

/// Runs the tasks of connections in the test's runtime.
#[derive(Default)]
struct OfTest {
    /// How many run.
    tasks: Arc<AtomicUsize>,
}

impl Surroundings for OfTest {
    #[expect(clippy::disallowed_methods, reason = "the tasks of a test end with the test")]
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let tasks = self.tasks.clone();
        tasks.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            task.await;
            tasks.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn wall_clock_ms(&self) -> u64 {
        unreachable!("the engine has the time of the server")
    }

    fn about(&self) -> About {
        About::default()
    }

    fn observe(&self, _: Happened<'_>) {}
}

fn server(url: &str) -> RedisServer {
    let settings =
        RedisSettings { url: url.parse().unwrap(), password: None, ca: None, prefix: RedisPrefix::default() };
    RedisServer::new(settings).unwrap()
}

fn engine(url: &str) -> RedisEngine {
    RedisEngine::new(server(url), Arc::new(OfTest::default()))
}

/// A linked node: its connection, and what comes in.
struct Linked {
    connection: Connection,
    inbox: mpsc::Receiver<Published>,
}

impl Linked {
    async fn to(engine: &dyn Engine, node: u64) -> Self {
        let (sender, inbox) = mpsc::channel(INBOX);
        let connection = engine.connect(NodeId(node), sender).await.unwrap_or_else(|fault| panic!("{fault}"));
        Self { connection, inbox }
    }

    /// Why the connection is over, once it is.
    async fn lost(&self) -> String {
        within(self.connection.lost.wait()).await
    }
}

fn user(text: &str) -> TenantUser {
    TenantUser::from_node(text).unwrap()
}

fn address(of: &str, device: &str) -> TenantAddress {
    TenantAddress { user: user(of), device: DeviceId::new(device).unwrap() }
}

/// A deadline for what must come.
async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("within 20 s")
}
