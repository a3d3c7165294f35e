//! Changes of presence that could not be published while the link was down.

use std::collections::{BTreeMap, btree_map::Entry};

use parking_lot::Mutex;

use super::peer_messages::LiveDevice;
use crate::auth::TenantAddress;

/// The newest presence of each device of this node that no watcher elsewhere was told.
#[derive(Default)]
pub(super) struct Unpublished(Mutex<BTreeMap<TenantAddress, LiveDevice>>);

impl Unpublished {
    /// Keeps a presence until the link is back.
    pub(super) fn keep(&self, address: TenantAddress, live: LiveDevice) {
        let mut presence = self.0.lock();
        let has_room = presence.len() < MOST;
        match presence.entry(address) {
            Entry::Occupied(mut known) => {
                if (known.get().term, known.get().number) < (live.term, live.number) {
                    known.insert(live);
                }
            }
            // What does not fit is right again when the watchers list, every 10 minutes.
            Entry::Vacant(place) => {
                if has_room {
                    place.insert(live);
                }
            }
        }
    }

    pub(super) fn take_all(&self) -> BTreeMap<TenantAddress, LiveDevice> {
        std::mem::take(&mut self.0.lock())
    }
}

/// How many changes are kept: some megabytes.
const MOST: usize = 65_536;
