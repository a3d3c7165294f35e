//! A node that stops gives its mailboxes to others.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{
    directory::{NodeId, Phase},
    node::{Node, directory},
    peer_messages::{AdoptAsk, Adopted, Ask, LARGEST_PARCEL, WireParcel},
};
use crate::{
    auth::TenantAddress,
    hub::{Parcel, Taken, Term},
};

type Handed = (TenantAddress, Term, Arc<Parcel>);

impl Node {
    /// Tells the others that this node takes nothing more.
    pub(super) async fn begin_leaving(self: &Arc<Self>) {
        self.enter(Phase::Leaving);
        let about = self.around.about();
        // The next beat says it too.
        let _ = directory!(self, beat(Phase::Leaving, &about));
    }

    /// Gives all mailboxes to nodes that are up, for at most `limit`, then removes the row of this node.
    pub(super) async fn leave(self: &Arc<Self>, limit: Duration) {
        let end = Instant::now() + limit;
        self.enter(Phase::Leaving);
        while Instant::now() < end && self.link.up().is_some() {
            let heirs = self.link.others(self.id, Phase::Up);
            if heirs.is_empty() && self.link.others(self.id, Phase::Joining).is_empty() {
                break;
            }
            if self.hand_over_all(&heirs).await {
                break;
            }
            sleep(AGAIN).await;
        }
        self.end_beats();
        let _ = directory!(self, bye());
    }

    /// Says whether nothing is left.
    async fn hand_over_all(self: &Arc<Self>, heirs: &[NodeId]) -> bool {
        let hub = self.hub();
        for mailboxes in (0..).map_while(|part| hub.of_part(part)) {
            for (address, standing) in mailboxes {
                let Some(_turn) = self.turns.try_take(&address) else { continue };
                if let Taken::Parcel(mut parcel) = hub.take(&address, None, standing.term) {
                    parcel.shrink_to(LARGEST_PARCEL);
                    self.leave_stub(&address, standing.term, parcel);
                }
            }
        }
        let left = self.stubs.parcels();
        if left.is_empty() {
            return !self.has_mailboxes();
        }
        if !heirs.is_empty() {
            let together = Arc::new(Semaphore::new(TOGETHER));
            for batch in batches(left) {
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
        self.stubs.parcels().is_empty()
    }

    /// Asks a node to take some mailboxes. It moves the entries to itself, and each move removes the stub here.
    async fn hand_over(self: &Arc<Self>, heir: NodeId, batch: &[Handed]) {
        let mailboxes = batch.iter().map(|(address, term, parcel)| Adopted {
            address: address.into(),
            term: *term,
            parcel: WireParcel::from(&**parcel),
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
        let more = handed.2.memory_bytes();
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
