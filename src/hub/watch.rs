//! One watch: a stream of the changes of a user's devices. Dropping it removes it from the board.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio_stream::Stream;

use super::{
    Event, Hub,
    board::{Board, BoardItem, Changes, Progress},
    deadlines::FARTHEST_MS,
    heartbeat::Heartbeat,
    time::{Millis, Tick},
};
use crate::model::{Address, DeviceId, EndReason};

/// What a watch gives.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// The whole list, sorted: the first event, and again when the watcher fell too far behind.
    Devices(Vec<DeviceId>),
    /// What has changed since the event before.
    Changes(Arc<Changes>),
    /// Nothing else was sent for the time of a heartbeat.
    Ping,
    /// The last event: the server ends the stream.
    End(EndReason),
}

/// A live view of a user's devices. Ends after [`WatchItem::End`].
pub struct Watch {
    hub: Hub,
    board: Arc<Board>,
    id: u64,
    caller: Option<Address>,
    progress: Progress,
    heartbeat: Heartbeat,
    /// When this watch is scheduled to be woken. `None`: it is not.
    scheduled_at: Option<Tick>,
    over: bool,
}

/// A watch that has to be woken when its ping may be due.
pub(super) struct WaitingWatch {
    board: Arc<Board>,
    id: u64,
}

impl WaitingWatch {
    pub(super) fn take_waker(&self) -> Option<Waker> {
        self.board.take_waker(self.id)
    }
}

impl Watch {
    pub(super) fn new(hub: Hub, board: Arc<Board>, caller: Option<Address>, heartbeat: Heartbeat) -> Self {
        let (id, progress) = (fastrand::u64(..), Progress::New);
        Self { hub, board, id, caller, progress, heartbeat, scheduled_at: None, over: false }
    }

    /// As [`Hub::drain_left`].
    #[must_use]
    pub fn drain_left(&self) -> Duration {
        self.hub.drain_left()
    }

    /// Gives a ping if one is due. Otherwise schedules the next one and waits.
    fn ping_or_wait(&mut self, now: Millis) -> Poll<Option<WatchItem>> {
        self.heartbeat.check(now);
        if self.heartbeat.take(now) {
            return Poll::Ready(Some(WatchItem::Ping));
        }
        if let Some(next) =
            self.heartbeat.next().filter(|_| self.scheduled_at.is_none_or(|at| at <= Tick::reached(now)))
        {
            let tick = *self.scheduled_at.insert(Tick::not_before(next.min(now.after(FARTHEST_MS))));
            let watch = WaitingWatch { board: self.board.clone(), id: self.id };
            self.hub.0.core.deadlines.schedule_watch(tick, watch);
        }
        Poll::Pending
    }
}

impl Stream for Watch {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        if self.over {
            return Poll::Ready(None);
        }
        let (now, this) = (self.hub.now(), &mut *self);
        let event = match this.board.next(&mut this.progress, this.id, context.waker()) {
            BoardItem::List(devices) => WatchItem::Devices(devices),
            BoardItem::Changes(changes) => WatchItem::Changes(changes),
            BoardItem::End(reason) => {
                this.over = true;
                WatchItem::End(reason)
            }
            BoardItem::Wait => return this.ping_or_wait(now),
        };
        this.heartbeat.reset(now);
        Poll::Ready(Some(event))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.board.take_waker(self.id);
        self.hub.0.core.presence.remove_watch(&self.board.user, self.caller.as_ref());
        self.hub.observe(&Event::WatchEnded { user: &self.board.user, reason: self.board.ending() });
    }
}
