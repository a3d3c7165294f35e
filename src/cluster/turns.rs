//! Turns: the flows of one device on this node run one after the other.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex as Lock;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{auth::TenantAddress, hub::Term};

/// The devices that have a flow.
#[derive(Default)]
pub(super) struct Turns(Arc<Lock<HashMap<TenantAddress, Flows>>>);

/// The flows of one device.
#[derive(Default)]
struct Flows {
    device: Arc<Device>,
    /// How many there are: the one that has the turn, and those that wait. Counted under the lock of the map: two that end at the same
    /// time could not tell from the counts of an `Arc` which one is the last.
    count: usize,
}

#[derive(Default)]
struct Device {
    turn: Arc<Mutex<()>>,
    /// The highest term to which the flow has to yield.
    yields_to: AtomicU64,
}

/// The turn of one flow. Dropping it gives the turn to the next.
pub(super) struct Turn {
    address: TenantAddress,
    device: Arc<Device>,
    turns: Arc<Lock<HashMap<TenantAddress, Flows>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn of a device.
    pub(super) async fn take(&self, address: &TenantAddress) -> Turn {
        let device = self.0.lock().entry(address.clone()).or_default().begin();
        let mut turn = Turn { address: address.clone(), device, turns: self.0.clone(), guard: None };
        // A waiter whose future is dropped gives its entry back: `turn` exists before the wait.
        turn.guard = Some(turn.device.turn.clone().lock_owned().await);
        turn
    }

    /// The turn of a device that has no flow.
    pub(super) fn try_take(&self, address: &TenantAddress) -> Option<Turn> {
        let mut turns = self.0.lock();
        if turns.contains_key(address) {
            return None;
        }
        let device = turns.entry(address.clone()).or_default().begin();
        let guard = device.turn.clone().try_lock_owned().ok();
        Some(Turn { address: address.clone(), device, turns: self.0.clone(), guard })
    }

    /// Whether a device has a flow.
    pub(super) fn is_busy(&self, address: &TenantAddress) -> bool {
        self.0.lock().contains_key(address)
    }

    /// Tells the flow of a device, if it has one, that another node has a mailbox of this term.
    pub(super) fn yield_to(&self, address: &TenantAddress, term: Term) {
        if let Some(flows) = self.0.lock().get(address) {
            flows.device.yields_to.fetch_max(term, Ordering::AcqRel);
        }
    }
}

impl Flows {
    fn begin(&mut self) -> Arc<Device> {
        self.count += 1;
        self.device.clone()
    }
}

impl Turn {
    /// The highest term of which another node is known to have a mailbox. 0: none.
    pub(super) fn yields_to(&self) -> Term {
        self.device.yields_to.load(Ordering::Acquire)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.guard.is_some() {
            // Before the next flow has the turn: what that one is told must stay.
            self.device.yields_to.store(0, Ordering::Release);
            self.guard = None;
        }
        let mut turns = self.turns.lock();
        if let Some(flows) = turns.get_mut(&self.address) {
            flows.count -= 1;
            if flows.count == 0 {
                turns.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Address;

    #[test]
    fn a_device_has_no_flow_any_more_also_when_its_last_two_end_at_the_same_time() {
        let (turns, phone) = (Turns::default(), TenantAddress::of(&Address::new("bob", "phone").expect("ids")));
        for round in 0..20_000 {
            let has_turn = turns.try_take(&phone).expect("no flow");
            let device = turns.0.lock().get_mut(&phone).map(Flows::begin).expect("a flow");
            let waits = Turn { address: phone.clone(), device, turns: turns.0.clone(), guard: None };
            std::thread::scope(|scope| {
                scope.spawn(move || drop(has_turn));
                scope.spawn(move || drop(waits));
            });
            assert!(!turns.is_busy(&phone), "round {round}");
        }
    }
}
