//! A node that stops gives its mailboxes to others.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{
    directory::{NodeId, Phase},
    node::{Node, directory},
    peer_messages::{AdoptAsk, Adopted, Ask, LARGEST_PARCEL, WireParcel},
    stubs::Stub,
};
use crate::{auth::TenantAddress, hub::Taken};

type Handed = (TenantAddress, Stub);

impl Node {
    /// Tells the others that this node takes nothing more.
    pub(super) async fn begin_leaving(self: &Arc<Self>) {
        self.enter(Phase::Leaving);
        let about = self.around.about();
        // The next beat says it too.
        let _ = directory!(self, beat(Phase::Leaving, &about));
    }

    /// Gives all mailboxes to nodes that are up, and waits until the holes of this node are taken, for at most `limit`; then removes
    /// the row of this node. A link that is down may come back in this time.
    pub(super) async fn leave(self: &Arc<Self>, limit: Duration) {
        let end = Instant::now() + limit;
        self.enter(Phase::Leaving);
        while Instant::now() < end && self.has_something_to_give() {
            if self.link.up().is_some() {
                let heirs = self.link.others(self.id, Phase::Up);
                if heirs.is_empty() && self.link.others(self.id, Phase::Joining).is_empty() {
                    break;
                }
                self.hand_over_all(&heirs).await;
            }
            sleep(AGAIN).await;
        }
        self.end_beats();
        let _ = directory!(self, bye());
    }

    fn has_something_to_give(&self) -> bool {
        self.has_mailboxes() || self.stubs.has_parcels() || self.untaken_holes.load(Ordering::Acquire) > 0
    }

    async fn hand_over_all(self: &Arc<Self>, heirs: &[NodeId]) {
        let hub = self.hub();
        for mailboxes in (0..).map_while(|part| hub.of_part(part)) {
            // One that the directory has not confirmed may have to be given up: then its messages go along with a hole.
            for (address, standing) in mailboxes.into_iter().filter(|(_, standing)| self.is_usable(standing)) {
                let Some(_turn) = self.turns.try_take(&address) else { continue };
                if let Taken::Parcel(mut parcel) = hub.take(&address, None, standing.term) {
                    parcel.shrink_to(LARGEST_PARCEL);
                    self.leave_stub(&address, standing.term, parcel);
                }
            }
        }
        if heirs.is_empty() {
            return;
        }
        let together = Arc::new(Semaphore::new(TOGETHER));
        for batch in batches(self.stubs.with_parcels()) {
            let Ok(place) = together.clone().acquire_owned().await else { break };
            let (node, heir) = (self.clone(), heirs[fastrand::usize(..heirs.len())]);
            self.spawn(async move {
                node.hand_over(heir, &batch).await;
                drop(place);
            });
        }
        // All batches are answered, or were not.
        let _ = together.acquire_many(TOGETHER_IN_U32).await;
    }

    /// Asks a node to take some mailboxes. It moves the entries to itself, and each move removes the stub here.
    async fn hand_over(self: &Arc<Self>, heir: NodeId, batch: &[Handed]) {
        let mailboxes = batch.iter().filter_map(|(address, stub)| {
            let parcel = WireParcel::from(&stub.clone().into_parcel()?);
            Some(Adopted { address: address.into(), term: stub.term, parcel })
        });
        let ask = Ask::Adopt(AdoptAsk { mailboxes: mailboxes.collect() });
        // Whatever the answer is: a stub that is still here has not moved.
        let _ = self.ask(heir, ask, PATIENCE).await;
    }
}

/// Mailboxes that go together: at most [`MOST`] with about [`BATCH`] bytes.
fn batches(parcels: Vec<Handed>) -> Vec<Vec<Handed>> {
    let (mut batches, mut bytes) = (Vec::new(), 0);
    for handed in parcels {
        let more = handed.1.parcel.as_ref().map_or(0, |parcel| parcel.memory_bytes());
        let is_full = |last: &Vec<Handed>| last.len() >= MOST || !last.is_empty() && bytes + more > BATCH;
        if batches.last().is_none_or(is_full) {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        if let Some(last) = batches.last_mut() {
            last.push(handed);
        }
    }
    batches
}

const BATCH: usize = 256 * 1024;
/// The other node moves one entry after the other, and has to answer within [`PATIENCE`].
const MOST: usize = 64;
/// How many batches are on their way at a time.
const TOGETHER: usize = 32;
const TOGETHER_IN_U32: u32 = 32;
const PATIENCE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(50);
