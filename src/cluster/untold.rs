//! What watchers cannot know while a link is down: changes of presence that were not published, and nodes that are only thought to be
//! dead.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use parking_lot::Mutex;

use super::{directory::NodeId, peer_messages::LiveDevice};
use crate::auth::TenantAddress;

#[derive(Default)]
pub(super) struct Untold {
    /// The newest presence of each device of this node that could not be published.
    presence: Mutex<BTreeMap<TenantAddress, LiveDevice>>,
    /// The nodes whose devices are offline for watchers here, because they were dead.
    buried: Mutex<BTreeSet<NodeId>>,
}

impl Untold {
    /// Keeps a presence until the link is back.
    pub(super) fn keep(&self, address: TenantAddress, live: LiveDevice) {
        let mut presence = self.presence.lock();
        let has_room = presence.len() < UNTOLD;
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
        std::mem::take(&mut self.presence.lock())
    }

    /// A node is dead, and its devices are offline.
    pub(super) fn buried(&self, node: NodeId) {
        let mut buried = self.buried.lock();
        if buried.len() >= BURIED {
            buried.pop_first();
        }
        buried.insert(node);
    }

    /// Whether a node that was buried lives. It is then no longer buried.
    pub(super) fn has_returned(&self, lives: impl Fn(NodeId) -> bool) -> bool {
        let mut buried = self.buried.lock();
        let before = buried.len();
        buried.retain(|node| !lives(*node));
        buried.len() < before
    }
}

/// How many changes are kept: as many as entries of other nodes.
const UNTOLD: usize = 65_536;
/// How many dead nodes are remembered. Most never come back: a process that starts again is another node.
const BURIED: usize = 256;
