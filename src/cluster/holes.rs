//! Giving up, and holes: whoever had a mailbox that another node has now tells that node what may be lost.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Happened, Move,
    asking::NoAnswer,
    directory::{Claim, Found},
    node::{Node, directory, millis},
    peer_messages::{Ask, HoleAsk, Plain, WireWaiting},
    rules::{Rule, is_on},
};
use crate::{
    auth::TenantAddress,
    hub::{Parcel, Placed, Term, Waiting},
};

impl Node {
    /// Another node has a mailbox of this term: a mailbox or a stub of a lower one is given up. What waits in it goes there, and
    /// when more was accepted than is known to have arrived, the mailbox there gets a hole.
    pub(super) fn give_up(self: &Arc<Self>, address: &TenantAddress, term: Term) {
        self.give_up_stub(address, term);
        let Some(parcel) = self.hub().give_up(address, term) else { return };
        self.observe(Happened::GaveUp);
        if parcel.may_lose() {
            self.send_hole(address, parcel.epoch, parcel.waiting());
        }
    }

    /// Gives up a parcel of which nobody knows whether another node has opened it. If its device may lack anything that was in it,
    /// whoever has the device gets a hole: its next stream is told `broken`.
    pub(super) fn mourn(self: &Arc<Self>, address: &TenantAddress, parcel: &Parcel) {
        if parcel.may_lose() {
            self.observe(Happened::Mourned);
            self.send_hole(address, parcel.epoch, Vec::new());
        }
    }

    /// Sends a hole, for as long as the process lives, until somebody took it. The messages are sent once: a hole that was not
    /// answered may have been taken, so it is repeated without them.
    fn send_hole(self: &Arc<Self>, address: &TenantAddress, epoch: u64, waiting: Vec<Waiting>) {
        let (node, address) = (self.clone(), address.clone());
        self.untaken_holes.fetch_add(1, Ordering::AcqRel);
        self.spawn(async move {
            let mut waiting = if is_on(Rule::SendsWaitingOn) { waiting } else { Vec::new() };
            let epoch = if is_on(Rule::HolesKnowTheirEpoch) { epoch } else { 0 };
            let mut aged = Instant::now();
            loop {
                // Never closed.
                let place = node.holes.acquire().await;
                let ms = millis(aged.elapsed());
                aged = Instant::now();
                for waiting in &mut waiting {
                    waiting.grow_older(ms);
                }
                if node.try_hole(&address, epoch, &mut waiting).await {
                    node.untaken_holes.fetch_sub(1, Ordering::AcqRel);
                    return;
                }
                drop(place);
                sleep(AGAIN).await;
            }
        });
    }

    /// Says whether somebody took the hole.
    async fn try_hole(self: &Arc<Self>, address: &TenantAddress, epoch: u64, waiting: &mut Vec<Waiting>) -> bool {
        if self.hub().standing(address).is_some() {
            // Cloned, because the mailbox may have gone between the two lines.
            return self.take_hole(address, epoch, waiting.clone());
        }
        match directory!(self, find(address)) {
            Ok(Found::At(entry, dead)) if entry.node != self.id && (!dead || self.is_young()) => {
                let waiting_there = waiting.iter().map(WireWaiting::from).collect();
                let ask = HoleAsk { address: address.into(), epoch, waiting: waiting_there, term: entry.term };
                match self.ask(entry.node, Ask::Hole(ask), PATIENCE).await {
                    Ok(say) => say == Plain::Ok.into(),
                    Err(NoAnswer::Silent | NoAnswer::Lost) => {
                        if is_on(Rule::SendsMessagesOnce) {
                            waiting.clear();
                        }
                        false
                    }
                    Err(NoAnswer::Down | NoAnswer::NoLink) => false,
                }
            }
            // Nobody has it, or only in name.
            Ok(Found::Nobody | Found::At(..)) => self.claim_for_hole(address).await && waiting.is_empty(),
            Ok(Found::Unsure) | Err(_) => false,
        }
    }

    /// Puts a hole into a mailbox of this node. Says whether there is one.
    pub(super) fn take_hole(&self, address: &TenantAddress, epoch: u64, waiting: Vec<Waiting>) -> bool {
        let taken = self.hub().hole(address, epoch, waiting);
        if taken {
            self.observe(Happened::Hole);
        }
        taken
    }

    /// There is no entry, or one of a dead node, or one of this node without a mailbox: makes a mailbox here with a hole.
    async fn claim_for_hole(self: &Arc<Self>, address: &TenantAddress) -> bool {
        let Some(turn) = self.turns.try_take(address) else { return false };
        // The flow that had the turn before may have put one.
        if self.hub().standing(address).is_some() || self.stubs.has(address) {
            return false;
        }
        let era = self.link.era();
        let (term, how) = match directory!(self, claim(address, 0)) {
            Ok(Claim::New { term, .. }) => (term, Move::New),
            Ok(Claim::Over(term)) => (term, Move::Forced),
            Ok(Claim::Mine(term)) => match directory!(self, revive(address, term)) {
                Ok(Some(new)) => (new, Move::New),
                Ok(None) | Err(_) => return false,
            },
            Ok(Claim::Held(_) | Claim::Full) | Err(_) => return false,
        };
        self.put(&turn, address, Placed::Fresh { hole: true, only_holds: false }, (term, era), how);
        true
    }
}

const PATIENCE: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(200);
