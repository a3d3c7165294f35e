//! A node of a test: a real hub and the real node code over the engine in memory, on virtual time. One device, Bob's phone, uses it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Cluster, Happened, Surroundings,
    directory::{About, NodeId},
    memory_engine::{BEGAN_US, MemoryServer},
    node::Node,
    node_gate::Gate,
};
use crate::{
    auth::{Caller, Subscriber, TenantAddress},
    budget::Budget,
    error::Error,
    hub::{Draft, Hub, Limits, Opening, Ready, Subscription},
    model::{Address, Data, Outcome, Start},
};

pub(super) struct Running {
    pub(super) node: Arc<Node>,
    pub(super) hub: Hub,
    pub(super) cluster: Cluster,
    around: Arc<Around>,
}

struct Around {
    began: Instant,
    gate: Gate,
    /// How many holes were put into mailboxes of this node.
    holes: AtomicU64,
}

impl Surroundings for Around {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let gate = self.gate.clone();
        spawn(async move {
            gate.pass(task).await;
        });
    }

    fn wall_clock_ms(&self) -> u64 {
        BEGAN_US / 1_000 + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn about(&self) -> About {
        About::default()
    }

    fn observe(&self, happened: Happened<'_>) {
        if happened == Happened::Hole {
            self.holes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the tasks of a test end with the test")]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

impl Running {
    /// Two nodes that are linked.
    pub(super) async fn two(server: &MemoryServer) -> [Self; 2] {
        let both = [1, 2].map(|id| Self::start(server, NodeId(id)));
        sleep(Duration::from_secs(3)).await;
        both
    }

    /// Starts a node, and waits for its link.
    pub(super) async fn linked(server: &MemoryServer, id: NodeId) -> Self {
        let node = Self::start(server, id);
        while node.node.link.up().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        node
    }

    pub(super) fn start(server: &MemoryServer, id: NodeId) -> Self {
        let around = Arc::new(Around { began: Instant::now(), gate: Gate::default(), holes: AtomicU64::new(0) });
        let cluster = Cluster::new(id, Arc::new(server.clone()), around.clone());
        let limits = Limits::only_times(Duration::from_secs(300), Duration::from_secs(300));
        let hub = Hub::new(limits, Budget::new(64 << 20), cluster.clone(), ());
        cluster.join(Arc::new(hub.clone()));
        around.spawn(Box::pin(cluster.clone().run()));
        around.spawn(Box::pin(hub.clone().keep_time()));
        Self { node: cluster.0.clone(), hub, cluster, around }
    }

    pub(super) async fn subscribe(&self, start: Start) -> (Ready, Subscription) {
        self.subscribe_as(address(), start).await
    }

    pub(super) async fn subscribe_as(&self, address: Address, start: Start) -> (Ready, Subscription) {
        let opening = Opening { start, heartbeat: Duration::from_secs(15) };
        self.hub.subscribe(&Subscriber::proven(address), &opening).await.expect("a stream")
    }

    pub(super) async fn send(&self, ttl: Duration) -> Result<Outcome, Error> {
        self.hub.send(&Caller::anonymous(), &address(), draft(ttl)).await
    }

    /// Whether watchers on this node see the phone.
    pub(super) fn sees_phone(&self) -> bool {
        !self.node.following.pages(&phone().user, self.node.id).is_empty()
    }
}

pub(super) fn address() -> Address {
    Address::new("bob", "phone").expect("ids")
}

pub(super) fn phone() -> TenantAddress {
    TenantAddress::of(&address())
}

pub(super) fn draft(ttl: Duration) -> Draft {
    Draft { event: None, data: Data::new("ring").expect("not empty"), ttl, key: None }
}
