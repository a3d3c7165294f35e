//! The world of one seed: the nodes, the server, the time, chance, and the record of what clients and senders saw.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{outcomes::Record, simulated_node::SimulatedNode};
use crate::{
    auth::TenantAddress,
    cluster::{Happened, Move, directory::NodeId, memory_engine::MemoryServer},
    model::Address,
};

/// The numbers of a user and of one of its devices.
pub(super) type Device = (u8, u8);

pub(super) const USERS: u8 = 6;
pub(super) const DEVICES: u8 = 2;

pub(super) struct World {
    pub(super) server: MemoryServer,
    pub(super) began: Instant,
    pub(super) record: Mutex<Record>,
    random: Mutex<fastrand::Rng>,
    nodes: Mutex<BTreeMap<NodeId, Arc<SimulatedNode>>>,
    /// When the last fault began or ended.
    faulted: Mutex<Instant>,
    /// How many faults are going on.
    active: AtomicUsize,
    /// No more faults, and streams stay.
    quiet: AtomicBool,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// Devices never begin without their cursor, so that each `broken` has a reason.
    pub(super) keeps_pages: bool,
    /// Two faults may go on at the same time.
    pub(super) fails_twice: bool,
    pub(super) trace: Option<Device>,
}

impl World {
    pub(super) fn new(seed: u64, trace: Option<Device>) -> Arc<Self> {
        Arc::new(Self {
            server: MemoryServer::new(seed),
            began: Instant::now(),
            record: Mutex::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed ^ 0x5EED)),
            nodes: Mutex::default(),
            faulted: Mutex::new(Instant::now()),
            active: AtomicUsize::new(0),
            quiet: AtomicBool::new(false),
            counts: Mutex::default(),
            keeps_pages: seed / 3 % 2 == 1,
            fails_twice: seed / 6 % 4 == 3,
            trace,
        })
    }

    /// A number below `end`.
    pub(super) fn random(&self, end: u64) -> u64 {
        self.random.lock().u64(0..end.max(1))
    }

    pub(super) fn random_ms(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.random(to - from))
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.random(100) < percent
    }

    pub(super) fn one_of<T: Clone>(&self, all: &[T]) -> Option<T> {
        let index = self.random(all.len() as u64);
        all.get(usize::try_from(index).ok()?).cloned()
    }

    pub(super) fn random_device(&self) -> Device {
        let number = |end: u8| u8::try_from(self.random(end.into())).unwrap_or(0);
        (number(USERS), number(DEVICES))
    }

    pub(super) fn count(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    pub(super) fn bad(&self, what: String) {
        self.record.lock().bad.push(what);
    }

    pub(super) fn results(&self) -> (BTreeMap<&'static str, u64>, Vec<String>) {
        (std::mem::take(&mut self.counts.lock()), std::mem::take(&mut self.record.lock().bad))
    }

    pub(super) fn add(&self, node: Arc<SimulatedNode>) {
        self.nodes.lock().insert(node.id, node);
    }

    pub(super) fn remove(&self, node: &SimulatedNode) {
        self.nodes.lock().remove(&node.id);
    }

    pub(super) fn nodes(&self) -> Vec<Arc<SimulatedNode>> {
        self.nodes.lock().values().cloned().collect()
    }

    pub(super) fn node(&self, id: NodeId) -> Option<Arc<SimulatedNode>> {
        self.nodes.lock().get(&id).cloned()
    }

    /// The node to which the balancer sends the next request.
    pub(super) fn pick(&self) -> Option<Arc<SimulatedNode>> {
        let nodes = self.nodes();
        self.one_of(&nodes.into_iter().filter(|node| node.takes_work()).collect::<Vec<_>>())
    }

    pub(super) fn fault_began(&self) {
        *self.faulted.lock() = Instant::now();
        self.active.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn fault_ended(&self) {
        *self.faulted.lock() = Instant::now();
        self.active.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether the last fault was over for so long.
    pub(super) fn is_calm(&self, seconds: u64) -> bool {
        self.active.load(Ordering::Acquire) == 0 && self.faulted.lock().elapsed() > Duration::from_secs(seconds)
    }

    /// Whether nothing has failed since a moment.
    pub(super) fn was_calm(&self, at: Instant) -> bool {
        self.active.load(Ordering::Acquire) == 0 && *self.faulted.lock() < at
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire)
    }

    /// No more faults and no more sends, and every stream stays.
    pub(super) fn calm_down(&self) {
        self.quiet.store(true, Ordering::Release);
    }

    pub(super) fn stop_all(&self) {
        for node in self.nodes() {
            self.kill(&node);
        }
    }

    pub(super) fn observe(&self, happened: Happened<'_>) {
        let what = match happened {
            Happened::Moved(Move::New) => "moved: new",
            Happened::Moved(Move::Parcel) => "moved: parcel",
            Happened::Moved(Move::Forced) => "moved: forced",
            Happened::Moved(Move::Alone) => "moved: alone",
            Happened::Moved(Move::Revived) => "moved: revived",
            Happened::Moved(Move::Adopted) => "moved: adopted",
            Happened::GaveUp => "gave up",
            Happened::Hole => "holes",
            Happened::Mourned => "mourned",
            Happened::LinkDown { .. } => "link down",
            _ => return,
        };
        self.count(what);
    }

    /// Prints what happens to the traced device.
    pub(super) fn log(&self, device: Device, what: impl FnOnce() -> String) {
        if self.trace == Some(device) {
            self.print(&what());
        }
    }

    /// Prints what happens, if a device is traced.
    pub(super) fn log_all(&self, what: impl FnOnce() -> String) {
        if self.trace.is_some() {
            self.print(&what());
        }
    }

    fn print(&self, what: &str) {
        super::report(&format!("{:>8} {what}", self.began.elapsed().as_millis()));
    }
}

/// The address of a device, as clients know it.
pub(super) fn address(device: Device) -> Address {
    Address::new(&format!("user{}", device.0), &format!("device{}", device.1)).expect("ids")
}

/// The address of a device, as the hub knows it.
pub(super) fn place(device: Device) -> TenantAddress {
    TenantAddress::of(&address(device))
}

pub(super) fn all_devices() -> impl Iterator<Item = Device> {
    (0..USERS).flat_map(|user| (0..DEVICES).map(move |device| (user, device)))
}
