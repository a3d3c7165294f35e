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
pub(super) struct Turns(Arc<Lock<HashMap<TenantAddress, Arc<Device>>>>);

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
    turns: Arc<Lock<HashMap<TenantAddress, Arc<Device>>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn of a device.
    pub(super) async fn take(&self, address: &TenantAddress) -> Turn {
        let device = self.0.lock().entry(address.clone()).or_default().clone();
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
        let device = turns.entry(address.clone()).or_default().clone();
        let guard = device.turn.clone().try_lock_owned().ok();
        Some(Turn { address: address.clone(), device, turns: self.0.clone(), guard })
    }

    /// Whether a device has a flow.
    pub(super) fn is_busy(&self, address: &TenantAddress) -> bool {
        self.0.lock().contains_key(address)
    }

    /// Tells the flow of a device, if it has one, that another node has a mailbox of this term.
    pub(super) fn yield_to(&self, address: &TenantAddress, term: Term) {
        if let Some(device) = self.0.lock().get(address) {
            device.yields_to.fetch_max(term, Ordering::AcqRel);
        }
    }
}

impl Turn {
    /// Whether another node has a newer mailbox than one of this term.
    pub(super) fn yields(&self, term: Term) -> bool {
        self.device.yields_to.load(Ordering::Acquire) > term
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.guard.take().is_some() {
            self.device.yields_to.store(0, Ordering::Release);
        }
        let mut turns = self.turns.lock();
        // The map and this turn: nobody waits.
        if turns.get(&self.address).is_some_and(|device| Arc::ptr_eq(device, &self.device))
            && Arc::strong_count(&self.device) == 2
        {
            turns.remove(&self.address);
        }
    }
}
