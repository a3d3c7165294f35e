//! The senders: each sends to one device for a while, through any node, one message after the other.

use std::{iter::once, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    connected::Connected,
    outcomes::{Answered, Sent},
    simulated_node::{SimulatedNode, spawn},
    world::{Device, World, address},
};
use crate::{
    auth::Caller,
    error::Error,
    hub::Draft,
    model::{Data, Outcome},
};

impl World {
    pub(super) fn begin_senders(self: &Arc<Self>) {
        for sender in 1..=SENDERS {
            spawn(self.clone().keep_sending(sender));
        }
    }

    async fn keep_sending(self: Arc<Self>, sender: u64) {
        let (mut number, mut to) = (sender << 32, self.random_device());
        while !self.is_quiet() {
            sleep(self.random_ms(20, 320)).await;
            if self.chance(20) {
                to = self.random_device();
            }
            // The balancer notices a frozen node.
            let Some(node) = self.pick().filter(|node| !node.gate.is_frozen()) else { continue };
            number += 1;
            let ttl = if self.chance(30) { HELD } else { Duration::ZERO };
            let began = Instant::now();
            let (before, was_settled) = (self.live_on(to), self.are_settled(once(to)));
            let answer = Self::send(&node, to, number, ttl).await;
            let sent = Sent { to, number, began, ended: Instant::now(), ttl, answer };
            self.log(to, || format!("sender at {}: {number:x} {answer:?} ttl {ttl:?}", node.id));
            self.count_answer(&sent);
            if was_settled && matches!(answer, Answered::Unreachable | Answered::Unknown) && self.are_settled(once(to))
            {
                self.log(to, || format!("REFUSED at {}", node.id));
                let at = self.began.elapsed().as_millis();
                self.bad(format!("{number:x} to {to:?}, which stays, is {answer:?} at {} at {at} ms", node.id));
            }
            if answer == Answered::Absent && !node.gate.is_dead() {
                self.judge_absence(&node, to, before);
            }
            self.record.lock().sent.push(sent);
        }
    }

    async fn send(node: &SimulatedNode, to: Device, number: u64, ttl: Duration) -> Answered {
        let draft = Draft { event: None, data: Data::new(number.to_string()).expect("not empty"), ttl, key: None };
        let (caller, to) = (Caller::anonymous(), address(to));
        let answer = timeout(PATIENCE, node.gate.pass(node.hub.send(&caller, &to, draft))).await;
        match answer {
            Ok(Some(Ok(Outcome::Delivered))) => Answered::Delivered,
            Ok(Some(Ok(Outcome::Held))) => Answered::Held,
            Ok(Some(Err(Error::NotConnected))) => Answered::Absent,
            Ok(Some(Err(Error::Unreachable(_)))) => Answered::Unreachable,
            Ok(Some(Err(Error::UnknownOutcome)) | None) | Err(_) => Answered::Unknown,
            Ok(Some(Err(_))) => Answered::Refused,
        }
    }

    fn count_answer(&self, sent: &Sent) {
        self.count(match sent.answer {
            Answered::Delivered => "200",
            Answered::Held => "202",
            Answered::Absent => "404",
            Answered::Unreachable => "503",
            Answered::Refused => "429",
            Answered::Unknown => "504",
        });
        if self.is_calm(40) {
            match sent.answer {
                Answered::Unreachable => self.count("503 in calm"),
                Answered::Unknown => self.count("504 in calm"),
                _ => self.count("other answers in calm"),
            }
        }
    }

    /// A 404 is wrong when one stream of the device was open all the time, on a node that this one can reach.
    fn judge_absence(&self, asked: &SimulatedNode, to: Device, before: Option<Arc<Connected>>) {
        let Some(stream) = before.filter(|stream| self.reaches(asked, stream)) else { return };
        self.count("false 404");
        self.log(to, || format!("FALSE 404 at {}: it is at {}", asked.id, stream.node));
        if self.is_calm(6) {
            let at = self.began.elapsed().as_millis();
            self.bad(format!("false 404 for {to:?} at {at} ms"));
        }
    }

    fn live_on(&self, device: Device) -> Option<Arc<Connected>> {
        self.record.lock().live(device).last().cloned()
    }
}

pub(super) const SENDERS: u64 = 6;

/// For how long some messages are held.
pub(super) const HELD: Duration = Duration::from_secs(8);

/// How long a client waits for the answer to a send.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
