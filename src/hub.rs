//! The hub: send, subscribe and list; the whole of what the daemon does, in memory, free of any protocol.

mod backplane;
mod board;
mod deadlines;
mod eviction;
mod latency;
mod liveness;
mod log;
mod mailbox;
mod observer;
mod parcel;
mod presence;
mod registry;
mod schedule;
mod sending;
mod shutdown;
mod slot;
mod subscription;
#[cfg(test)]
mod tests;
mod timekeeper;
mod user_devices;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

pub(crate) use self::log::WAITING_BYTES;
pub use self::{
    backplane::{Backplane, Inbound, Local, Reply},
    board::{Change, Changes},
    observer::{Evicted, HubEvent, Observer},
    parcel::Parcel,
    subscription::{Event, Ready, Subscription},
    watch::{Watch, WatchEvent},
};
use self::{
    deadlines::Deadlines,
    liveness::{Heartbeat, Millis},
    presence::Presence,
    registry::{Found, Purpose, Registry},
    slot::{Gone, Totals},
};
use crate::{
    auth::{Caller, Subscriber},
    budget::Budget,
    error::Error,
    model::{Address, Data, DeviceId, EventName, Message, Outcome, Start, UserId},
};

/// How much the hub keeps and how long it waits. A count of 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a mailbox remembers its last stream.
    pub resume_window: Duration,
    /// How long a message is held for an absent device, at most.
    pub hold: Duration,
    /// The bytes of memory that all held messages may take together.
    pub hold_budget: usize,
    /// Mailboxes of one user.
    pub user_devices: usize,
    /// Of these, such as only hold messages.
    pub user_held_devices: usize,
    /// Watches of one user's devices.
    pub user_watchers: usize,
    /// Watches of one caller.
    pub caller_watches: usize,
}

impl Limits {
    /// Any number of everything.
    #[must_use]
    pub fn unlimited(resume_window: Duration, hold: Duration) -> Self {
        Self {
            resume_window,
            hold,
            hold_budget: 0,
            user_devices: 0,
            user_held_devices: 0,
            user_watchers: 0,
            caller_watches: 0,
        }
    }
}

/// What a sender wants delivered.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The kind of message.
    pub event: Option<EventName>,
    /// What to deliver.
    pub data: Data,
    /// How long to hold it for a device that is not connected; zero: not at all.
    pub ttl: Duration,
}

/// How a stream wants to be opened.
pub struct Opening {
    /// Where it begins.
    pub start: Start,
    /// It gets a ping after nine tenths of this much silence, or a thirtieth of it later.
    pub heartbeat: Duration,
}

/// A look at the hub as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Live streams.
    pub streams: usize,
    /// Mailboxes, with and without a stream.
    pub mailboxes: usize,
    /// Watches of a user's devices.
    pub watches: usize,
    /// The bytes of memory that all messages in mailboxes take, about.
    pub memory: usize,
    /// Of these, what is held for devices that are not connected, with the mailboxes that only hold.
    pub held: usize,
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
}

/// What a change of a mailbox touches.
struct Core {
    registry: Registry,
    presence: Presence,
    deadlines: Deadlines,
    totals: Totals,
    budget: Budget,
    limits: Limits,
}

impl Core {
    /// How long a mailbox remembers its last stream, in milliseconds.
    fn window_ms(&self) -> u64 {
        millis(self.limits.resume_window)
    }
}

impl Hub {
    /// An empty hub, whose messages count against a budget.
    #[must_use]
    pub fn new(limits: Limits, budget: Budget, backplane: impl Backplane, observer: impl Observer) -> Self {
        let window_ms = millis(limits.resume_window);
        let devices =
            registry::DeviceLimits { devices: limits.user_devices, held: limits.user_held_devices, window_ms };
        let watches = presence::WatchLimits { of_user: limits.user_watchers, of_caller: limits.caller_watches };
        let core = Core {
            registry: Registry::new(devices),
            presence: Presence::new(watches),
            deadlines: Deadlines::default(),
            totals: Totals::default(),
            budget,
            limits,
        };
        Self(Arc::new(Shared {
            core,
            backplane: Box::new(backplane),
            observer: Box::new(observer),
            began: Instant::now(),
            draining: AtomicBool::new(false),
        }))
    }

