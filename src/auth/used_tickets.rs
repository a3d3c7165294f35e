//! Which tickets were used: the table of this node, and the question to all nodes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    pin::Pin,
    time::Duration,
};

use tokio::time::Instant;

use super::ticket::{LIFETIME, millis};
use crate::error::{Error, IdentityFault, Limit};

/// Remembers for all nodes which tickets were used.
pub trait UsedTickets: Send + Sync + 'static {
    /// Marks a ticket as used. `Some(false)`: it was used before. `None`: the others cannot be asked.
    fn use_once<'a>(&'a self, ticket: &'a [u8]) -> Pin<Box<dyn Future<Output = Option<bool>> + Send + 'a>>;

    /// Starts a task: a question runs to its end also when its client has left.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>);
}

/// When the ticket becomes too old, in milliseconds since 1970, and a random number.
pub(super) type TicketId = (u64, u64);

/// The tickets that were used on this node.
#[derive(Default)]
pub(super) struct Used {
    /// Those that are not too old yet.
    remembered: BTreeMap<TicketId, Use>,
    /// When the newest ticket of another node that was forgotten became too old, as the first half of its id says.
    forgotten: u64,
}

/// How a ticket was used.
struct Use {
    at: Instant,
    /// This process issued it.
    is_own: bool,
    /// Other nodes know that it was used here.
    is_ours: bool,
    /// The request that reserved it has opened no stream.
    is_free: bool,
}

impl Used {
    /// Whether the ticket is used or reserved.
    pub(super) fn has(&self, id: TicketId) -> bool {
        self.remembered.get(&id).is_some_and(|used| !used.is_free)
    }

    /// Whether a ticket of another node may be one that was used and forgotten.
    pub(super) fn may_have_forgotten(&self, id: TicketId) -> bool {
        id.0 <= self.forgotten
    }

    /// Keeps other requests of this node from using the ticket. Returns whether other nodes know already that it is used here.
    pub(super) fn reserve(&mut self, id: TicketId, is_own: bool, now: Duration) -> Result<bool, Error> {
        self.forget(now);
        let is_full = self.remembered.len() >= MAX_USED;
        match self.remembered.entry(id) {
            Entry::Occupied(mut place) if place.get().is_free => {
                place.get_mut().is_free = false;
                Ok(place.get().is_ours)
            }
            // The list is full. Without an entry the ticket could be used twice, so refuse it for now; it stays unused.
            _ if is_full => Err(Error::too_many(Limit::UsedTickets)),
            Entry::Occupied(_) => Err(IdentityFault::SpentTicket.into()),
            Entry::Vacant(place) => {
                place.insert(Use { at: Instant::now(), is_own, is_ours: false, is_free: false });
                Ok(false)
            }
        }
    }

    /// Other nodes know that the ticket is used here.
    pub(super) fn is_ours(&mut self, id: TicketId) {
        if let Some(used) = self.remembered.get_mut(&id) {
            used.is_ours = true;
        }
    }

    /// Gives a reserved ticket back. It can be used again; on this node only, if other nodes know of it.
    pub(super) fn free(&mut self, id: TicketId) {
        if let Entry::Occupied(mut place) = self.remembered.entry(id) {
            if place.get().is_ours {
                place.get_mut().is_free = true;
            } else {
                place.remove();
            }
        }
    }

    /// Forgets the tickets that are too old by both clocks. One that only the wall clock calls old could be used again when that is
    /// set back.
    fn forget(&mut self, now: Duration) {
        while let Some(first) = self.remembered.first_entry() {
            let Use { at, is_own, .. } = first.get();
            if first.key().0 >= millis(now) || at.elapsed() <= LIFETIME {
                return;
            }
            if !is_own {
                self.forgotten = self.forgotten.max(first.key().0);
            }
            first.remove();
        }
    }
}

/// The most used tickets that are remembered: 35,000 streams a second, in about 60 MB of memory.
const MAX_USED: usize = 1 << 20;

#[cfg(test)]
impl Used {
    pub(super) fn forget_until(&mut self, now: Duration) -> usize {
        self.forget(now);
        self.remembered.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_list_refuses_a_ticket_which_can_be_used_later_and_forgets_old_ones() {
        let full = |until| {
            let used = || Use { at: Instant::now(), is_own: true, is_ours: false, is_free: false };
            let remembered = (0..MAX_USED as u64).map(|id| ((until, id), used())).collect();
            Used { remembered, forgotten: 0 }
        };
        let (now, id) = (Duration::from_secs(1_000), (1_010_000, u64::MAX));
        assert!(matches!(full(id.0).reserve(id, true, now), Err(Error::TooMany(..))));
        let mut used = full(1);
        assert!(matches!(used.reserve(id, true, now), Err(Error::TooMany(..))), "old by one of two clocks");
        tokio::time::advance(LIFETIME + Duration::from_millis(1)).await;
        assert_eq!(used.reserve(id, true, now), Ok(false));
        assert_eq!((used.remembered.len(), used.has(id)), (1, true));
    }
}
