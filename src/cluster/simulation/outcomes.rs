//! The record of a seed: what senders were answered, and what devices got.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{connected::Connected, world::Device};
use crate::model::Continuity;

/// The number of a message: its sender in the upper half.
pub(super) type Number = u64;

#[derive(Default)]
pub(super) struct Record {
    /// What was wrong.
    pub(super) bad: Vec<String>,
    pub(super) sent: Vec<Sent>,
    /// What each page of each device got, in order.
    pub(super) got: BTreeMap<(Device, u64), Vec<(Instant, Number)>>,
    /// Every stream of each device that opened.
    pub(super) opened: BTreeMap<Device, Vec<(Instant, Continuity)>>,
    /// When each device was away on purpose.
    pub(super) away: BTreeMap<Device, Vec<(Instant, Instant)>>,
    /// When the network was split.
    pub(super) splits: Vec<(Instant, Instant)>,
    /// Every node that ended.
    pub(super) deaths: Vec<Death>,
    /// All streams, open and closed.
    pub(super) streams: BTreeMap<Device, Vec<Arc<Connected>>>,
}

/// The end of a node.
pub(super) struct Death {
    pub(super) at: Instant,
    /// The devices whose mailboxes, stubs or flows ended with it.
    pub(super) devices: BTreeSet<Device>,
    /// It could not tell anybody anything that lasts.
    pub(super) apart: bool,
    /// The devices that had a stream on another node which could not.
    pub(super) elsewhere: BTreeSet<Device>,
}

/// One send, and its answer.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) to: Device,
    pub(super) number: Number,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) ttl: Duration,
    pub(super) answer: Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Delivered,
    Held,
    /// 404.
    Absent,
    /// 503.
    Unreachable,
    /// 429, and a node that stops.
    Refused,
    /// 504, or no answer.
    Unknown,
}

impl Answered {
    pub(super) fn is_accepted(self) -> bool {
        matches!(self, Self::Delivered | Self::Held)
    }

    pub(super) fn is_refused(self) -> bool {
        matches!(self, Self::Absent | Self::Unreachable | Self::Refused)
    }
}

pub(super) fn sender(number: Number) -> u64 {
    number >> 32
}

impl Record {
    pub(super) fn all_got(&self) -> BTreeSet<(Device, Number)> {
        let all = self.got.iter().flat_map(|((device, _), got)| got.iter().map(|(_, number)| (*device, *number)));
        all.collect()
    }

    /// The streams of a device that are open and have begun.
    pub(super) fn live(&self, device: Device) -> impl Iterator<Item = &Arc<Connected>> {
        self.streams.get(&device).into_iter().flatten().filter(|stream| stream.is_live())
    }

    /// When the device was told `broken`.
    pub(super) fn broken(&self, device: Device) -> impl Iterator<Item = Instant> {
        let opened = self.opened.get(&device).into_iter().flatten();
        opened.filter(|(_, continuity)| *continuity == Continuity::Broken).map(|(at, _)| *at)
    }
}