    /// Opens the stream of the caller's device and ends the one before it.
    ///
    /// # Errors
    /// [`Error::Draining`]; [`Error::OverBudget`]; [`Error::TooMany`]; [`Error::Superseded`] when a newer page of the device is
    /// connected.
    pub fn subscribe(&self, subscriber: &Subscriber, opening: &Opening) -> Result<(Ready, Subscription), Error> {
        self.refuse_when_draining()?;
        let (core, address) = (&self.0.core, subscriber.address());
        // A device that has a mailbox may come and empty it.
        if self.make_room(1).is_err() && core.registry.find(address).is_none() {
            return Err(Error::OverBudget);
        }
        let heartbeat_ms = heartbeat_ms(opening.heartbeat);
        loop {
            let now = self.now();
            let slot = self.find_or_insert(address, Purpose::Stream, now)?;
            match slot.attach(core, opening.start, heartbeat_ms, now) {
                Err(Gone) => core.registry.remove(&slot, &core.totals),
                Ok(Err(refused)) => return Err(refused),
                Ok(Ok(attached)) => {
                    let (cursor, continuity, replayed) = (attached.cursor, attached.continuity, attached.replayed);
                    let ready = Ready { address: address.clone(), cursor, continuity, replayed };
                    let stream = Subscription::new(self.clone(), slot, attached.generation, cursor.page);
                    self.observe(&HubEvent::Opened { address, continuity, replayed });
                    // A drain that began meanwhile may have walked past this slot.
                    self.refuse_when_draining()?;
                    return Ok((ready, stream));
                }
            }
        }
    }

    /// The devices of a user that have a live stream, sorted by their bytes, here and on other nodes.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when other nodes cannot be asked.
    pub async fn devices(&self, _caller: &Caller, user: &UserId) -> Result<Vec<DeviceId>, Error> {
        let mut devices = self.local_devices(user);
        devices.extend(self.0.backplane.devices(user).await?);
        devices.sort();
        devices.dedup();
        Ok(devices)
    }

    /// Shows who comes and goes: the list of a user's connected devices as of one instant, then every change once, in order.
    ///
    /// # Errors
    /// [`Error::Draining`]; [`Error::TooMany`].
    pub fn watch(&self, caller: &Caller, user: &UserId, heartbeat: Duration) -> Result<Watch, Error> {
        let core = &self.0.core;
        let board = core.presence.add_watch(user, caller.address())?;
        let now = self.now();
        let heartbeat = Heartbeat::new(heartbeat_ms(heartbeat), now);
        let watch = Watch::new(self.clone(), board.clone(), caller.address().cloned(), heartbeat);
        board.fill(now, || {
            let page = |slot: &Arc<slot::Slot>| Some((slot.address.device.clone(), slot.live_page()?));
            core.registry.live(user).iter().filter_map(page).collect()
        });
        board.schedule(&core.deadlines, now);
        // A drain that began meanwhile may have missed this watcher.
        self.refuse_when_draining()?;
        Ok(watch)
    }

    /// What is in the hub now.
    #[must_use]
    pub fn census(&self) -> Census {
        let core = &self.0.core;
        Census {
            streams: core.totals.streams.load(Ordering::Relaxed),
            mailboxes: core.totals.mailboxes.load(Ordering::Relaxed),
            watches: core.presence.watches(),
            memory: core.budget.messages(),
            held: core.totals.held.load(Ordering::Relaxed),
        }
    }

    /// The slot of a device, made if there is none.
    fn find_or_insert(&self, address: &Address, purpose: Purpose, now: Millis) -> Result<Arc<slot::Slot>, Error> {
        let core = &self.0.core;
        let Found { slot, pushed_out } = core.registry.find_or_insert(address, purpose, &core.totals, now)?;
        if let Some(pushed_out) = pushed_out {
            self.observe_evicted(&pushed_out.address, Evicted::Held, pushed_out.close(core, now));
        }
        Ok(slot)
    }

    fn observe(&self, event: &HubEvent<'_>) {
        self.0.observer.observe(event);
    }

    fn refuse_when_draining(&self) -> Result<(), Error> {
        if self.0.draining.load(Ordering::Acquire) { Err(Error::Draining) } else { Ok(()) }
    }

    fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn now(&self) -> Millis {
        Millis::new(self.elapsed())
    }
}

impl Inbound for Hub {
    fn deliver(&self, to: &Address, message: Message) -> Result<Outcome, Error> {
        let elapsed = self.elapsed();
        let parcel = Parcel::new(message, self.0.core.budget.clone()).accepted(elapsed);
        self.push(to, &Arc::new(parcel), Millis::new(elapsed))
    }

    fn local_devices(&self, user: &UserId) -> Vec<DeviceId> {
        self.0.core.registry.live(user).iter().map(|slot| slot.address.device.clone()).collect()
    }
}

fn heartbeat_ms(heartbeat: Duration) -> u32 {
    u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
