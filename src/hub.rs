//! The hub: all that the daemon does with messages and streams, in memory and without any protocol.

mod backplane;
mod board;
mod census;
mod deadlines;
mod eviction;
mod expiry;
mod heartbeat;
mod inbound;
mod latency;
mod limit_settings;
mod log;
mod mailbox;
mod observer;
mod parcel;
mod presence;
mod registry;
mod repeats;
mod schedule;
mod sending;
mod shared_message;
mod shutdown;
mod slot;
mod subscribing;
mod subscription;
#[cfg(test)]
mod tests;
mod time;
mod timekeeper;
mod user_devices;
mod user_set;
mod watch;
mod watching;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

pub(crate) use self::log::{REPLAY_MS, WAITING_BYTES};
#[cfg(test)]
pub(crate) use self::tests::stub_nodes::StubNodes;
pub use self::{
    backplane::{
        Backplane, BroadcastFault, Brought, Inbound, Local, Page, Placed, Reply, Sending, Standing, Taken, Term,
    },
    board::{Change, Changes},
    census::Census,
    heartbeat::chosen_heartbeat,
    limit_settings::Limits,
    observer::{Event, Evicted, Observer},
    parcel::{Parcel, ParcelEntry, Repeat, Waiting, Waits},
    sending::Draft,
    shared_message::SharedMessage,
    subscription::{Ready, StreamItem, Subscription},
    user_set::UserSet,
    watch::{Watch, WatchItem},
};
use self::{
    deadlines::Deadlines,
    presence::Presence,
    registry::Registry,
    slot::Totals,
    time::{Millis, millis},
};
use crate::{
    auth::Caller,
    budget::Budget,
    error::Error,
    model::{DeviceId, Start, UserId},
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
    observer: Box<dyn Observer>,
    /// The beginning of the hub's time: [`EARLIER`] before the hub was made.
    began: Instant,
    draining: AtomicBool,
    /// When the drain window ends, as a time since `began`.
    drain_ends: OnceLock<Duration>,
}

/// What a slot needs to update the rest of the hub when its mailbox changes.
struct Core {
    backplane: Box<dyn Backplane>,
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
            backplane: Box::new(backplane),
            registry: Registry::new(),
            presence: Presence::new(),
            deadlines: Deadlines::default(),
            totals: Totals::default(),
            budget,
            limits,
            window_ms,
        };
        let began = Instant::now();
        Self(Arc::new(Shared {
            core,
            observer: Box::new(observer),
            began: began.checked_sub(EARLIER).unwrap_or(began),
            draining: AtomicBool::new(false),
            drain_ends: OnceLock::new(),
        }))
    }

    /// Lists the devices of a user that have a live stream, on all nodes, sorted by their bytes.
    ///
    /// # Errors
    /// As [`Caller::reach`]; [`Error::Unreachable`] when other nodes cannot be asked.
    pub async fn devices(&self, caller: &Caller, user: &UserId) -> Result<Vec<DeviceId>, Error> {
        let user = &caller.reach(user)?;
        let mut devices = self.0.core.backplane.devices(user).await?;
        devices.extend(self.0.core.registry.live(user).iter().map(|slot| slot.address.device.clone()));
        devices.sort();
        devices.dedup();
        Ok(devices)
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

/// The time of a hub does not begin at 0, because a mailbox that comes from another node is older than this hub. No message is held
/// for longer than this.
const EARLIER: Duration = Duration::from_secs(24 * 60 * 60);

fn heartbeat_ms(heartbeat: Duration) -> u32 {
    u32::try_from(millis(heartbeat)).unwrap_or(u32::MAX)
}
