//! What is so: which devices have a stream, as their clients and their nodes see it, and since when.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    connected::Connected,
    simulated_node::SimulatedNode,
    world::{DEVICES, Device, World},
};

/// The open streams of a user's devices at one moment.
pub(super) struct Before {
    began: Instant,
    streams: Vec<(Device, Arc<Connected>)>,
}

impl World {
    pub(super) fn streams_of(&self, user: u8) -> Before {
        let record = self.record.lock();
        let of_device = |device: Device| record.live(device).map(move |stream| (device, stream.clone()));
        Before { began: Instant::now(), streams: devices_of(user).flat_map(of_device).collect() }
    }

    /// Whether a stream is open, on a node that `asked` can reach.
    pub(super) fn reaches(&self, asked: &SimulatedNode, stream: &Connected) -> bool {
        let holder = self.node(stream.node).filter(|holder| !holder.gate.is_frozen());
        stream.is_live() && holder.is_some_and(|holder| self.server.joins(holder.id, asked.id))
    }

    /// Since when no node has a stream of the device. `None`: one has, or none ever had.
    fn gone_since(&self, device: Device) -> Option<Instant> {
        self.last_end(device, |_| true)
    }

    /// When the last stream ended from which the device has read anything. `None`: one has not ended, or there was none.
    pub(super) fn left_at(&self, device: Device) -> Option<Instant> {
        self.last_end(device, Connected::has_begun)
    }

    fn last_end(&self, device: Device, counts: impl Fn(&Connected) -> bool) -> Option<Instant> {
        let record = self.record.lock();
        let streams = record.streams.get(&device)?.iter().filter(|stream| counts(stream));
        let mut ends = streams.map(|stream| stream.ended());
        let first = ends.next()??;
        ends.try_fold(first, |last, end| Some(last.max(end?)))
    }

    /// Checks an answer that names the live devices of a user: it must name those that were live all the time, and none that is long
    /// gone. `began`: the streams that were open when it was asked.
    pub(super) fn judge_names(&self, asked: &SimulatedNode, user: u8, before: &Before, named: &[Device], what: &str) {
        let at = self.began.elapsed().as_millis();
        for device in devices_of(user) {
            let mut streams = before.streams.iter().filter(|(of, _)| *of == device);
            let is_named = named.contains(&device);
            if !is_named && streams.any(|(_, stream)| self.reaches(asked, stream)) {
                self.count("a live device is not named");
                self.log(device, || format!("NOT NAMED in a {what} at {}", asked.id));
                if self.is_calm(CALM) {
                    self.bad(format!("a {what} at {} does not name {device:?}, which is live, at {at} ms", asked.id));
                }
            }
            let is_long_gone = |gone: Instant| before.began.duration_since(gone) > LONG_GONE;
            if is_named && self.gone_since(device).is_some_and(is_long_gone) {
                self.bad(format!("a {what} at {} names {device:?}, which is long gone, at {at} ms", asked.id));
            }
        }
    }

    /// Whether a device is live, if that has been so for [`SETTLED`]. `None`: it came or left a moment ago.
    pub(super) fn settled(&self, device: Device) -> Option<bool> {
        let is_old = |at: Instant| at.elapsed() > SETTLED;
        if let Some(gone) = self.gone_since(device) {
            return is_old(gone).then_some(false);
        }
        let record = self.record.lock();
        let has_stayed = record.live(device).any(|stream| stream.begun().is_some_and(is_old));
        has_stayed.then_some(true)
    }

    /// Whether nothing fails and some devices neither come nor go. Then each request about them has its answer.
    pub(super) fn are_settled(&self, mut devices: impl Iterator<Item = Device>) -> bool {
        self.is_calm(CALM) && devices.all(|device| self.settled(device).is_some())
    }
}

pub(super) fn devices_of(user: u8) -> impl Iterator<Item = Device> {
    (0..DEVICES).map(move |device| (user, device))
}

/// For how long a device has to be gone until no list names it.
const LONG_GONE: Duration = Duration::from_secs(10);

/// When a device has been live, or gone, for so long, everybody knows it.
const SETTLED: Duration = Duration::from_secs(5);

/// When everything is right again after a fault, in seconds: a node is dead 6 s after its last beat, others learn of it with their next
/// beat, and its devices go offline 2 s later.
pub(super) const CALM: u64 = 10;
