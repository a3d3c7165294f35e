//! Subscribing: finds the device's mailbox on this node, brings it here, or makes one, and attaches a stream.

use std::{sync::Arc, time::Duration};

use super::{
    Brought, Event, Evicted, Hub, Opening, Ready, Subscription,
    expiry::Expiry,
    heartbeat_ms,
    registry::Found,
    slot::{Gone, Slot},
    time::Millis,
    user_devices::{DeviceLimits, Purpose},
};
use crate::{
    auth::{Subscriber, TenantAddress},
    error::Error,
    model::Start,
};

impl Hub {
    /// Opens a stream for the caller's device. Ends the device's previous stream, if there is one.
    ///
    /// # Errors
    /// As [`Caller::reach`](crate::auth::Caller::reach); [`Error::Draining`]; [`Error::OverBudget`]; [`Error::TooMany`]; [`Error::Superseded`] when a newer page
    /// of the device is connected. With more nodes also [`Error::Unreachable`].
    pub async fn subscribe(&self, subscriber: &Subscriber, opening: &Opening) -> Result<(Ready, Subscription), Error> {
        self.open(subscriber, opening).await.inspect_err(|error| self.observe_refused(*error))
    }

    async fn open(&self, subscriber: &Subscriber, opening: &Opening) -> Result<(Ready, Subscription), Error> {
        let address = &subscriber.reach()?;
        self.refuse_when_draining()?;
        let (core, caller) = (&self.0.core, subscriber.caller());
        let ticket = caller.reserve_ticket().await?;
        // One byte: is there room for anything? A device with a mailbox may connect anyway, because it takes messages out.
        if self.make_room(1).is_err() && core.registry.find(address).is_none() {
            return Err(Error::OVER_BUDGET);
        }
        let heartbeat_ms = heartbeat_ms(opening.heartbeat);
        let (limits, began) = (core.limits.of(caller).devices, self.now());
        loop {
            let Some(slot) = self.find_or_bring(address, opening.start, limits).await? else {
                self.look_again(began, PATIENCE_MS).await?;
                continue;
            };
            let now = self.now();
            match slot.attach(core, opening.start, heartbeat_ms, now) {
                Err(Gone) => core.registry.remove(&slot, &core.totals),
                Ok(Err(refused)) => return Err(refused),
                Ok(Ok(attached)) => {
                    let (cursor, continuity, replayed) = (attached.cursor, attached.continuity, attached.replayed);
                    let ready = Ready { address: address.clone(), cursor, continuity, replayed };
                    let stream = Subscription::new(self.clone(), slot.clone(), attached.generation, cursor.page);
                    self.observe(&Event::Opened { address, continuity, replayed });
                    // A drain that began in the meantime may have missed this stream.
                    self.refuse_when_draining()?;
                    if let Some(expires) = caller.expires() {
                        self.check_expiry(Expiry { slot, generation: attached.generation, expires });
                    }
                    ticket.use_up();
                    return Ok((ready, stream));
                }
            }
        }
    }

    /// Finds the slot of a device, brings its mailbox to this node, or makes one. `None`: the mailbox came here and has moved on.
    async fn find_or_bring(
        &self,
        address: &TenantAddress,
        start: Start,
        limits: DeviceLimits,
    ) -> Result<Option<Arc<Slot>>, Error> {
        let core = &self.0.core;
        let here = core.registry.find(address);
        if here.as_ref().is_some_and(|slot| slot.is_certain(core.backplane.era())) {
            return Ok(here);
        }
        match core.backplane.bring(address, start, limits.devices).await? {
            Brought::Anew => self.find_or_insert(address, Purpose::Stream, limits, self.now()).map(Some),
            Brought::Here => Ok(core.registry.find(address)),
        }
    }

    /// Finds the slot of a device, or makes one.
    pub(super) fn find_or_insert(
        &self,
        address: &TenantAddress,
        purpose: Purpose,
        limits: DeviceLimits,
        now: Millis,
    ) -> Result<Arc<Slot>, Error> {
        let core = &self.0.core;
        let Found { slot, pushed_out } = core.registry.find_or_insert(address, purpose, limits, &core.totals, now)?;
        if let Some(pushed_out) = pushed_out {
            self.observe_evicted(&pushed_out.address, Evicted::Waiting, pushed_out.close(core, now));
        }
        Ok(slot)
    }

    /// Waits a moment before this node looks again for a mailbox that came here and has moved on.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when it has looked for long enough.
    pub(super) async fn look_again(&self, began: Millis, patience_ms: u64) -> Result<(), Error> {
        if self.now().since(began) >= patience_ms {
            return Err(Error::UNREACHABLE);
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// For how long a stream waits for the mailbox of its device, in milliseconds. Then its client is told to come back.
const PATIENCE_MS: u64 = 2_500;

/// How long a node waits before it looks again for a mailbox.
const PAUSE: Duration = Duration::from_millis(20);
