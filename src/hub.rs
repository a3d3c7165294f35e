//! The hub: send, subscribe and list; the whole of what the daemon does, in memory, free of any protocol.

mod backplane;
mod log;
mod mailbox;
#[cfg(test)]
mod mailbox_properties;
mod pace;
mod registry;
mod slot;
mod subscription;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

pub(crate) use self::log::WAITING_BYTES;
pub use self::{
    backplane::{Answer, Backplane, Inbound, Local},
    slot::Breaker,
    subscription::{Event, Ready, Subscription},
};
use self::{
    pace::Millis,
    registry::{Registry, SHARDS},
    slot::{Gone, Totals},
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
    /// The bytes of all messages in all mailboxes together.
    pub memory_budget: usize,
}

/// What a sender wants delivered.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The kind of message.
    pub event: Option<EventName>,
    /// What to deliver.
    pub data: Data,
}

/// How a stream wants to be opened.
pub struct Opening {
    /// Where it begins.
    pub start: Start,
    /// The silence after which it gets a ping, give or take 10 %.
    pub heartbeat: Duration,
    /// Ends the stream from outside when its peer does not read.
    pub breaker: Option<Breaker>,
}

/// A look at the hub as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Live streams.
    pub streams: usize,
    /// Mailboxes, with and without a stream.
    pub mailboxes: usize,
    /// The bytes of all messages in them.
    pub bytes: usize,
}

/// A cheap handle to the one hub of this process.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    registry: Registry,
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
            totals: Totals::default(),
            limits,
            backplane: Box::new(backplane),
            metrics,
            began: Instant::now(),
            draining: AtomicBool::new(false),
            leaving: Mutex::default(),
        }))
    }

    /// Hands one message to one device, here or on another node.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::MailboxFull`], [`Error::Draining`], [`Error::OverBudget`], and with more nodes
    /// [`Error::Unreachable`] and [`Error::UnknownOutcome`]. Nothing is queued then (but for the last, which cannot tell).
    pub async fn send(&self, caller: &Caller, to: &Address, draft: Draft) -> Result<Outcome, Error> {
        let from = caller.address().cloned();
        let message = Arc::new(Message { from, event: draft.event, data: draft.data, sent_at: SystemTime::now() });
        let answer = match self.push(to, message.clone()) {
            Err(Error::NotConnected) => self.0.backplane.send(to, &message).await,
            answer => answer,
        };
        self.0.metrics.sent(answer);
        answer
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
        // The sweep adds up to a period, so the jitter only shortens.
        let heartbeat = opening.heartbeat.mul_f64(0.9 + 0.1 * fastrand::f64());
        let heartbeat_ms = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX);
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
                    let stream = Subscription::new(self.clone(), slot, attachment.generation, cursor.page);
                    // A drain that began meanwhile may have walked past this slot.
                    if self.0.draining.load(Ordering::Acquire) {
                        return Err(Error::Draining);
                    }
                    self.0.metrics.stream_opened(continuity);
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

    /// What is in the hub now.
    #[must_use]
    pub fn census(&self) -> Census {
        let totals = &self.0.totals;
        Census {
            streams: totals.streams.load(Ordering::Relaxed),
            mailboxes: totals.mailboxes.load(Ordering::Relaxed),
            bytes: totals.bytes.load(Ordering::Relaxed),
        }
    }

    /// Walks over all mailboxes again and again: heartbeats, stalled streams, messages and mailboxes whose time is over.
    ///
    /// Never ends. `heartbeat` is the shortest one in use.
    pub async fn tend(self, heartbeat: Duration) {
        // A heartbeat may be late by a fifteenth of it, a stalled stream by a fifth of its time.
        let round = (heartbeat / 15).min(self.0.limits.stall / 5).max(Duration::from_millis(20));
        let mut slices = tokio::time::interval(round / SHARDS_IN_U32);
        slices.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for shard in 0..SHARDS {
                slices.tick().await;
                self.tick(shard);
            }
            self.cut_leaving();
        }
    }

    /// Refuses new work from now on and ends all streams, spread over `window`; returns early when none is left.
    pub async fn drain(&self, window: Duration) {
        self.0.draining.store(true, Ordering::Release);
        let mut slices = tokio::time::interval(window / SHARDS_IN_U32);
        for shard in 0..SHARDS {
            slices.tick().await;
            if self.census().streams == 0 {
                return;
            }
            for slot in self.0.registry.of_shard(shard) {
                slot.end(&self.0.totals, EndReason::Draining, self.now());
            }
        }
    }

    fn push(&self, to: &Address, message: Arc<Message>) -> Result<Outcome, Error> {
        if self.0.draining.load(Ordering::Acquire) {
            return Err(Error::Draining);
        }
        let Some(slot) = self.0.registry.find(to) else { return Err(Error::NotConnected) };
        if self.0.totals.bytes.load(Ordering::Relaxed) + message.cost() > self.0.limits.memory_budget {
            return Err(Error::OverBudget);
        }
        slot.push(&self.0.totals, message, 0, self.now()).unwrap_or(Err(Error::NotConnected))
    }

    fn tick(&self, shard: usize) {
        let limits = &self.0.limits;
        let (stall, window) = (millis(limits.stall), millis(limits.resume_window));
        for slot in self.0.registry.of_shard(shard) {
            let now = self.now();
            let (ticked, leaving) = slot.tick(&self.0.totals, stall, window, now);
            self.see_off(leaving.breaker, now);
            if ticked.stalled {
                tracing::debug!("a stream was cut: its peer does not read");
            }
            if ticked.forget {
                self.0.registry.remove(&slot, &self.0.totals);
            }
        }
    }

    /// Leaves a stream that was told to end the time to say its last word.
    fn see_off(&self, breaker: Option<Breaker>, now: Millis) {
        if let Some(breaker) = breaker {
            self.0.leaving.lock().push((Millis(now.0 + LAST_WORD_MS), breaker));
        }
    }

    fn cut_leaving(&self) {
        let now = self.now();
        let due: Vec<_> = self.0.leaving.lock().extract_if(.., |(at, _)| *at <= now).collect();
        for (_, breaker) in due {
            breaker();
        }
    }

    fn now(&self) -> Millis {
        Millis(millis(self.0.began.elapsed()))
    }
}

impl Inbound for Hub {
    fn deliver(&self, to: &Address, message: Message) -> Result<Outcome, Error> {
        self.push(to, Arc::new(message))
    }

    fn local_devices(&self, user: &UserId) -> Vec<DeviceId> {
        let slots = self.0.registry.of_user(user);
        let mut devices: Vec<_> =
            slots.iter().filter(|slot| slot.is_live()).map(|slot| slot.address.device.clone()).collect();
        devices.sort();
        devices
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long a stream that was told to end may take for it before it is cut.
const LAST_WORD_MS: u64 = 5_000;

#[expect(clippy::cast_possible_truncation, reason = "64 fits")]
const SHARDS_IN_U32: u32 = SHARDS as u32;
