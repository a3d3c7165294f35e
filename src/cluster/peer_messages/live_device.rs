//! One device as its node sees it: in lists, and published when it changes.

use bytes::Bytes;

use super::framing::write;
use crate::{
    cluster::directory::NodeId,
    hub::{Standing, Term},
    model::DeviceId,
};

/// One device of a [`LiveSay`](super::LiveSay), and the presence that is published.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::cluster) struct LiveDevice {
    #[prost(string, tag = "1")]
    pub(in crate::cluster) device: String,
    #[prost(uint64, tag = "2")]
    pub(in crate::cluster) term: u64,
    #[prost(uint64, tag = "3")]
    pub(in crate::cluster) number: u64,
    #[prost(fixed64, tag = "4")]
    pub(in crate::cluster) epoch: u64,
    #[prost(uint32, tag = "5")]
    pub(in crate::cluster) page: u32,
    #[prost(bool, tag = "6")]
    pub(in crate::cluster) live: bool,
    /// The mailbox is on its way: look again.
    #[prost(bool, tag = "7")]
    pub(in crate::cluster) moving: bool,
    #[prost(fixed64, tag = "8")]
    pub(in crate::cluster) node: u64,
}

impl LiveDevice {
    pub(in crate::cluster) fn of(device: &DeviceId, standing: &Standing, node: NodeId) -> Self {
        let (epoch, page) = standing.live.unwrap_or((standing.epoch, 0));
        Self {
            device: device.as_str().to_owned(),
            term: standing.term,
            number: standing.number,
            epoch,
            page,
            live: standing.live.is_some(),
            moving: false,
            node: node.0,
        }
    }

    /// A device whose mailbox is on its way.
    pub(in crate::cluster) fn moving(device: &DeviceId, term: Term, node: NodeId) -> Self {
        let device = device.as_str().to_owned();
        Self { device, term, moving: true, node: node.0, ..Self::default() }
    }

    pub(in crate::cluster) fn to_presence(&self) -> Bytes {
        write(b'P', self)
    }
}
