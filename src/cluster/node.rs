//! One node: what its flows share, and the small steps that several flows take.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use super::{
    Happened, Move, Surroundings,
    asking::Asking,
    directory::{Entry, Fault, NodeId, Phase},
    follow::Following,
    lanes::Lanes,
    link::{Link, Up},
    pins::Pins,
    rules::{Rule, is_on},
    stubs::Stubs,
    turns::{Turn, Turns},
    unpublished::Unpublished,
    watched_nodes::WatchedNodes,
    wire::Engine,
};
use crate::{
    auth::TenantAddress,
    hub::{Inbound, Placed, Standing, Term},
};

/// Calls the directory when the link is up. A fault takes the link down.
macro_rules! directory {
    ($node:expr, $method:ident($($argument:expr),*)) => {
        match $node.link.up() {
            Some(up) => {
                let answer = up.directory.$method($($argument),*).await;
                $node.down_on_fault(&up, answer)
            }
            None => Err($crate::cluster::directory::Fault::Down("the link is down".to_owned())),
        }
    };
}
pub(super) use directory;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) around: Arc<dyn Surroundings>,
    hub: RwLock<Arc<dyn Inbound>>,
    pub(super) link: Link,
    pub(super) asking: Asking,
    pub(super) turns: Turns,
    pub(super) stubs: Stubs,
    pub(super) pins: Pins,
    /// The parcels that other nodes were given and have not opened yet.
    pub(super) parcel_lanes: Lanes,
    pub(super) following: Following,
    pub(super) unpublished: Unpublished,
    pub(super) watched_nodes: WatchedNodes,
    /// Holes that are sent at the same time.
    pub(super) holes: Semaphore,
    /// Holes that nobody has taken so far.
    pub(super) untaken_holes: AtomicUsize,
    pub(super) known: KnownEntries,
    phase: Mutex<Phase>,
    /// The row of this node is removed, for good.
    has_left: AtomicBool,
    /// How many mailboxes were made without the directory. Back to 0 when all is told.
    pub(super) alone: AtomicU64,
}

