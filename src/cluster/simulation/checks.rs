//! The checks: nothing that was accepted is lost in silence, nothing comes twice, out of order, or after it was refused, and each
//! device is at one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    outcomes::{Answered, Death, Record, Sent, sender},
    simulated_node::{WINDOW, spawn},
    world::{Device, World, all_devices, place},
};
use crate::{hub::Inbound as _, model::Continuity};

impl World {
    /// Looks for devices that have streams on two nodes at the same time.
    pub(super) fn begin_watching(self: &Arc<Self>) {
        let world = self.clone();
        spawn(async move {
            let mut since = BTreeMap::<Device, Instant>::new();
            while !world.is_quiet() {
                sleep(Duration::from_millis(250)).await;
                for device in all_devices() {
                    if !world.is_on_two_nodes(device) {
                        since.remove(&device);
                    } else if since.entry(device).or_insert_with(Instant::now).elapsed() > TOGETHER && world.is_calm(8)
                    {
                        let at = world.began.elapsed().as_millis();
                        world.bad(format!("{device:?} is live on two nodes for 8 s at {at} ms"));
                        since.insert(device, Instant::now() + Duration::from_secs(60));
                    }
                }
            }
        });
    }

    fn is_on_two_nodes(&self, device: Device) -> bool {
        let nodes: BTreeSet<_> = self.record.lock().live(device).map(|stream| stream.node).collect();
        let running = |id: &_| self.node(*id).is_some_and(|node| !node.gate.is_frozen());
        let nodes: Vec<_> = nodes.into_iter().filter(running).collect();
        nodes.len() > 1 && nodes.windows(2).all(|pair| self.server.joins(pair[0], pair[1]))
    }

    pub(super) fn check(&self) {
        self.check_places();
        self.check_watchers(&mut BTreeSet::new());
        let record = std::mem::take(&mut *self.record.lock());
        let mut bad = record.bad.clone();
        record.check_repeats(&mut bad);
        record.check_order(&mut bad);
        let all_got = record.all_got();
        for sent in &record.sent {
            let got = all_got.contains(&(sent.to, sent.number));
            let at = sent.ended.duration_since(self.began).as_millis();
            if got && sent.answer.is_refused() {
                bad.push(format!(
                    "{:?} got {:x}, which was refused ({:?}) at {at} ms",
                    sent.to, sent.number, sent.answer
                ));
            }
            if !got && sent.answer.is_accepted() {
                self.count("accepted and not delivered");
                if let Some(excuse) = record.excuse(sent) {
                    self.count(excuse);
                } else {
                    bad.push(format!("{:x} to {:?} is lost, {:?} at {at} ms", sent.number, sent.to, sent.answer));
                }
            }
        }
        self.record.lock().bad = bad;
    }

    /// Every device is live on the node that the directory names, and only there, and nobody owes.
    fn check_places(&self) {
        let nodes = self.nodes();
        for device in all_devices() {
            let at = place(device);
            let is_live = |node: &Arc<super::simulated_node::SimulatedNode>| {
                node.hub.standing(&at).is_some_and(|standing| standing.live.is_some())
            };
            let live: Vec<_> = nodes.iter().filter(|node| is_live(node)).map(|node| node.id).collect();
            let entry = self.server.entry(&at).map(|entry| entry.node);
            if live.len() != 1 || entry != Some(live[0]) {
                self.bad(format!("{device:?} is live on {live:?} at the end, and the directory says {entry:?}"));
            }
        }
        if !self.server.is_sure() {
            self.bad("somebody owes at the end".to_owned());
        }
    }
}

impl Record {
    fn check_repeats(&self, bad: &mut Vec<String>) {
        for ((device, page), got) in &self.got {
            let mut seen = BTreeSet::new();
            for (_, number) in got {
                if !seen.insert(number) {
                    bad.push(format!("page {page} of {device:?} got {number:x} twice"));
                }
            }
        }
    }

    /// Messages of one sender come in the order in which they were sent, unless the device was told `broken` in between.
    fn check_order(&self, bad: &mut Vec<String>) {
        let accepted: BTreeSet<_> =
            self.sent.iter().filter(|sent| sent.answer.is_accepted()).map(|sent| (sent.to, sent.number)).collect();
        for ((device, page), got) in &self.got {
            let mut last = BTreeMap::new();
            for (at, number) in got.iter().filter(|(_, number)| accepted.contains(&(*device, *number))) {
                if let Some((before, when)) = last.insert(sender(*number), (*number, *at))
                    && before > *number
                    && !self.broken(*device).any(|broken| when <= broken && broken <= *at)
                {
                    bad.push(format!("page {page} of {device:?} got {number:x} after {before:x}"));
                }
            }
        }
    }

    /// Why a message that was accepted may be missing.
    fn excuse(&self, sent: &Sent) -> Option<&'static str> {
        let away = self.away.get(&sent.to).map(Vec::as_slice).unwrap_or_default();
        // The time for which the device was away on purpose does not count.
        let until = away.iter().fold(sent.ended + DECLARED, |until, (left, back)| {
            if *left <= until && *back >= sent.began { until + back.duration_since(*left) } else { until }
        });
        if self.broken(sent.to).any(|broken| sent.began <= broken && broken <= until) {
            return Some("lost: declared");
        }
        let stayed_away = |(left, back): &(Instant, Instant)| {
            *left <= until && *back >= sent.began && back.duration_since(*left) >= WINDOW
        };
        if away.iter().any(stayed_away) {
            return Some("lost: not back within the window");
        }
        // Its mailbox was on one side, and its device came back on the other.
        let apart = |(began, healed): &(Instant, Instant)| *began <= sent.ended && sent.ended + WINDOW <= *healed;
        if self.splits.iter().any(apart) {
            return Some("lost: apart for longer than the window");
        }
        // It was held on one side for its device, which was on the other, until its time was over.
        let held_apart =
            |(began, healed): &(Instant, Instant)| *began <= sent.ended && sent.ended + sent.ttl <= *healed;
        if sent.answer == Answered::Held && self.splits.iter().any(held_apart) {
            return Some("lost: held apart for longer than its time");
        }
        let in_time = |death: &&Death| sent.began <= death.at && death.at <= sent.ended + DIED;
        let mut deaths = self.deaths.iter().filter(in_time).filter(|death| death.devices.contains(&sent.to)).peekable();
        let died = deaths.peek().is_some();
        // It took the message for a device that had gone elsewhere, and could not send it on.
        if deaths.any(|death| death.apart || death.elsewhere.contains(&sent.to)) {
            return Some("lost: with a node, and one of the two was apart");
        }
        let opened = self.opened.get(&sent.to).map(Vec::as_slice).unwrap_or_default();
        let anew = opened.iter().any(|(at, continuity)| *at >= sent.ended && *continuity == Continuity::New);
        (died && anew).then_some("lost: with a node, and its page too")
    }
}

/// For how long a device may be on two nodes.
const TOGETHER: Duration = Duration::from_secs(8);

/// How long it may take until the loss of a message is declared.
const DECLARED: Duration = Duration::from_secs(60);

/// How long after a send the death of a node may lose the message.
const DIED: Duration = Duration::from_secs(90);
