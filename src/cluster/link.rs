//! The state of the link to the engine: up or down, the era, the members, the clock of the directory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    directory::{Beat, Directory, Hello, Member, NodeId, Phase},
    directory_clock::DirectoryClock,
    node::millis,
    rules::{Rule, is_on},
    wire::{Connection, Wire},
};

/// A link that is up.
pub(super) struct Up {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) wire: Arc<dyn Wire>,
    /// Tells this link from the ones before it.
    pub(super) number: u64,
    /// Until when an absence is not believed.
    young_until: Instant,
}

impl Up {
    /// True for 2 s after a lost link is back, and for 2 s after the directory was made if this is the first link. Other nodes may not have
    /// told yet what they hold.
    pub(super) fn is_young(&self) -> bool {
        Instant::now() < self.young_until && is_on(Rule::DoubtsYoungLinks)
    }
}

/// The link, as all flows see it.
pub(super) struct Link {
    began: Instant,
    up: Mutex<Result<Arc<Up>, Down>>,
    /// Wakes what waits for the end of a link.
    lost: Notify,
    links: AtomicU64,
    generation: AtomicU64,
    era: AtomicU32,
    /// When the clock was looked at last, in milliseconds since `began`.
    ticked_ms: AtomicU64,
    /// The mailboxes have to be told.
    retell: AtomicBool,
    retell_now: Notify,
    /// The number of this node's debt. 0: it owes nothing.
    debt: AtomicU64,
    members: Mutex<Vec<Member>>,
    clock: Mutex<DirectoryClock>,
}

/// Why the link is down, and since when.
#[derive(Clone, Debug)]
pub(super) struct Down {
    pub(super) reason: String,
    pub(super) since: Instant,
}

impl Link {
    pub(super) fn new() -> Self {
        let down = Down { reason: "not connected yet".to_owned(), since: Instant::now() };
        Self {
            began: Instant::now(),
            up: Mutex::new(Err(down)),
            lost: Notify::new(),
            links: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            era: AtomicU32::new(1),
            ticked_ms: AtomicU64::new(0),
            retell: AtomicBool::new(false),
            retell_now: Notify::new(),
            debt: AtomicU64::new(0),
            members: Mutex::default(),
            clock: Mutex::default(),
        }
    }

    /// The link, if it is up.
    pub(super) fn up(&self) -> Option<Arc<Up>> {
        self.up.lock().as_ref().ok().cloned()
    }

    /// Why the link is down. `None`: it is up.
    pub(super) fn down(&self) -> Option<Down> {
        self.up.lock().as_ref().err().cloned()
    }

    /// Whether this link is still the one that is up.
    pub(super) fn is_still(&self, up: &Up) -> bool {
        self.up.lock().as_ref().is_ok_and(|now| now.number == up.number)
    }