impl Node {
    pub(super) fn new(
        id: NodeId,
        engine: Arc<dyn Engine>,
        around: Arc<dyn Surroundings>,
        hub: Arc<dyn Inbound>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            engine,
            around,
            hub: RwLock::new(hub),
            link: Link::new(),
            asking: Asking::default(),
            turns: Turns::default(),
            stubs: Stubs::default(),
            pins: Pins::default(),
            parcel_lanes: Lanes::default(),
            following: Following::default(),
            unpublished: Unpublished::default(),
            watched_nodes: WatchedNodes::default(),
            holes: Semaphore::new(HOLES),
            untaken_holes: AtomicUsize::new(0),
            known: KnownEntries::default(),
            phase: Mutex::new(Phase::Joining),
            has_left: AtomicBool::new(false),
            alone: AtomicU64::new(0),
        })
    }

    pub(super) fn hub(&self) -> Arc<dyn Inbound> {
        self.hub.read().clone()
    }

    pub(super) fn set_hub(&self, hub: Arc<dyn Inbound>) {
        *self.hub.write() = hub;
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// Phases only go forward.
    pub(super) fn enter(&self, phase: Phase) {
        let mut now = self.phase.lock();
        *now = phase.max(*now);
    }

    /// This node says no more that it is alive: its row would be there again.
    pub(super) fn end_beats(&self) {
        self.has_left.store(true, Ordering::Release);
    }

    /// Waits for ever once the row of this node is removed.
    pub(super) async fn wait_if_left(&self) {
        if self.has_left.load(Ordering::Acquire) {
            pending::<()>().await;
        }
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.around.spawn(Box::pin(task));
    }

    pub(super) fn observe(&self, happened: Happened<'_>) {
        self.around.observe(happened);
    }

    /// The time of the directory, in milliseconds since 1970.
    pub(super) fn directory_ms(&self) -> u64 {
        self.link.directory_ms(self.around.wall_clock_ms())
    }

    /// Takes the link down when a call of it failed.
    pub(super) fn down_on_fault<T>(&self, up: &Up, answer: Result<T, Fault>) -> Result<T, Fault> {
        answer.inspect_err(|fault| self.take_down(up.number, &fault.to_string()))
    }

    pub(super) fn take_down(&self, number: u64, reason: &str) {
        if self.link.went_down(number, reason) {
            self.asking.give_up();
            self.observe(Happened::LinkDown { reason });
        }
    }

    /// Whether a mailbox of this node may be used as it is: it was confirmed in this era, or nobody can be asked.
    pub(super) fn is_usable(&self, standing: &Standing) -> bool {
        standing.era == self.link.era() || self.link.up().is_none() || !is_on(Rule::TellsSuspects)
    }

    /// Puts a mailbox into its place here, unless another node was given a newer one meanwhile: then it is mourned.
    pub(super) fn put(
        self: &Arc<Self>,
        turn: &Turn,
        address: &TenantAddress,
        placed: Placed,
        (term, era): (Term, u32),
        how: Move,
    ) {
        let yields = || turn.yields_to() > term && is_on(Rule::ArrivalsYield);
        let placed = if yields() { Err(placed) } else { self.hub().place(address, placed, term, era) };
        match placed {
            Ok(()) => {
                self.stubs.remove(address, None);
                self.known.forget(address);
                self.observe(Happened::Moved(how));
                // A notice that came just before the mailbox was in its place has found nothing to give up.
                if yields() {
                    self.give_up(address, turn.yields_to());
                }
            }
            Err(Placed::Parcel(parcel)) => self.mourn(address, &parcel),
            Err(Placed::Fresh { .. }) => {}
        }
    }

    /// Whether any mailbox is here.
    pub(super) fn has_mailboxes(&self) -> bool {
        let hub = self.hub();
        (0..).map_while(|part| hub.of_part(part)).any(|mailboxes| !mailboxes.is_empty())
    }

    /// Whether something of a device is on its way here: a flow, or a stub.
    pub(super) fn is_moving(&self, address: &TenantAddress) -> bool {
        self.turns.is_busy(address) || self.stubs.has(address)
    }

    /// Deletes this node's entry of a device that has no mailbox, no stub and no flow here.
    pub(super) fn disown(self: &Arc<Self>, address: &TenantAddress, term: Term) {
        let (node, address) = (self.clone(), address.clone());
        self.spawn(async move {
            let nothing = node.hub().standing(&address).is_none() && !node.is_moving(&address);
            if nothing && is_on(Rule::DisownsEmptyEntries) {
                let _ = directory!(node, release(&address, term));
            }
        });
    }
}

/// The milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where devices were found, so that most sends need no look-up. An entry may be outdated: the node that is asked then says so.
#[derive(Default)]
pub(super) struct KnownEntries(Mutex<HashMap<TenantAddress, Entry>>);

impl KnownEntries {
    pub(super) fn of(&self, address: &TenantAddress) -> Option<Entry> {
        self.0.lock().get(address).copied()
    }

    pub(super) fn learn(&self, address: &TenantAddress, entry: Entry) {
        let mut known = self.0.lock();
        if known.len() >= KNOWN && !known.contains_key(address) {
            // Each is looked up again when it is asked for: one call of the directory for a send that needs none else.
            known.clear();
        }
        known.insert(address.clone(), entry);
    }

    pub(super) fn forget(&self, address: &TenantAddress) {
        self.0.lock().remove(address);
    }
}

/// How many entries a node remembers.
const KNOWN: usize = 65_536;
/// How many holes are on their way at a time. A node that gives up all its mailboxes would otherwise fill its link, so that its own beats
/// come too late, and the inboxes of others.
const HOLES: usize = 256;
