//! Stubs: what is left on a node of a mailbox that went away, until it is certain that another node has it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Move,
    lanes::OnWay,
    node::{Node, directory, millis},
    rules::{Rule, is_on},
};
use crate::{
    auth::TenantAddress,
    hub::{Parcel, Placed, Term},
};

/// The stubs of a node.
#[derive(Default)]
pub(super) struct Stubs {
    stubs: Mutex<BTreeMap<TenantAddress, Stub>>,
}

/// What is left of one mailbox.
#[derive(Clone)]
pub(super) struct Stub {
    pub(super) term: Term,
    /// The mailbox as it left. `None`: its time was over, and the directory has to forget it.
    pub(super) parcel: Option<Arc<Parcel>>,
    /// The generation in which it left.
    generation: u64,
    left: Instant,
    until: Instant,
    /// Keeps the lane occupied until this stub is gone: the other node has opened the parcel then, or will not.
    on_way: Option<Arc<OnWay>>,
}

impl Stub {
    /// The mailbox as it would be now: older than when it left.
    pub(super) fn into_parcel(self) -> Option<Parcel> {
        let mut parcel = Arc::unwrap_or_clone(self.parcel?);
        parcel.grow_older(millis(self.left.elapsed()));
        Some(parcel)
    }
}

impl Stubs {
    pub(super) fn has(&self, address: &TenantAddress) -> bool {
        self.stubs.lock().contains_key(address)
    }

    pub(super) fn of(&self, address: &TenantAddress) -> Option<Stub> {
        self.stubs.lock().get(address).cloned()
    }

    /// Whether parcels are here that another node may have opened, or not.
    pub(super) fn has_parcels(&self) -> bool {
        self.stubs.lock().values().any(|stub| stub.parcel.is_some())
    }

    /// Removes the stub of a device; with a term, only if the stub has it. Returns it.
    pub(super) fn remove(&self, address: &TenantAddress, term: Option<Term>) -> Option<Stub> {
        let mut stubs = self.stubs.lock();
        let found = stubs.get(address).is_some_and(|stub| term.is_none_or(|term| term == stub.term));
        if found { stubs.remove(address) } else { None }
    }

    /// Removes the parcel of a device if its term is lower than `term`.
    fn remove_below(&self, address: &TenantAddress, term: Term) -> Option<Arc<Parcel>> {
        let mut stubs = self.stubs.lock();
        stubs.get(address).filter(|stub| stub.term < term)?.parcel.as_ref()?;
        stubs.remove(address)?.parcel
    }

    /// The parcel of a device goes to a node now.
    pub(super) fn occupy_lane(&self, address: &TenantAddress, on_way: OnWay) {
        let on_way = Some(Arc::new(on_way));
        if let Some(stub) = self.stubs.lock().get_mut(address) {
            stub.on_way = on_way;
        }
    }

    fn insert(&self, address: &TenantAddress, stub: Stub) {
        self.stubs.lock().insert(address.clone(), stub);
    }

    /// The stubs whose time is over, with their terms. Each gets [`STUB`] more: a stub that cannot be closed, because the link is down,
    /// is tried again then.
    fn due(&self, now: Instant) -> Vec<(TenantAddress, Term)> {
        let mut stubs = self.stubs.lock();
        let due = stubs.iter_mut().filter(|(_, stub)| stub.until <= now);
        due.map(|(address, stub)| {
            stub.until = now + STUB;
            (address.clone(), stub.term)
        })
        .collect()
    }

    /// All parcels of stubs that left in another generation.
    fn of_other_generations(&self, generation: u64) -> Vec<(TenantAddress, Arc<Parcel>)> {
        let mut stubs = self.stubs.lock();
        let is_old = |stub: &Stub| stub.generation != generation && stub.parcel.is_some();
        let old: Vec<_> = stubs.iter().filter(|(_, stub)| is_old(stub)).map(|(address, _)| address.clone()).collect();
        old.into_iter().filter_map(|address| Some((address.clone(), stubs.remove(&address)?.parcel?))).collect()
    }