    /// Waits until this link is down, or replaced by another one.
    pub(super) async fn until_lost(&self, up: &Up) {
        loop {
            let lost = self.lost.notified();
            if !self.is_still(up) {
                return;
            }
            lost.await;
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The era of this moment. Begins a new one when the clock skipped: this node did not run, and others may have taken what it has.
    pub(super) fn era(&self) -> u32 {
        let now = millis(self.began.elapsed());
        let before = self.ticked_ms.load(Ordering::Acquire);
        if now > before {
            // The new era begins before the tick is stored: else another thread sees the new tick with the old era.
            if now - before > SKIP_MS && is_on(Rule::SeesSkippedClocks) {
                self.doubt();
            }
            self.ticked_ms.store(now, Ordering::Release);
        }
        self.era.load(Ordering::Acquire)
    }

    /// Begins a new era: every mailbox of this node is suspect, and is told again.
    pub(super) fn doubt(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
        self.ask_to_tell();
    }

    pub(super) fn ask_to_tell(&self) {
        self.retell.store(true, Ordering::Release);
        self.retell_now.notify_one();
    }

    /// Takes the wish that all mailboxes are told.
    pub(super) fn take_retell(&self) -> bool {
        self.retell.swap(false, Ordering::AcqRel)
    }

    /// Waits until somebody wishes that all mailboxes are told.
    pub(super) async fn retell_wished(&self) {
        while !self.retell.load(Ordering::Acquire) {
            self.retell_now.notified().await;
        }
    }

    /// The link is up. The hello of this connection was answered.
    pub(super) fn came_up(&self, connection: &Connection, hello: &Hello) -> Arc<Up> {
        let known = self.generation.swap(hello.generation, Ordering::AcqRel);
        let age = if known == 0 { Duration::from_millis(hello.age_ms) } else { Duration::ZERO };
        let up = Up {
            directory: connection.directory.clone(),
            wire: connection.wire.clone(),
            number: self.links.fetch_add(1, Ordering::AcqRel) + 1,
            young_until: Instant::now() + YOUNG.saturating_sub(age),
        };
        self.note_debt(hello.debt);
        let up = Arc::new(up);
        *self.up.lock() = Ok(up.clone());
        self.doubt();
        up
    }

    /// The link of this number is down. Says whether it was up.
    pub(super) fn went_down(&self, number: u64, reason: &str) -> bool {
        let mut up = self.up.lock();
        if !up.as_ref().is_ok_and(|up| up.number == number) {
            return false;
        }
        *up = Err(Down { reason: reason.to_owned(), since: Instant::now() });
        drop(up);
        self.doubt();
        self.lost.notify_waiters();
        true
    }

    /// Notes why the link cannot come up.
    pub(super) fn stays_down(&self, reason: &str) {
        if let Err(down) = &mut *self.up.lock() {
            reason.clone_into(&mut down.reason);
        }
    }

    /// Notes a debt that the directory named.
    pub(super) fn note_debt(&self, debt: Option<u64>) {
        self.debt.store(debt.unwrap_or(0), Ordering::Release);
    }

    /// The number of this node's debt.
    pub(super) fn debt(&self) -> Option<u64> {
        Some(self.debt.load(Ordering::Acquire)).filter(|debt| *debt > 0)
    }

    /// Takes note of a beat. `sent` and `answered`: by the clock of this machine, in milliseconds.
    pub(super) fn note_beat(&self, beat: &Beat, sent: u64, answered: u64) {
        let owes_more = beat.debt.is_some() && beat.debt != self.debt();
        self.note_debt(beat.debt);
        self.members.lock().clone_from(&beat.members);
        let jumped = self.clock.lock().add(beat.time_ms, sent, answered);
        if owes_more || jumped {
            self.doubt();
        }
    }

    /// The round trip of a command, from the last beats.
    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_millis(self.clock.lock().round_trip_ms())
    }

    /// The time of the directory, from the time of this machine, both in milliseconds since 1970.
    pub(super) fn directory_ms(&self, wall_clock_ms: u64) -> u64 {
        let offset = if is_on(Rule::UsesDirectoryTime) { self.clock.lock().offset() } else { 0 };
        wall_clock_ms.saturating_add_signed(offset)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.members.lock().clone()
    }

    /// How many nodes are alive, this one too.
    pub(super) fn nodes(&self) -> usize {
        self.members.lock().iter().filter(|member| !member.is_dead()).count().max(1)
    }

    /// The other nodes in a phase.
    pub(super) fn others(&self, me: NodeId, phase: Phase) -> Vec<NodeId> {
        let members = self.members.lock();
        let wanted = members.iter().filter(|it| it.node != me && it.phase == phase && !it.is_dead());
        wanted.map(|member| member.node).collect()
    }
}

/// A node that was not run for longer than this may have lost its mailboxes, in milliseconds.
const SKIP_MS: u64 = 2_000;
/// For so long after a link came back, or a directory was made, an absence is not believed.
const YOUNG: Duration = Duration::from_secs(2);
