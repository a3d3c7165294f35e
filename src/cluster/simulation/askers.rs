//! The askers: each lists the devices of a user, or broadcasts to them, through any node.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    outcomes::{Answered, Number, Sent},
    senders::{PATIENCE, SENDERS},
    simulated_node::{SimulatedNode, spawn},
    truth::devices_of,
    world::{Device, World, address},
};
use crate::{
    auth::Caller,
    error::Error,
    hub::{BroadcastFault, Draft},
    model::{Data, DeviceId},
};

impl World {
    pub(super) fn begin_askers(self: &Arc<Self>) {
        for asker in 1..=ASKERS {
            spawn(self.clone().keep_asking(SENDERS + asker));
        }
    }

    async fn keep_asking(self: Arc<Self>, asker: u64) {
        let mut number = asker << 32;
        while !self.is_quiet() {
            sleep(self.random_ms(300, 2_000)).await;
            let (user, _) = self.random_device();
            let Some(node) = self.pick().filter(|node| !node.gate.is_frozen()) else { continue };
            if self.chance(50) {
                number += 1;
                self.broadcast(&node, user, number).await;
            } else {
                self.list(&node, user).await;
            }
        }
    }

    async fn list(&self, node: &SimulatedNode, user: u8) {
        let (before, settled) = (self.streams_of(user), self.are_settled(devices_of(user)));
        let (caller, id) = (Caller::anonymous(), address((user, 0)).user);
        let answer = timeout(PATIENCE, node.gate.pass(node.hub.devices(&caller, &id))).await;
        let Ok(Some(answer)) = answer else { return self.count("list: no answer") };
        self.count(if answer.is_ok() { "list: 200" } else { "list: 503" });
        if self.is_calm(40) {
            self.count(if answer.is_ok() { "list: 200 in calm" } else { "list: 503 in calm" });
        }
        match answer {
            Ok(names) => self.judge_names(node, user, &before, &named(user, &names), "list"),
            Err(error) => self.judge_refusal(settled, node, user, &format!("list is {error:?}")),
        }
    }

    /// A broadcast is a send to each device.
    async fn broadcast(&self, node: &SimulatedNode, user: u8, number: Number) {
        let (before, began, settled) = (self.streams_of(user), Instant::now(), self.are_settled(devices_of(user)));
        let (caller, id) = (Caller::anonymous(), address((user, 0)).user);
        let data = Data::new(number.to_string()).expect("not empty");
        let draft = Draft { event: None, data, ttl: Duration::ZERO, key: None };
        let answer = timeout(PATIENCE, node.gate.pass(node.hub.broadcast(&caller, &id, draft))).await;
        let (names, others) = match answer {
            Ok(Some(Ok(names))) => (named(user, &names), Answered::Absent),
            Ok(Some(Err(BroadcastFault { error, delivered }))) => (named(user, &delivered), as_answered(error)),
            Ok(None) | Err(_) => (Vec::new(), Answered::Unknown),
        };
        self.count(match others {
            Answered::Absent if names.is_empty() => "broadcast: 404",
            Answered::Absent => "broadcast: 200",
            Answered::Unknown => "broadcast: 504",
            _ => "broadcast: 503",
        });
        if others != Answered::Absent {
            self.judge_refusal(settled, node, user, &format!("broadcast is {others:?}"));
        } else if !node.gate.is_dead() {
            self.judge_names(node, user, &before, &names, "broadcast");
        }
        for to in devices_of(user) {
            let answer = if names.contains(&to) { Answered::Delivered } else { others };
            self.log(to, || format!("asker at {}: broadcast {number:x} {answer:?}", node.id));
            self.record.lock().sent.push(Sent {
                to,
                number,
                began,
                ended: Instant::now(),
                answer,
                ttl: Duration::ZERO,
            });
        }
    }

    /// A request that concerns no device that comes or goes is never refused while nothing fails.
    fn judge_refusal(&self, was_settled: bool, asked: &SimulatedNode, user: u8, what: &str) {
        if was_settled && self.are_settled(devices_of(user)) {
            let at = self.began.elapsed().as_millis();
            self.bad(format!("at {} a {what} for user {user}, whose devices stay, at {at} ms", asked.id));
        }
    }
}

fn as_answered(error: Error) -> Answered {
    match error {
        Error::NotConnected => Answered::Absent,
        Error::Unreachable(_) => Answered::Unreachable,
        Error::UnknownOutcome => Answered::Unknown,
        _ => Answered::Refused,
    }
}

fn named(user: u8, names: &[DeviceId]) -> Vec<Device> {
    devices_of(user).filter(|device| names.contains(&address(*device).device)).collect()
}

const ASKERS: u64 = 1;
