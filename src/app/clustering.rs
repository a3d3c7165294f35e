//! This daemon among other nodes: gives the node code the real world, and joins and leaves in the right order.

use std::{pin::Pin, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::link_log::LinkLog;
use crate::{
    auth::UsedTickets,
    budget::Budget,
    cluster::{
        Cluster, Happened, Surroundings,
        directory::{About, NodeId},
        redis_engine::{RedisEngine, RedisServer},
    },
    drain::Drain,
    hub::{Hub, Limits, Local},
    telemetry::{ClusterMetrics, Metrics},
    wall_clock,
};

/// The other nodes, as the rest of the daemon uses them.
#[derive(Clone)]
pub(super) struct OtherNodes {
    cluster: Cluster,
    around: Arc<RealWorld>,
}

/// What the node code needs from outside.
struct RealWorld {
    drain: Drain,
    metrics: ClusterMetrics,
    log: LinkLog,
    /// For the counts that each beat tells. Forgotten at the end, because the hub knows the cluster.
    hub: Mutex<Option<Hub>>,
}

impl OtherNodes {
    /// A node that is not linked yet.
    pub(super) fn new(server: RedisServer, drain: &Drain, metrics: &Metrics) -> Self {
        // 64 random bits for each process: a node that starts again is another node, because its mailboxes are gone.
        let me = NodeId(fastrand::u64(..));
        let (drain, metrics) = (drain.clone(), metrics.of_cluster());
        let around = Arc::new(RealWorld { drain, metrics, log: LinkLog::new(me), hub: Mutex::default() });
        let engine = Arc::new(RedisEngine::new(server, around.clone()));
        Self { cluster: Cluster::new(me, engine, around.clone()), around }
    }

    /// What the hub asks.
    pub(super) fn cluster(&self) -> Cluster {
        self.cluster.clone()
    }

    /// Keeps the link. Never ends.
    pub(super) async fn run(self) {
        self.cluster.run().await;
    }

    /// Waits for the first link, so that the first requests are not refused for want of it. Not for long: without Redis a node serves
    /// its own devices.
    pub(super) async fn wait_for_link(&self) {
        let linked = async {
            while self.cluster.status().down.is_some() {
                sleep(LOOK_AGAIN).await;
            }
        };
        let _linked_later = timeout(FIRST_LINK, linked).await;
    }

    /// Before the hub drains: other nodes give this one no more mailboxes. Does not wait for long.
    pub(super) async fn begin_leaving(&self) {
        let _said_later = timeout(SAYING, self.cluster.begin_leaving()).await;
    }

    /// After the hub has drained: gives its mailboxes to other nodes, for at most this time.
    pub(super) async fn leave(&self, limit: Duration) {
        self.cluster.leave(limit).await;
        self.around.log.end();
        self.cluster.forget_hub();
        *self.around.hub.lock() = None;
    }
}

/// The hub of this node, which knows the other nodes if there are any.
pub(super) fn hub(nodes: Option<&OtherNodes>, limits: Limits, budget: Budget, metrics: Metrics) -> Hub {
    let Some(OtherNodes { cluster, around }) = nodes else { return Hub::new(limits, budget, Local, metrics) };
    let hub = Hub::new(limits, budget, cluster.clone(), metrics);
    *around.hub.lock() = Some(hub.clone());
    cluster.join(Arc::new(hub.clone()));
    hub
}

/// As long as one try to connect may take.
const FIRST_LINK: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The streams of this node must not wait for a slow Redis.
const SAYING: Duration = Duration::from_millis(100);

impl Surroundings for RealWorld {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.drain.spawn_until_hard_stop(task);
    }

    fn wall_clock_ms(&self) -> u64 {
        let since_1970 = wall_clock::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since_1970.as_millis().try_into().unwrap_or(u64::MAX)
    }

    fn about(&self) -> About {
        let census = self.hub.lock().as_ref().map(Hub::census);
        let (streams, mailboxes) = census.map_or((0, 0), |census| (census.streams as u64, census.mailboxes as u64));
        About { version: env!("CARGO_PKG_VERSION").to_owned(), streams, mailboxes }
    }

    fn observe(&self, happened: Happened<'_>) {
        self.metrics.observe(&happened);
        self.log.observe(&happened);
    }
}

impl UsedTickets for OtherNodes {
    fn use_once<'a>(&'a self, ticket: &'a [u8]) -> Pin<Box<dyn Future<Output = Option<bool>> + Send + 'a>> {
        Box::pin(self.cluster.use_ticket(ticket))
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.around.spawn(task);
    }
}
