//! Sending: puts a message into a mailbox of this node, hands it to another node, or holds it for an absent device.

use std::{sync::Arc, time::Duration};

use super::{
    BroadcastFault, Brought, Event, Hub, Sending,
    log::ENTRY_BYTES,
    repeats::digest,
    shared_message::SharedMessage,
    slot::{Gone, Slot},
    time::{Millis, millis},
    user_devices::{DeviceLimits, Purpose},
};
use crate::{
    auth::{Caller, TenantAddress},
    error::{Error, Invalid},
    model::{Address, Data, DeviceId, EventName, IdempotencyKey, Message, Outcome, UserId},
    wall_clock,
};

/// A message as its sender gives it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The sender's name for the kind of message.
    pub event: Option<EventName>,
    /// What to deliver.
    pub data: Data,
    /// How long to hold the message for a device that is not connected. Zero: do not hold it.
    pub ttl: Duration,
    /// Names the send, so that its sender can repeat it. Not for a broadcast.
    pub key: Option<IdempotencyKey>,
}

impl Hub {
    /// Sends one message to one device, on this node or another one. Holds the message for an absent device if the sender asked for
    /// that. A repeat with the key of a message that the device's mailbox accepted in the last minute gets that outcome, and is not
    /// delivered.
    ///
    /// # Errors
    /// As [`Caller::reach`]; [`Error::RateLimited`], [`Error::NotConnected`], [`Error::MailboxFull`], [`Error::Draining`],
    /// [`Error::OverBudget`], [`Error::TooMany`]: the message is not queued. With more nodes also [`Error::Unreachable`], and
    /// [`Error::UnknownOutcome`]: the message may be queued.
    pub async fn send(&self, caller: &Caller, to: &Address, draft: Draft) -> Result<Outcome, Error> {
        let to = &caller.reach_device(to)?;
        self.admit(caller).inspect_err(|error| self.observe_sent(to, Err(*error)))?;
        let (elapsed, ttl_ms) = (self.elapsed(), millis(self.hold_time(draft.ttl)));
        let sending = Sending { ttl_ms, key: draft.key.as_ref().map(|key| digest(caller, key)) };
        let shared = self.share(message(caller, draft), 1, elapsed);
        let answer = match self.push(to, &shared, sending.key, Millis::new(elapsed)) {
            Err(Error::NotConnected) => self.push_elsewhere(caller, to, &shared, sending).await,
            answer => answer,
        };
        self.observe_sent(to, answer);
        answer
    }

    /// For how long the hub holds a message whose sender asks for a time.
    #[must_use]
    pub fn hold_time(&self, asked: Duration) -> Duration {
        asked.min(self.0.core.limits.hold)
    }

    /// Sends one message to every connected device of a user, on all nodes. Counts as one message. Returns the receivers, sorted.
    ///
    /// # Errors
    /// As [`Hub::send`], when no device got the message. With [`Error::UnknownOutcome`] other devices may have it, too.
    /// [`Invalid::BroadcastKey`] for a message with a key.
    pub async fn broadcast(
        &self,
        caller: &Caller,
        user: &UserId,
        draft: Draft,
    ) -> Result<Vec<DeviceId>, BroadcastFault> {
        if draft.key.is_some() {
            return Err(Error::from(Invalid::BroadcastKey).into());
        }
        let user = &caller.reach(user)?;
        let refused = |fault: BroadcastFault| {
            self.observe(&Event::BroadcastRefused { to: user, error: fault.error });
            fault
        };
        self.admit(caller).and_then(|()| self.refuse_when_draining()).map_err(|error| refused(error.into()))?;
        let (core, elapsed) = (&self.0.core, self.elapsed());
        let here = core.registry.live(user);
        let shared = self.share(message(caller, draft), here.len(), elapsed);
        // First the other nodes: when they cannot be asked, nobody has got the message.
        let (mut delivered, mut fault) = match core.backplane.broadcast(user, &shared).await {
            Ok(delivered) => (delivered, Error::NotConnected),
            Err(fault) if matches!(fault.error, Error::Unreachable(_)) => return Err(refused(fault)),
            Err(fault) => (fault.delivered, fault.error),
        };
        let mut is_observed = false;
        let elsewhere = |device: &DeviceId| TenantAddress { user: user.clone(), device: device.clone() };
        for device in &delivered {
            self.observe_sent(&elsewhere(device), Ok(Outcome::Delivered));
        }
        for slot in core.registry.live(user) {
            // The device came from another node meanwhile, and its mailbox brought the message along, or may have.
            let came = || !here.iter().any(|before| Arc::ptr_eq(before, &slot));
            if delivered.contains(&slot.address.device) || fault == Error::UnknownOutcome && came() {
                continue;
            }
            let outcome = self.push_to(&slot, &shared, None, Millis::new(elapsed));
            match outcome {
                // The device left while the message was on its way.
                Err(Error::NotConnected) => continue,
                Err(error) if fault != Error::UnknownOutcome => fault = error,
                Err(_) => {}
                Ok(_) => delivered.push(slot.address.device.clone()),
            }
            self.observe_sent(&slot.address, outcome);
            is_observed = true;
        }
        delivered.sort();
        delivered.dedup();
        if delivered.is_empty() || fault == Error::UnknownOutcome {
            let is_observed = is_observed && fault != Error::UnknownOutcome;
            let fault = BroadcastFault { error: fault, delivered };
            return Err(if is_observed { fault } else { refused(fault) });
        }
        Ok(delivered)
    }

