//! The hub: send, subscribe and list; the whole of what the daemon does, in memory, free of any protocol.

mod backplane;
mod log;
mod mailbox;
#[cfg(test)]
mod mailbox_properties;
mod pace;
mod presence;
#[cfg(test)]
mod races;
mod registry;
mod send;
mod slot;
mod subscription;
mod tend;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_stream::Stream;

pub(crate) use self::log::WAITING_BYTES;
pub use self::{
    backplane::{Answer, Backplane, Inbound, Local},
    presence::Sighting,
    slot::Breaker,
    subscription::{Event, Ready, Subscription},
    watch::Watch,
};
use self::{
    pace::Millis,
    presence::Presence,
    registry::Registry,
    slot::{Gone, Slot, Totals},
};
use crate::{
    auth::{Caller, Subscriber},
    error::Error,
    model::{Address, Data, DeviceId, EndReason, EventName, Message, Outcome, Start, UserId},
    telemetry::Metrics,
};

/// How much the hub keeps and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A stream whose oldest unsent message is older than this is cut.
    pub stall: Duration,
    /// How long a mailbox remembers its last stream.
    pub resume_window: Duration,
    /// How long a message is held for an absent device, at most.
    pub hold: Duration,
    /// The bytes of memory that all messages in all mailboxes may take together.
    pub memory_budget: usize,
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
    /// The silence after which it gets a ping, give or take 10 %.
    pub heartbeat: Duration,
    /// Ends the stream from outside when its peer does not read; none where the connection does that.
    pub breaker: Option<Breaker>,
}

/// A stream of the hub. To ask it for its next item is to say that everything before it is written; until then the peer is owed
/// something, and one that is owed for too long does not read.
pub trait Gather: Stream {
    /// One more item that is there already, to be written together with the one before it.
    fn more(&mut self) -> Option<Self::Item>;
}

/// A look at the hub as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Live streams.
    pub streams: usize,
    /// Mailboxes, with and without a stream.
    pub mailboxes: usize,
    /// The bytes of memory that all messages in them take, about.
    pub memory: usize,
}

/// A cheap handle to the one hub of this process.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    registry: Registry,
    presence: Presence,
    totals: Totals,
    limits: Limits,
    backplane: Box<dyn Backplane>,
    metrics: Metrics,
    began: Instant,
    draining: AtomicBool,
    /// Streams that were told to end and have not been seen ending, with the time to cut them.
    leaving: Mutex<Vec<(Millis, Breaker)>>,
}

impl Hub {
    /// An empty hub.
    #[must_use]
    pub fn new(limits: Limits, backplane: impl Backplane, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            registry: Registry::new(),
            presence: Presence::default(),
            totals: Totals::default(),
            limits,
            backplane: Box::new(backplane),
            metrics,
            began: Instant::now(),
            draining: AtomicBool::new(false),
            leaving: Mutex::default(),
        }))
    }

    /// Opens the stream of the caller's device and ends the one before it.
    ///
    /// # Errors
    /// [`Error::Draining`]; [`Error::OverBudget`]; [`Error::Superseded`] when a newer page of the device is connected.
    pub fn subscribe(&self, subscriber: &Subscriber, opening: &Opening) -> Result<(Ready, Subscription), Error> {
        if self.0.draining.load(Ordering::Acquire) {
            return Err(Error::Draining);
        }
        let address = subscriber.address();
        // A device that has a mailbox may come and empty it.
        if self.is_over_budget(1) && self.0.registry.find(address).is_none() {
            return Err(Error::OverBudget);
        }
        let heartbeat_ms = heartbeat_ms(opening.heartbeat);
        loop {
            let now = self.now();
            let slot = self.0.registry.enter(address, &self.0.totals, now);
            match slot.attach(&self.0.totals, opening.start, heartbeat_ms, opening.breaker.clone(), now) {
                Err(Gone) => self.0.registry.remove(&slot, &self.0.totals),
                Ok(Err(refused)) => return Err(refused),
                Ok(Ok((attachment, leaving))) => {
                    self.see_off(leaving.breaker, now);
                    let (cursor, continuity, replayed) =
                        (attachment.cursor, attachment.continuity, attachment.replayed);
                    let ready = Ready { address: address.clone(), cursor, continuity, replayed };
                    self.0.presence.note(&slot, now);
                    let stream = Subscription::new(self.clone(), slot, attachment.generation, cursor.page);
                    // A drain that began meanwhile may have walked past this slot.
                    if self.0.draining.load(Ordering::Acquire) {
                        return Err(Error::Draining);
                    }
                    self.0.metrics.stream_opened(continuity, replayed);
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
    /// [`Error::Draining`].
    pub fn watch(&self, _caller: &Caller, user: &UserId, opening: &Opening) -> Result<Watch, Error> {
        let (now, number) = (self.now(), fastrand::u64(..));
        self.0.presence.watch(user, number, heartbeat_ms(opening.heartbeat), opening.breaker.clone(), now);
        let watch = Watch::new(self.clone(), user.clone(), number);
        for slot in self.0.registry.of_user(user) {
            self.0.presence.note(&slot, now);
        }
        // A drain that began meanwhile may have missed this watcher.
        if self.0.draining.load(Ordering::Acquire) { Err(Error::Draining) } else { Ok(watch) }
    }

    /// What is in the hub now.
    #[must_use]
    pub fn census(&self) -> Census {
        let totals = &self.0.totals;
        Census {
            streams: totals.streams.load(Ordering::Relaxed),
            mailboxes: totals.mailboxes.load(Ordering::Relaxed),
            memory: totals.memory.load(Ordering::Relaxed),
        }
    }

    /// A stream is over; gives the reason if it was the server that ended it.
    fn detach(&self, slot: &Slot, generation: u32, page: u32) -> Option<EndReason> {
        let now = self.now();
        let reason = slot.detach(&self.0.totals, generation, page, now);
        self.0.presence.note(slot, now);
        reason
    }

    fn now(&self) -> Millis {
        Millis(millis(self.0.began.elapsed()))
    }
}

impl Inbound for Hub {
    fn deliver(&self, to: &Address, message: Message) -> Result<Outcome, Error> {
        self.push(to, &Arc::new(message))
    }

    fn local_devices(&self, user: &UserId) -> Vec<DeviceId> {
        let slots = self.0.registry.of_user(user);
        slots.iter().filter(|slot| slot.is_live()).map(|slot| slot.address.device.clone()).collect()
    }
}

/// The jitter only shortens, and not by much: a peer that vanished has to be gone 35 s later. A ping of the default 15 s is due
/// after 13.5 to 13.65 s, the sweep is late by up to 0.5 s, and the user timeout of 20 s, which counts from the second
/// retransmission, ends the connection 20.6 s after the ping. Where there are many mailboxes, the sweep over them spreads the
/// pings further.
fn heartbeat_ms(heartbeat: Duration) -> u32 {
    let jittered = heartbeat.mul_f64(0.9 + 0.01 * fastrand::f64());
    u32::try_from(jittered.as_millis()).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
