//! What a node knows of the devices of one watched user: what it heard of them, and what it listed.

use std::collections::{BTreeMap, HashSet};

use tokio::time::Instant;

use super::{directory::NodeId, peer_messages::LiveDevice};
use crate::{
    hub::{Page, Term},
    model::DeviceId,
};

/// The devices of one watched user, on all nodes.
pub(super) struct Followed {
    pub(super) devices: BTreeMap<DeviceId, Seen>,
    /// The list was made since the link came up, so nothing is missing.
    pub(super) whole: bool,
    /// Counts what was heard, so that it wins over a list that began before.
    heard: u64,
    /// When the newest list that was used began; before the first one, when following began.
    listed: Instant,
}

/// A list that is being made.
pub(super) struct ListBegun {
    at: Instant,
    /// What was heard before it.
    heard: u64,
}

/// The newest that is known of a device.
pub(super) struct Seen {
    term: Term,
    number: u64,
    pub(super) node: NodeId,
    pub(super) page: Option<Page>,
    /// Its place in the order of what was heard.
    heard: u64,
}

impl Followed {
    pub(super) fn new() -> Self {
        Self { devices: BTreeMap::new(), whole: false, heard: 0, listed: Instant::now() }
    }

    pub(super) fn begin_list(&self) -> ListBegun {
        ListBegun { at: Instant::now(), heard: self.heard }
    }

    /// Takes note of a list of the live devices on all nodes. Gives the devices that changed. `None`: the list is ignored.
    ///
    /// A list that began before the newest one that was used is ignored: that one may have removed a device that went offline, and this
    /// one would bring it back. A list replaces what was heard before it began, even with a lower term: after a failover the new primary
    /// may not know the last terms of the old one.
    pub(super) fn finish_list(&mut self, begun: &ListBegun, devices: &[LiveDevice]) -> Option<Vec<DeviceId>> {
        let (mut changed, mut live) = (Vec::new(), HashSet::new());
        if begun.at < self.listed {
            return None;
        }
        self.listed = begun.at;
        for device in devices {
            let Ok(id) = DeviceId::new(&device.device) else { continue };
            live.insert(id.clone());
            if self.take(id.clone(), device, begun.heard) {
                changed.push(id);
            }
        }
        self.devices.retain(|device, seen| {
            let gone = seen.heard <= begun.heard && !live.contains(device);
            if gone && seen.page.is_some() {
                changed.push(device.clone());
            }
            !gone
        });
        Some(changed)
    }

    /// Takes note of a device, unless something newer is known. Says whether that changed anything.
    pub(super) fn hear(&mut self, device: DeviceId, live: &LiveDevice) -> bool {
        self.take(device, live, 0)
    }

    /// The same, with what was heard until then: that gives way, whatever its term.
    fn take(&mut self, device: DeviceId, live: &LiveDevice, outdated: u64) -> bool {
        self.heard += 1;
        let page = live.live.then_some((live.epoch, live.page));
        let seen = Seen { term: live.term, number: live.number, node: NodeId(live.node), page, heard: self.heard };
        match self.devices.get_mut(&device) {
            Some(known) if known.heard > outdated && (known.term, known.number) > (seen.term, seen.number) => false,
            Some(known) => {
                let changed = (known.node, known.page) != (seen.node, seen.page);
                *known = seen;
                changed
            }
            None => {
                // Devices that went offline are only kept for the order of what is heard.
                if self.devices.len() >= OFFLINE {
                    self.devices.retain(|_, seen| seen.page.is_some());
                }
                self.devices.insert(device, seen);
                true
            }
        }
    }
}

/// When a user has so many devices, those that went offline are forgotten.
const OFFLINE: usize = 1_024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    fn phone(number: u64, live: bool) -> LiveDevice {
        LiveDevice { device: "phone".to_owned(), live, term: 1, number, node: 2, ..LiveDevice::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_replaces_what_was_heard_before_it_also_by_a_lower_term() {
        let (mut followed, id) = (Followed::new(), DeviceId::new("phone").expect("an id"));
        // Told by a node that wrote to a primary which is no more.
        followed.hear(id.clone(), &LiveDevice { term: 2, ..phone(1, false) });
        let list = followed.begin_list();
        assert_eq!(followed.finish_list(&list, &[phone(1, true)]), Some(vec![id.clone()]));
        let list = followed.begin_list();
        assert!(followed.hear(id.clone(), &phone(3, false)), "it left while the list was made");
        assert_eq!(followed.finish_list(&list, &[phone(2, true)]), Some(Vec::new()));
        assert!(followed.devices.values().all(|seen| seen.page.is_none()), "it is still gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_began_before_another_one_that_is_made_changes_nothing() {
        let (mut followed, id) = (Followed::new(), DeviceId::new("phone").expect("an id"));
        followed.hear(id.clone(), &phone(1, true));
        let slow = followed.begin_list();
        assert!(followed.hear(id.clone(), &phone(2, false)), "it left");
        sleep(Duration::from_millis(1)).await;
        let quick = followed.begin_list();
        assert_eq!(followed.finish_list(&quick, &[]), Some(Vec::new()));
        assert_eq!(followed.finish_list(&slow, &[phone(1, true)]), None);
        assert!(followed.devices.values().all(|seen| seen.page.is_none()), "it is still gone");
    }
}
