//! How a message gets into a mailbox: admitted, numbered here or handed to another node, held if its sender asked for that.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Draft, Hub, millis,
    slot::{Gone, Slot},
};
use crate::{
    auth::Caller,
    error::Error,
    model::{Address, DeviceId, Message, Outcome, UserId},
    wall_clock,
};

impl Hub {
    /// Hands one message to one device, here or on another node; holds it for an absent one if the sender asked for that.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::MailboxFull`], [`Error::Draining`], [`Error::OverBudget`], and with more nodes
    /// [`Error::Unreachable`] and [`Error::UnknownOutcome`]. Nothing is queued then (but for the last, which cannot tell).
    pub async fn send(&self, caller: &Caller, to: &Address, draft: Draft) -> Result<Outcome, Error> {
        let ttl = millis(draft.ttl.min(self.0.limits.hold));
        let message = message(caller, draft);
        let mut answer = self.push(to, &message);
        if answer == Err(Error::NotConnected) {
            answer = self.0.backplane.send(to, &message).await;
        }
        if answer == Err(Error::NotConnected) && ttl > 0 {
            answer = self.hold(to, &message, ttl);
        }
        self.0.metrics.sent(answer);
        answer
    }

    /// Hands one message to every connected device of a user, here and on other nodes; gives those that got it, sorted.
    ///
    /// # Errors
    /// As [`Hub::send`], when no device got it: [`Error::NotConnected`] when none is connected.
    pub async fn broadcast(&self, caller: &Caller, user: &UserId, draft: Draft) -> Result<Vec<DeviceId>, Error> {
        let message = message(caller, draft);
        let (mut delivered, mut refused) = (Vec::new(), Error::NotConnected);
        for slot in self.0.registry.of_user(user) {
            let answer = self.push_to(&slot, &message);
            self.0.metrics.sent(answer);
            match answer {
                Ok(_) => delivered.push(slot.address.device.clone()),
                Err(Error::NotConnected) => {}
                Err(error) => refused = error,
            }
        }
        delivered.extend(self.0.backplane.broadcast(user, &message).await?);
        delivered.sort();
        if delivered.is_empty() { Err(refused) } else { Ok(delivered) }
    }

    pub(super) fn push(&self, to: &Address, message: &Arc<Message>) -> Result<Outcome, Error> {
        match self.0.registry.find(to) {
            Some(slot) => self.push_to(&slot, message),
            // A node that stops says so, whoever is here.
            None if self.0.draining.load(Ordering::Acquire) => Err(Error::Draining),
            None => Err(Error::NotConnected),
        }
    }

    fn push_to(&self, slot: &Slot, message: &Arc<Message>) -> Result<Outcome, Error> {
        self.admit(message.footprint())?;
        slot.push(&self.0.totals, message.clone(), 0, self.now()).unwrap_or(Err(Error::NotConnected))
    }

    /// Keeps a message for a device that is not here, in a mailbox that may have to be made.
    fn hold(&self, to: &Address, message: &Arc<Message>, ttl_ms: u64) -> Result<Outcome, Error> {
        self.admit(message.footprint() + MAILBOX_COST * self.0.totals.mailboxes.load(Ordering::Relaxed))?;
        loop {
            let now = self.now();
            let slot = self.0.registry.enter(to, &self.0.totals, now);
            match slot.push(&self.0.totals, message.clone(), ttl_ms, now) {
                Err(Gone) => self.0.registry.remove(&slot, &self.0.totals),
                Ok(answer) => return answer,
            }
        }
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        if self.0.draining.load(Ordering::Acquire) {
            return Err(Error::Draining);
        }
        if self.is_over_budget(bytes) { Err(Error::OverBudget) } else { Ok(()) }
    }

    pub(super) fn is_over_budget(&self, more: usize) -> bool {
        self.0.totals.memory.load(Ordering::Relaxed) + more > self.0.limits.memory_budget
    }
}

fn message(caller: &Caller, draft: Draft) -> Arc<Message> {
    let from = caller.address().cloned();
    Arc::new(Message { from, event: draft.event, data: draft.data, sent_at: wall_clock::now() })
}

/// What a mailbox itself takes of the memory budget when it is made for a message to hold, in bytes: anybody may ask for one.
const MAILBOX_COST: usize = 512;
