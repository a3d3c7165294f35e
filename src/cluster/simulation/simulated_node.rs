//! One node: a real hub and the real node code, behind a gate that freezes and kills them.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    outcomes::Death,
    watchers::Seen,
    world::{Device, World, all_devices, place},
};
use crate::{
    budget::Budget,
    cluster::{
        Cluster, Happened, Surroundings,
        directory::{About, NodeId},
        memory_engine::BEGAN_US,
        node_gate::Gate,
    },
    hub::{Hub, Inbound as _, Limits},
};

/// How long a mailbox waits for its device.
pub(super) const WINDOW: Duration = Duration::from_secs(25);

pub(super) struct SimulatedNode {
    pub(super) id: NodeId,
    pub(super) gate: Gate,
    pub(super) hub: Hub,
    pub(super) cluster: Cluster,
    /// The balancer sends it nothing new.
    pub(super) leaving: AtomicBool,
    pub(super) seen: Seen,
}

/// What the node code gets from outside.
struct Around {
    world: Arc<World>,
    gate: Gate,
    began: Instant,
    /// By how many milliseconds the clock of the machine is ahead.
    ahead_ms: u64,
}

impl Surroundings for Around {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        spawn_in(&self.gate, task);
    }

    fn wall_clock_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        BEGAN_US / 1_000 - MOST_SKEW_MS + elapsed + self.ahead_ms
    }

    fn about(&self) -> About {
        About::default()
    }

    fn observe(&self, happened: Happened<'_>) {
        self.world.observe(happened);
    }
}

#[expect(clippy::disallowed_methods, reason = "the tasks of a test end with the test")]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

fn spawn_in(gate: &Gate, task: impl Future<Output = ()> + Send + 'static) {
    if !gate.is_dead() {
        let gate = gate.clone();
        spawn(async move {
            gate.pass(task).await;
        });
    }
}

impl World {
    /// Starts a process.
    pub(super) fn start_node(self: &Arc<Self>) -> Arc<SimulatedNode> {
        let (id, gate) = (NodeId(self.random(u64::MAX)), Gate::default());
        let around = Around {
            world: self.clone(),
            gate: gate.clone(),
            began: self.began,
            ahead_ms: self.random(2 * MOST_SKEW_MS),
        };
        let cluster = Cluster::new(id, Arc::new(self.server.clone()), Arc::new(around));
        let limits = Limits::only_times(WINDOW, Duration::from_secs(30));
        let hub = Hub::new(limits, Budget::new(64 << 20), cluster.clone(), ());
        cluster.join(Arc::new(hub.clone()));
        let node =
            Arc::new(SimulatedNode { id, gate, hub, cluster, leaving: AtomicBool::new(false), seen: Seen::default() });
        node.spawn(node.cluster.clone().run());
        node.spawn(node.hub.clone().keep_time());
        node.spawn(node.clone().keep_watching());
        self.add(node.clone());
        node
    }

    /// `kill -9`: the tasks are gone, and so are the connections to the engine and to the clients.
    pub(super) fn kill(&self, node: &SimulatedNode) {
        self.note_death(node);
        self.remove(node);
        node.gate.kill();
        node.gate.thaw();
        self.server.cut(node.id);
        // Only breaks the circle of hub and node, so that the memory is free again.
        node.cluster.forget_hub();
    }

    fn note_death(&self, node: &SimulatedNode) {
        let has = |device: &Device| {
            let place = place(*device);
            node.hub.standing(&place).is_some() || node.cluster.0.is_moving(&place)
        };
        let devices = all_devices().filter(has).collect();
        let others = self.nodes().into_iter().filter(|other| other.id != node.id && self.is_apart(other));
        let others: BTreeSet<_> = others.map(|other| other.id).collect();
        let apart = self.is_apart(node);
        let mut record = self.record.lock();
        let is_elsewhere = |device: &Device| record.live(*device).any(|stream| others.contains(&stream.node));
        let elsewhere = all_devices().filter(is_elsewhere).collect();
        record.deaths.push(Death { at: Instant::now(), devices, apart, elsewhere });
    }

    /// Whether the link of a node is down or came back a moment ago, so that it had no time to tell or to send on what it has.
    fn is_apart(&self, node: &SimulatedNode) -> bool {
        let inner = &node.cluster.0;
        let owes = |device| node.hub.standing(&place(device)).is_some_and(|it| it.era != inner.link.era());
        let late = inner.untaken_holes.load(Ordering::Acquire) > 0 || all_devices().any(owes);
        late || node.cluster.status().down.is_some() || self.server.is_apart(node.id)
    }

    /// A soft stop, as the daemon does it.
    pub(super) async fn drain(&self, node: &SimulatedNode) {
        node.leaving.store(true, Ordering::Release);
        let left = node.gate.pass(async {
            node.cluster.begin_leaving().await;
            node.hub.drain(DRAIN_WINDOW).await;
            node.cluster.leave(LEAVE_LIMIT).await;
        });
        if left.await.is_some() && (0..).map_while(|part| node.hub.of_part(part)).any(|left| !left.is_empty()) {
            self.count("not handed over");
        }
        // Its last answers go out.
        sleep(Duration::from_millis(300)).await;
        self.kill(node);
    }
}

impl SimulatedNode {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        spawn_in(&self.gate, task);
    }

    pub(super) fn takes_work(&self) -> bool {
        !self.leaving.load(Ordering::Acquire)
    }
}

const DRAIN_WINDOW: Duration = Duration::from_secs(2);
const LEAVE_LIMIT: Duration = Duration::from_secs(9);

/// By how many milliseconds a clock of a machine may be wrong.
const MOST_SKEW_MS: u64 = 1_000;
