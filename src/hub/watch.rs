//! One watcher's stream of who comes and goes: a position in a board's changes that is forgotten when dropped.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio_stream::Stream;

use super::{
    Hub,
    board::{Board, Changes, Glimpse, Progress},
    deadlines::{FARTHEST_MS, Tick},
    liveness::{Heartbeat, Millis},
};
use crate::model::{Address, DeviceId, EndReason};

/// What a watcher sees.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// The whole list, sorted: first of all, and again for a watcher that fell behind.
    Devices(Vec<DeviceId>),
    /// What has changed since.
    Changes(Arc<Changes>),
    /// Nothing else happened for the length of a heartbeat.
    Ping,
    /// The last sighting: the server ends the stream.
    End(EndReason),
}

/// A live view of a user's devices. Ends after [`Sighting::End`].
pub struct Watch {
    hub: Hub,
    board: Arc<Board>,
    number: u64,
    caller: Option<Address>,
    progress: Progress,
    heartbeat: Heartbeat,
    /// The tick at which this watch stands in the buckets.
    entered: Tick,
    over: bool,
}

/// A watcher to wake when a ping may be due.
pub(super) struct Sleeper {
    board: Arc<Board>,
    number: u64,
}

impl Sleeper {
    pub(super) fn waker(&self) -> Option<Waker> {
        self.board.sleeper(self.number)
    }
}

impl Watch {
    pub(super) fn new(hub: Hub, board: Arc<Board>, caller: Option<Address>, heartbeat: Heartbeat) -> Self {
        let (number, entered) = (fastrand::u64(..), Tick(0));
        Self { hub, board, number, caller, progress: Progress::New, heartbeat, entered, over: false }
    }

    /// Nothing has changed: a ping if one is due, and else a place in the buckets for the next one.
    fn rest(&mut self, now: Millis) -> Poll<Option<Sighting>> {
        self.heartbeat.beat(now);
        if self.heartbeat.take(now) {
            return Poll::Ready(Some(Sighting::Ping));
        }
        if let Some(next) = self.heartbeat.next().filter(|_| self.entered <= Tick::reached(now)) {
            self.entered = Tick::not_before(next.min(now.after(FARTHEST_MS)));
            let sleeper = Sleeper { board: self.board.clone(), number: self.number };
            self.hub.0.core.deadlines.enter_sleeper(self.entered, sleeper);
        }
        Poll::Pending
    }
}

impl Stream for Watch {
    type Item = Sighting;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Sighting>> {
        if self.over {
            return Poll::Ready(None);
        }
        let (now, this) = (self.hub.now(), &mut *self);
        let sighting = match this.board.next(&mut this.progress, this.number, context.waker()) {
            Glimpse::List(devices) => Sighting::Devices(devices),
            Glimpse::Changes(changes) => Sighting::Changes(changes),
            Glimpse::End(reason) => {
                this.over = true;
                this.hub.0.metrics.stream_ended(reason);
                Sighting::End(reason)
            }
            Glimpse::Wait => return this.rest(now),
        };
        this.heartbeat.traffic(now);
        Poll::Ready(Some(sighting))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.board.forget(self.number);
        self.hub.0.core.presence.leave(&self.board.user, self.caller.as_ref());
        // A peer that does not read is never told.
        if let Some(reason) = self.board.ending().filter(|_| !self.over) {
            self.hub.0.metrics.stream_ended(reason);
        }
    }
}
