//! The hub: all that the daemon does with messages and streams, in memory and without any protocol.

mod backplane;
mod board;
mod census;
mod deadlines;
mod eviction;
mod expiry;
mod heartbeat;
mod latency;
mod limit_settings;
mod log;
mod mailbox;
mod observer;
mod parcel;
mod presence;
mod registry;
mod schedule;
mod sending;
mod shared_message;
mod shutdown;
mod slot;
mod subscription;
#[cfg(test)]
mod tests;
mod time;
mod timekeeper;
mod user_devices;
mod user_set;
mod watch;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

pub(crate) use self::log::{REPLAY_MS, WAITING_BYTES};
pub use self::{
    backplane::{
        Backplane, BroadcastFault, Brought, Inbound, Local, Page, Placed, Reply, Sending, Standing, Taken, Term,
    },
    board::{Change, Changes},
    census::Census,
    heartbeat::chosen_heartbeat,
    limit_settings::Limits,
    observer::{Event, Evicted, Observer},
    parcel::{Parcel, ParcelEntry, Repeat, Waiting},
    sending::Draft,
    shared_message::SharedMessage,
    subscription::{Ready, StreamItem, Subscription},
    user_set::UserSet,
    watch::{Watch, WatchItem},
};
use self::{
    deadlines::Deadlines,
    expiry::Expiry,
    heartbeat::Heartbeat,
    presence::Presence,
    registry::{Found, Registry},
    slot::{Gone, Totals},
    time::{Millis, millis},
    user_devices::{DeviceLimits, Purpose},
};
use crate::{
    auth::{Caller, Subscriber, TenantAddress, TenantUser},
    budget::Budget,
    error::Error,
    model::{DeviceId, Message, Outcome, Start, UserId},
};

/// How to open a stream.
pub struct Opening {
    /// Where the stream begins.
    pub start: Start,
    /// The stream gets a ping when nothing was sent for 90 to 94 % of this time.
    pub heartbeat: Duration,
}

/// A cheap handle to the one hub of this process.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    core: Core,
    backplane: Box<dyn Backplane>,
    observer: Box<dyn Observer>,
    began: Instant,
    draining: AtomicBool,
    /// When the drain window ends, as a time since `began`.
    drain_ends: OnceLock<Duration>,
}

/// What a slot needs to update the rest of the hub when its mailbox changes.
struct Core {
    registry: Registry,
    presence: Presence,
    deadlines: Deadlines,
    totals: Totals,
    budget: Budget,
    limits: Limits,
    /// [`Limits::resume_window`] in milliseconds.
    window_ms: u64,
}

impl Hub {
    /// Makes an empty hub. Its messages count against the budget.
    #[must_use]
    pub fn new(limits: Limits, budget: Budget, backplane: impl Backplane, observer: impl Observer) -> Self {
        let window_ms = millis(limits.resume_window);
        let core = Core {
            registry: Registry::new(),
            presence: Presence::new(),
            deadlines: Deadlines::default(),
            totals: Totals::default(),
            budget,
            limits,
            window_ms,
        };
        Self(Arc::new(Shared {
            core,
            backplane: Box::new(backplane),
            observer: Box::new(observer),
            began: Instant::now(),
            draining: AtomicBool::new(false),
            drain_ends: OnceLock::new(),
        }))
    }

    /// Opens a stream for the caller's device. Ends the device's previous stream, if there is one.
    ///
    /// # Errors
    /// As [`Caller::reach`]; [`Error::Draining`]; [`Error::OverBudget`]; [`Error::TooMany`]; [`Error::Superseded`] when a newer page
    /// of the device is connected.
    pub fn subscribe(&self, subscriber: &Subscriber, opening: &Opening) -> Result<(Ready, Subscription), Error> {
        self.open(subscriber, opening).inspect_err(|error| self.observe_refused(*error))
    }

