//! Pins: a mailbox that came with a large parcel does not move on at once. Otherwise streams that jump between nodes would move a
//! gigabyte a second through the engine.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::rules::{Rule, is_on};
use crate::auth::TenantAddress;

/// The devices whose mailbox is pinned, and until when.
#[derive(Default)]
pub(super) struct Pins(Mutex<BTreeMap<Instant, Vec<TenantAddress>>>);

impl Pins {
    /// Pins a mailbox that came with a parcel, for as many seconds as the parcel has MiB.
    pub(super) fn pin(&self, address: &TenantAddress, parcel_bytes: usize) {
        if parcel_bytes >= LARGE && is_on(Rule::PinsLargeMailboxes) {
            let kib = u64::try_from(parcel_bytes).unwrap_or(u64::MAX) >> 10;
            let now = Instant::now();
            let until = now + Duration::from_millis(kib.saturating_mul(1_000) >> 10);
            let mut pinned = self.0.lock();
            forget_until(&mut pinned, now);
            pinned.entry(until).or_default().push(address.clone());
        }
    }

    pub(super) fn is_pinned(&self, address: &TenantAddress) -> bool {
        let mut pinned = self.0.lock();
        forget_until(&mut pinned, Instant::now());
        pinned.values().flatten().any(|pinned| pinned == address)
    }
}

fn forget_until(pinned: &mut BTreeMap<Instant, Vec<TenantAddress>>, now: Instant) {
    while pinned.first_key_value().is_some_and(|(until, _)| *until <= now) {
        pinned.pop_first();
    }
}

/// A smaller parcel may move on at once.
const LARGE: usize = 64 * 1024;
