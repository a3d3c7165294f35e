//! A device arrives: gets the right to serve it here, and its mailbox from the node that has it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Move,
    asking::NoAnswer,
    directory::{Claim, Entry, Fault},
    node::{Node, directory},
    peer_messages::{Ask, Plain, Say, TakeAsk},
    rules::{Rule, abandons_parcel, is_on},
    stubs::Stub,
    turns::Turn,
};
use crate::{
    auth::TenantAddress,
    error::{Error, Limit},
    hub::{Brought, Parcel, Placed, Term},
    model::Start,
};

/// Why a device arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For a stream.
    Stream(Start),
    /// To hold messages.
    Hold,
}

/// One arrival, which has the turn of its device.
struct Arrival<'a> {
    node: &'a Arc<Node>,
    address: &'a TenantAddress,
    turn: Turn,
    purpose: Purpose,
    limit: usize,
    began: Instant,
    /// How often the node of the entry said that it does not have the device.
    not_here: u32,
    /// How long it waited because the holder answered that it is busy.
    queued: Duration,
}

/// What a step of an arrival led to.
enum Step {
    /// Look again.
    Again,
    /// Look again a moment later.
    Later(Duration),
    Done(Result<Brought, Error>),
}

impl Node {
    /// Brings a device here, in a task that goes on when the caller no longer waits: a mailbox on its way must not be lost.
    pub(super) async fn arrive(
        self: &Arc<Self>,
        address: &TenantAddress,
        purpose: Purpose,
        limit: usize,
    ) -> Result<Brought, Error> {
        let (sender, result) = oneshot::channel();
        let (node, address) = (self.clone(), address.clone());
        self.spawn(async move {
            let began = Instant::now();
            let brought = match timeout_at(began + LONGEST, node.turns.take(&address)).await {
                Ok(turn) => {
                    let (node, address, queued) = (&node, &address, Duration::ZERO);
                    Arrival { node, address, turn, purpose, limit, began, not_here: 0, queued }.run().await
                }
                Err(_) => Err(Error::UNREACHABLE),
            };
            // Fails when the client has left.
            let _ = sender.send(brought);
        });
        result.await.unwrap_or(Err(Error::UNREACHABLE))
    }
}

