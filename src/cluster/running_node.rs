//! A node of a test: a real hub and the real node code over the engine in memory, on virtual time. One device, Bob's phone, uses it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt as _;

use super::{
    Cluster, Happened, Move, Surroundings,
    directory::{About, Directory, Entry, NodeId},
    memory_engine::{BEGAN_US, MemoryServer},
    node::{Node, millis},
    node_gate::Gate,
};
use crate::{
    auth::{Caller, Subscriber, TenantAddress},
    budget::Budget,
    error::Error,
    hub::{Draft, Hub, Inbound as _, Limits, Opening, Parcel, Placed, Ready, StreamItem, Subscription, Taken},
    model::{Address, Continuity, Data, Outcome, Start},
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
    /// By how many milliseconds the clock of the machine is ahead.
    ahead_ms: AtomicU64,
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
        BEGAN_US / 1_000 + millis(self.began.elapsed()) + self.ahead_ms.load(Ordering::Relaxed)
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
        // Times between beats and retries are spread by chance: the same in each run.
        fastrand::seed(1);
        let both = [1, 2].map(|id| Self::start(server, NodeId(id)));
        sleep(Duration::from_secs(3)).await;
        both
    }

    /// Starts a node, and waits for its link.
    pub(super) async fn linked(server: &MemoryServer, id: NodeId) -> Self {
        let node = Self::start(server, id);
        node.until_linked().await;
        node
    }

    pub(super) fn start(server: &MemoryServer, id: NodeId) -> Self {
        let around = Arc::new(Around {
            began: Instant::now(),
            gate: Gate::default(),
            ahead_ms: AtomicU64::new(0),
            holes: AtomicU64::new(0),
        });
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
        self.try_subscribe(address, start).await.expect("a stream")
    }

    async fn try_subscribe(&self, address: Address, start: Start) -> Result<(Ready, Subscription), Error> {
        let opening = Opening { start, heartbeat: Duration::from_secs(15) };
        self.hub.subscribe(&Subscriber::proven(address), &opening).await
    }

    pub(super) async fn send(&self, ttl: Duration) -> Result<Outcome, Error> {
        self.hub.send(&Caller::anonymous(), &address(), draft(ttl)).await
    }

    /// Opens a stream of the phone and drops it. Gives what the stream was told: its continuity, and how many messages came with it.
    pub(super) async fn visit(&self, start: Start) -> (Continuity, u32) {
        self.try_visit(start).await.expect("a stream")
    }

    /// As [`Running::visit`], for a stream that may be refused.
    pub(super) async fn try_visit(&self, start: Start) -> Result<(Continuity, u32), Error> {
        let (ready, _stream) = self.try_subscribe(address(), start).await?;
        Ok((ready.continuity, ready.replayed))
    }

    /// The directory of a node whose link is up.
    pub(super) fn directory(&self) -> Arc<dyn Directory> {
        self.node.link.up().expect("a link").directory.clone()
    }

    /// The phone's mailbox leaves, as for another node that asked for it and has not opened it yet.
    pub(super) fn lend(&self) -> (Entry, Arc<Parcel>) {
        let term = self.hub.standing(&phone()).expect("it has the phone").term;
        let Taken::Parcel(parcel) = self.hub.take(&phone(), None, term) else { panic!("a parcel") };
        (Entry { node: self.node.id, term }, self.node.leave_stub(&phone(), term, parcel))
    }

    /// Opens a parcel if it may. Says whether.
    pub(super) async fn open(&self, entry: Entry, parcel: &Parcel) -> bool {
        let (turn, era) = (self.node.turns.take(&phone()).await, self.node.link.era());
        let term = self.directory().take_over(&phone(), entry, false).await.expect("an answer");
        if let Some(term) = term {
            let parcel = Placed::Parcel(Box::new(parcel.clone()));
            self.node.put(&turn, &phone(), parcel, (term, era), Move::Parcel);
        }
        term.is_some()
    }

    /// Sets the clock of the machine ahead.
    pub(super) fn set_ahead(&self, ahead: Duration) {
        self.around.ahead_ms.store(millis(ahead), Ordering::Relaxed);
    }

    pub(super) fn freeze(&self) {
        self.around.gate.freeze();
    }

    pub(super) fn thaw(&self) {
        self.around.gate.thaw();
    }

    /// How many holes were put into mailboxes of this node.
    pub(super) fn holes(&self) -> u64 {
        self.around.holes.load(Ordering::Relaxed)
    }

    /// Waits until the link is up.
    pub(super) async fn until_linked(&self) {
        while self.node.link.up().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether watchers on this node see the phone.
    pub(super) fn sees_phone(&self) -> bool {
        !self.node.following.pages(&phone().user, self.node.id).is_empty()
    }
}

/// Reads what a stream has for its device. Gives how many messages came, and whether the stream has ended.
pub(super) async fn read(stream: &mut Subscription) -> (usize, bool) {
    let mut messages = 0;
    loop {
        match timeout(Duration::from_secs(1), stream.next()).await {
            Ok(Some(StreamItem::Message(..))) => messages += 1,
            Ok(Some(StreamItem::Ping)) => {}
            Ok(Some(StreamItem::End(_)) | None) => return (messages, true),
            Err(_) => return (messages, false),
        }
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