    /// All stubs with a parcel.
    pub(super) fn with_parcels(&self) -> Vec<(TenantAddress, Stub)> {
        let stubs = self.stubs.lock();
        let with_parcels = stubs.iter().filter(|(_, stub)| stub.parcel.is_some());
        with_parcels.map(|(address, stub)| (address.clone(), stub.clone())).collect()
    }
}

impl Node {
    /// Keeps the parcel of a mailbox that left, so that it can be asked for again.
    pub(super) fn leave_stub(&self, address: &TenantAddress, term: Term, parcel: Box<Parcel>) -> Arc<Parcel> {
        let parcel: Arc<Parcel> = parcel.into();
        if is_on(Rule::LeavesStubs) {
            self.stubs.insert(address, self.new_stub(term, Some(parcel.clone())));
        }
        parcel
    }

    /// The hub has forgotten a mailbox: the directory has to forget it too.
    pub(super) fn release(self: &Arc<Self>, address: &TenantAddress, term: Term) {
        if self.stubs.has(address) {
            return;
        }
        self.stubs.insert(address, self.new_stub(term, None));
        self.close_later(address, term);
    }

    fn new_stub(&self, term: Term, parcel: Option<Arc<Parcel>>) -> Stub {
        let left = Instant::now();
        Stub { term, parcel, generation: self.link.generation(), left, until: left + STUB, on_way: None }
    }

    /// Closes the stubs whose time is over.
    pub(super) fn close_due_stubs(self: &Arc<Self>) {
        for (address, term) in self.stubs.due(Instant::now()) {
            self.close_later(&address, term);
        }
    }

    fn close_later(self: &Arc<Self>, address: &TenantAddress, term: Term) {
        let (node, address) = (self.clone(), address.clone());
        self.spawn(async move { node.close(&address, term).await });
    }

    /// The time of a stub is over: the directory forgets a mailbox whose time was over, and a parcel that nobody opened is a mailbox
    /// of this node again.
    async fn close(self: &Arc<Self>, address: &TenantAddress, term: Term) {
        let turn = self.turns.take(address).await;
        let Some(stub) = self.stubs.of(address).filter(|stub| stub.term == term) else { return };
        let is_old = stub.generation != self.link.generation() && is_on(Rule::MournsOldGenerations);
        let Some(parcel) = stub.into_parcel() else {
            self.end_release(address, term).await;
            return;
        };
        if is_old || !is_on(Rule::RevivesStubs) {
            if self.stubs.remove(address, Some(term)).is_some() {
                self.mourn(address, &parcel);
            }
            return;
        }
        let era = self.link.era();
        match directory!(self, revive(address, term)) {
            Ok(Some(new)) => {
                if self.stubs.remove(address, Some(term)).is_some() {
                    self.put(&turn, address, Placed::Parcel(Box::new(parcel)), (new, era), Move::Revived);
                }
            }
            Ok(None) => {
                if self.stubs.remove(address, Some(term)).is_some() {
                    self.mourn(address, &parcel);
                }
            }
            // Comes up again.
            Err(_) => {}
        }
    }

    /// The directory forgets a mailbox whose time was over. For a caller that has the turn of the device. If the directory cannot be told,
    /// it forgets the entry when somebody asks for the device.
    pub(super) async fn end_release(&self, address: &TenantAddress, term: Term) {
        let _ = directory!(self, release(address, term));
        self.stubs.remove(address, Some(term));
    }

    /// Gives up the parcel of a device, because another node has a newer mailbox.
    pub(super) fn give_up_stub(self: &Arc<Self>, address: &TenantAddress, term: Term) {
        if let Some(parcel) = self.stubs.remove_below(address, term) {
            self.mourn(address, &parcel);
        }
    }

    /// The directory is another one: nobody knows who opened the parcels that left before.
    pub(super) fn mourn_older_generations(self: &Arc<Self>) {
        for (address, parcel) in self.stubs.of_other_generations(self.link.generation()) {
            self.mourn(&address, &parcel);
        }
    }
}

/// How long a parcel can be asked for again.
const STUB: Duration = Duration::from_secs(3);