    fn open(&self, subscriber: &Subscriber, opening: &Opening) -> Result<(Ready, Subscription), Error> {
        let address = &subscriber.reach()?;
        self.refuse_when_draining()?;
        let (core, caller) = (&self.0.core, subscriber.caller());
        let ticket = caller.reserve_ticket()?;
        // One byte: is there room for anything? A device with a mailbox may connect anyway, because it takes messages out.
        if self.make_room(1).is_err() && core.registry.find(address).is_none() {
            return Err(Error::OVER_BUDGET);
        }
        let heartbeat_ms = heartbeat_ms(opening.heartbeat);
        let limits = core.limits.of(caller).devices;
        loop {
            let now = self.now();
            let slot = self.find_or_insert(address, Purpose::Stream, limits, now)?;
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

    /// Lists the devices of a user that have a live stream, on all nodes, sorted by their bytes.
    ///
    /// # Errors
    /// As [`Caller::reach`]; [`Error::Unreachable`] when other nodes cannot be asked.
    pub async fn devices(&self, caller: &Caller, user: &UserId) -> Result<Vec<DeviceId>, Error> {
        let user = &caller.reach(user)?;
        let mut devices = self.0.backplane.devices(user).await?;
        devices.extend(self.0.core.registry.live(user).iter().map(|slot| slot.address.device.clone()));
        devices.sort();
        devices.dedup();
        Ok(devices)
    }

    /// Watches the devices of some users: gives the list of connected devices of each user, then their changes in order.
    ///
    /// # Errors
    /// As [`Caller::reach`], for all when the caller may not reach one; [`Error::Draining`]; [`Error::TooMany`].
    pub fn watch(&self, caller: &Caller, users: &UserSet, heartbeat: Duration) -> Result<Watch, Error> {
        let users = users.iter().map(|user| caller.reach(user)).collect::<Result<Vec<_>, _>>()?;
        self.refuse_when_draining()?;
        let (core, key) = (&self.0.core, caller.key());
        let ticket = caller.reserve_ticket().inspect_err(|error| self.observe_refused(*error))?;
        let boards = core.presence.add_watches(&users, key.as_ref(), core.limits.of(caller).watches);
        let boards = boards.inspect_err(|error| self.observe_refused(*error))?;
        let now = self.now();
        let heartbeat = Heartbeat::new(heartbeat_ms(heartbeat), now);
        let watch = Watch::new(self.clone(), &boards, key, caller.expires(), heartbeat);
        for board in boards {
            board.fill(now, || {
                let page = |slot: &Arc<slot::Slot>| Some((slot.address.device.clone(), slot.live_page()?));
                core.registry.live(&board.user).iter().filter_map(page).collect()
            });
            board.schedule(&core.deadlines, now);
        }
        // A drain that began in the meantime may have missed this watch.
        self.refuse_when_draining()?;
        ticket.use_up();
        Ok(watch)
    }

    /// Finds the slot of a device, or makes one.
    fn find_or_insert(
        &self,
        address: &TenantAddress,
        purpose: Purpose,
        limits: DeviceLimits,
        now: Millis,
    ) -> Result<Arc<slot::Slot>, Error> {
        let core = &self.0.core;
        let Found { slot, pushed_out } = core.registry.find_or_insert(address, purpose, limits, &core.totals, now)?;
        if let Some(pushed_out) = pushed_out {
            self.observe_evicted(&pushed_out.address, Evicted::Waiting, pushed_out.close(core, now));
        }
        Ok(slot)
    }

    fn observe(&self, event: &Event<'_>) {
        self.0.observer.observe(event);
    }

    fn observe_refused(&self, error: Error) {
        self.observe(&Event::StreamRefused { error });
    }

    fn refuse_when_draining(&self) -> Result<(), Error> {
        if self.0.draining.load(Ordering::Acquire) { Err(Error::DRAINING) } else { Ok(()) }
    }

    fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn now(&self) -> Millis {
        Millis::new(self.elapsed())
    }
}

impl Inbound for Hub {
    fn standing(&self, _: &TenantAddress) -> Option<Standing> {
        unimplemented!()
    }
    fn push_here(&self, _: &TenantAddress, _: &Arc<SharedMessage>, _: Sending) -> Option<Result<Outcome, Error>> {
        unimplemented!()
    }
    fn receive(&self, message: Message) -> Arc<SharedMessage> {
        self.share(message, 1, self.elapsed())
    }
    fn take(&self, _: &TenantAddress, _: Option<Start>, _: Term) -> Taken {
        unimplemented!()
    }
    fn give_up(&self, _: &TenantAddress, _: Term) -> Option<Box<Parcel>> {
        unimplemented!()
    }
    fn hole(&self, _: &TenantAddress, _: u64, _: Vec<Waiting>) -> bool {
        unimplemented!()
    }
    fn place(&self, _: &TenantAddress, _: Placed, _: Term, _: u32) -> Result<(), Placed> {
        unimplemented!()
    }
    fn confirm(&self, _: &TenantAddress, _: Term, _: Term, _: u32) -> bool {
        unimplemented!()
    }
    fn of_user(&self, _: &TenantUser) -> Vec<(DeviceId, Standing)> {
        unimplemented!()
    }
    fn of_part(&self, _: usize) -> Option<Vec<(TenantAddress, Standing)>> {
        unimplemented!()
    }
    fn admit_parcel(&self, _: usize) -> Result<(), Error> {
        unimplemented!()
    }
    fn changed(&self, _: &TenantAddress) {
        unimplemented!()
    }
}

fn heartbeat_ms(heartbeat: Duration) -> u32 {
    u32::try_from(millis(heartbeat)).unwrap_or(u32::MAX)
}