    /// Checks the rate of the caller before the hub looks up the receiver.
    fn admit(&self, caller: &Caller) -> Result<(), Error> {
        self.0.core.limits.send_rates.admit(caller)
    }

    fn observe_sent(&self, to: &TenantAddress, outcome: Result<Outcome, Error>) {
        self.observe(&Event::Sent { to, outcome });
    }

    /// Makes a message for a number of devices of this node.
    pub(super) fn share(&self, message: Message, devices: usize, elapsed: Duration) -> Arc<SharedMessage> {
        Arc::new(SharedMessage::new(message, devices, elapsed, self.0.core.budget.clone()))
    }

    /// Puts a message into the mailbox of a device, if the device is connected to this node for certain.
    fn push(
        &self,
        to: &TenantAddress,
        shared: &Arc<SharedMessage>,
        key: Option<u128>,
        now: Millis,
    ) -> Result<Outcome, Error> {
        let core = &self.0.core;
        // A node that drains says so, also when the device is not connected.
        self.refuse_when_draining()?;
        match core.registry.find(to) {
            Some(slot) if slot.is_certain(core.backplane.era()) => self.push_to(&slot, shared, key, now),
            _ => Err(Error::NotConnected),
        }
    }

    /// Hands a message to the node that has the device, or holds it if no node has the device.
    async fn push_elsewhere(
        &self,
        caller: &Caller,
        to: &TenantAddress,
        shared: &Arc<SharedMessage>,
        sending: Sending,
    ) -> Result<Outcome, Error> {
        let (began, limits) = (self.now(), self.0.core.limits.of(caller).devices);
        loop {
            let answer = self.0.core.backplane.push(to, shared, sending).await;
            if answer != Err(Error::NotConnected) || sending.ttl_ms == 0 {
                return answer;
            }
            if let Some(answer) = self.hold(to, shared, sending, limits).await {
                return answer;
            }
            self.look_again(began, PATIENCE_MS).await?;
        }
    }

    fn push_to(
        &self,
        slot: &Arc<Slot>,
        shared: &Arc<SharedMessage>,
        key: Option<u128>,
        now: Millis,
    ) -> Result<Outcome, Error> {
        self.make_room(ENTRY_BYTES)?;
        // `Gone`: the mailbox was removed meanwhile.
        slot.push(&self.0.core, shared.clone(), Sending { ttl_ms: 0, key }, now).unwrap_or(Err(Error::NotConnected))
    }

    /// Holds a message for an absent device. Makes the mailbox if there is none. `None`: another node has the device now.
    async fn hold(
        &self,
        to: &TenantAddress,
        shared: &Arc<SharedMessage>,
        sending: Sending,
        limits: DeviceLimits,
    ) -> Option<Result<Outcome, Error>> {
        let core = &self.0.core;
        let admitted = self.refuse_when_draining().and_then(|()| self.admit_held(to, shared));
        if let Err(refused) = admitted {
            return Some(Err(refused));
        }
        loop {
            let slot = match core.backplane.hold(to, limits.to_hold()).await {
                Ok(Brought::Anew) => self.find_or_insert(to, Purpose::Hold, limits, self.now()),
                Ok(Brought::Here) => Ok(core.registry.find(to)?),
                Err(refused) => Err(refused),
            };
            let slot = match slot {
                Ok(slot) => slot,
                Err(refused) => return Some(Err(refused)),
            };
            match slot.push(core, shared.clone(), sending, self.now()) {
                Err(Gone) => core.registry.remove(&slot, &core.totals),
                Ok(answer) => return Some(answer),
            }
        }
    }
}

/// For how long a message waits for the mailbox that will hold it, in milliseconds.
const PATIENCE_MS: u64 = 1_000;

fn message(caller: &Caller, draft: Draft) -> Message {
    Message { from: caller.sender(), event: draft.event, data: draft.data, sent_at: wall_clock::now() }
}