impl Arrival<'_> {
    async fn run(mut self) -> Result<Brought, Error> {
        loop {
            match self.step().await {
                Step::Again => {}
                Step::Later(pause) => sleep(pause).await,
                Step::Done(result) => return result,
            }
        }
    }

    async fn step(&mut self) -> Step {
        let (node, address) = (self.node, self.address);
        if let Some(standing) = node.hub().standing(address) {
            if node.is_usable(&standing) {
                return Step::Done(Ok(Brought::Here));
            }
            node.verify(address, standing.term).await;
            return Step::Again;
        }
        if self.began.elapsed() > LONGEST {
            return Step::Done(Err(Error::UNREACHABLE));
        }
        if let Some(down) = node.link.down() {
            if down.since.elapsed() < ALONE_AFTER {
                return Step::Later(Duration::from_millis(50));
            }
            // Nobody can be asked what other nodes have.
            if self.limit > 0 && node.hub().of_user(&address.user).len() >= self.limit {
                return Step::Done(Err(self.too_many()));
            }
            return self.put_alone();
        }
        if let Some(stub) = node.stubs.of(address).filter(|stub| stub.parcel.is_none()) {
            // The task that would end the release waits for the turn, which is here.
            node.end_release(address, stub.term).await;
            return Step::Again;
        }
        let era = node.link.era();
        match directory!(node, claim(address, self.limit)) {
            Ok(Claim::New { term, sure }) => {
                let hole = !sure || node.stubs.has(address);
                self.put_fresh(hole, (term, era), Move::New)
            }
            Ok(Claim::Over(term)) => self.put_fresh(true, (term, era), Move::Forced),
            Ok(Claim::Mine(term)) => self.reopen(term).await,
            Ok(Claim::Held(_)) if self.purpose == Purpose::Hold => Step::Done(Ok(Brought::Here)),
            Ok(Claim::Held(entry)) => self.fetch(entry).await,
            Ok(Claim::Full) => Step::Done(Err(self.too_many())),
            Err(_) => Step::Later(SOON),
        }
    }

    fn too_many(&self) -> Error {
        Error::too_many(match self.purpose {
            Purpose::Stream(_) => Limit::UserDevices,
            Purpose::Hold => Limit::UserHeldDevices,
        })
    }

    /// The link is down: makes a mailbox by the clock of this machine. It is suspect, so it is told when the link is back.
    fn put_alone(&self) -> Step {
        let node = self.node;
        let stub = node.stubs.of(self.address).map_or(0, |stub| stub.term);
        let known = node.known.of(self.address).map_or(0, |entry| entry.term);
        let seen = stub.max(known).max(self.turn.yields_to());
        let term = node.own_term(if is_on(Rule::OwnTermsRise) { seen } else { 0 });
        if is_on(Rule::OwesWhatItMadeAlone) {
            node.alone.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        }
        let step = self.put_fresh(true, (term, node.link.era().wrapping_sub(1)), Move::Alone);
        // The link may have come back meanwhile, and all else been told already.
        node.link.ask_to_tell();
        step
    }

    /// Makes a mailbox, unless another node has a newer one.
    fn put_fresh(&self, hole: bool, granted: (Term, u32), how: Move) -> Step {
        let hole = hole && is_on(Rule::MarksGaps);
        let fresh = Placed::Fresh { hole, only_holds: self.purpose == Purpose::Hold };
        self.node.put(&self.turn, self.address, fresh, granted, how);
        if self.node.hub().standing(self.address).is_some() { Step::Again } else { Step::Later(SOON) }
    }

    fn put_parcel(&self, parcel: Parcel, granted: (Term, u32), how: Move) {
        self.node.put(&self.turn, self.address, Placed::Parcel(Box::new(parcel)), granted, how);
    }

    /// The entry is this node's: opens the stub of its term again, or makes a mailbox with a hole.
    async fn reopen(&self, term: Term) -> Step {
        let (node, address, era) = (self.node, self.address, self.node.link.era());
        let parcel = node.stubs.of(address).filter(|stub| stub.term == term).and_then(Stub::into_parcel);
        if let Some(parcel) = parcel.filter(|_| is_on(Rule::ReopensItsStub)) {
            let mine = Entry { node: node.id, term };
            if let Ok(Some(new)) = directory!(node, take_over(address, mine, false)) {
                self.put_parcel(parcel, (new, era), Move::Revived);
            }
        } else if !is_on(Rule::RevivesItsEntry) {
            return self.put_fresh(true, (term, era), Move::New);
        } else if let Ok(Some(new)) = directory!(node, revive(address, term)) {
            return self.put_fresh(true, (new, era), Move::New);
        }
        Step::Again
    }

    /// Another node has the mailbox: asks for it, or takes the device without it.
    async fn fetch(&mut self, entry: Entry) -> Step {
        let Purpose::Stream(start) = self.purpose else { return Step::Again };
        let node = self.node;
        let ask = TakeAsk { address: self.address.into(), term: entry.term, start: start.into() };
        let generation = node.link.generation();
        match node.ask(entry.node, Ask::Take(ask), node.take_patience()).await {
            Ok(Say::Parcel(parcel)) => self.open(parcel.read(), entry, generation).await,
            Ok(say) if say == Plain::Refused.into() => Step::Done(Err(Error::Superseded)),
            Ok(say) if say == Plain::NotHere.into() => {
                self.not_here += 1;
                if self.not_here >= 3 { self.force(entry).await } else { Step::Later(SOON) }
            }
            Ok(say) if say == Plain::Busy.into() => Step::Later(self.queue()),
            Ok(_) if self.began.elapsed() > FORCE_AFTER + self.queued && is_on(Rule::ForcesAtLast) => {
                self.force(entry).await
            }
            Ok(_) | Err(NoAnswer::Down | NoAnswer::Lost) => Step::Later(SOON),
            Err(NoAnswer::Silent | NoAnswer::NoLink) => self.force(entry).await,
        }
    }

    /// How long to wait while parcels fill the link: longer each time, because thousands of devices may wait.
    fn queue(&mut self) -> Duration {
        let pause = (self.queued / 2).clamp(SOON, BUSY).mul_f64(0.5 + fastrand::f64());
        self.queued += pause;
        pause
    }

    /// Gets the right to open a parcel that was asked for in a generation, and opens it.
    async fn open(&self, parcel: Parcel, entry: Entry, generation: u64) -> Step {
        let node = self.node;
        if abandons_parcel() {
            return Step::Done(Err(Error::UNREACHABLE));
        }
        loop {
            let era = node.link.era();
            match node.take_over_in(generation, self.address, entry).await {
                Ok(Some(term)) => {
                    node.pins.pin(self.address, parcel.memory_bytes());
                    self.put_parcel(parcel, (term, era), Move::Parcel);
                    return Step::Again;
                }
                // Somebody else was first, or may have been: a new directory does not know. The parcel is thrown away.
                Ok(None) | Err(Fault::Reborn) => return Step::Again,
                Err(_) if self.began.elapsed() > LONGEST => return Step::Done(Err(Error::UNREACHABLE)),
                // Nobody knows whether it moved: the same question again gets the same answer.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn force(&self, entry: Entry) -> Step {
        let era = self.node.link.era();
        match directory!(self.node, take_over(self.address, entry, true)) {
            Ok(Some(term)) => self.put_fresh(true, (term, era), Move::Forced),
            Ok(None) | Err(Fault::Down(_) | Fault::Late(_) | Fault::Reborn) => Step::Later(SOON),
        }
    }
}

impl Node {
    /// Takes an entry over with a parcel that was given in a generation. [`Fault::Reborn`]: the directory is another one by now, and does
    /// not know whether somebody has opened the parcel already.
    pub(super) async fn take_over_in(
        &self,
        generation: u64,
        address: &TenantAddress,
        entry: Entry,
    ) -> Result<Option<Term>, Fault> {
        let Some(up) = self.link.up() else { return Err(Fault::Down("the link is down".to_owned())) };
        if up.directory.generation() != generation && is_on(Rule::MournsOldGenerations) {
            return Err(Fault::Reborn);
        }
        let taken = up.directory.take_over(address, entry, false).await;
        self.down_on_fault(&up, taken)
    }

    /// A term by the clock of this machine, above another one. Its last ten bits are of the node, so that two nodes make two terms.
    fn own_term(&self, above: Term) -> Term {
        let now = self.directory_ms().saturating_mul(1_000);
        now.max(above.saturating_add(NODE_BITS + 1)) & !NODE_BITS | self.id.0 & NODE_BITS
    }

    /// How long the holder of a mailbox has to give it: longer when the way to it is long.
    fn take_patience(&self) -> Duration {
        (self.link.round_trip() * 4).clamp(Duration::from_millis(350), Duration::from_secs(1))
    }
}

const NODE_BITS: u64 = 1_023;
/// How long an arrival may take in all.
const LONGEST: Duration = Duration::from_millis(2_500);
/// When a mailbox that is always on its way is taken by force.
const FORCE_AFTER: Duration = Duration::from_millis(1_500);
/// For how long an arrival waits for a link that is down.
const ALONE_AFTER: Duration = Duration::from_millis(700);
/// The longest pause of a device for which a node has no room yet.
const BUSY: Duration = Duration::from_millis(200);
/// The pause before looking again.
const SOON: Duration = Duration::from_millis(20);
