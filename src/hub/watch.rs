//! One watch: a stream of the changes of the devices of one user or several. Dropping it removes it from their boards.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use tokio_stream::Stream;

use super::{
    Event, Hub,
    board::{Board, BoardItem, Changes, Progress},
    deadlines::FARTHEST_MS,
    expiry,
    heartbeat::Heartbeat,
    time::{Millis, Tick},
};
use crate::{
    auth::{CallerKey, TenantUser},
    model::{DeviceId, EndReason},
};

/// What a watch gives.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// The whole list of a user, sorted. The watch begins with one for each user. A list comes again when the watcher fell too far
    /// behind.
    Devices(TenantUser, Vec<DeviceId>),
    /// What has changed for a user since the event before.
    Changes(TenantUser, Arc<Changes>),
    /// Nothing else was sent for the time of a heartbeat.
    Ping,
    /// The last event: the server ends the stream.
    End(EndReason),
}

/// A live view of the devices of some users. Ends after [`WatchItem::End`].
pub struct Watch {
    hub: Hub,
    boards: Box<[WatchedBoard]>,
    /// The boards of which the watch has not got the first list yet.
    lists_wanted: usize,
    /// The board that is asked first. It changes with every item, so that a busy user does not hide the others.
    first: usize,
    id: u64,
    caller: Option<CallerKey>,
    /// When the token of the caller expires.
    expires: Option<SystemTime>,
    heartbeat: Heartbeat,
    /// When this watch is scheduled to be woken. `None`: it is not.
    scheduled_at: Option<Tick>,
    over: bool,
    /// Why the watch ended, if it ended alone.
    reason: Option<EndReason>,
}

/// The board of one user, and what the watch has got from it so far.
struct WatchedBoard {
    board: Arc<Board>,
    progress: Progress,
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
    pub(super) fn new(
        hub: Hub,
        boards: &[Arc<Board>],
        caller: Option<CallerKey>,
        expires: Option<SystemTime>,
        heartbeat: Heartbeat,
    ) -> Self {
        let boards = boards.iter().map(|board| WatchedBoard { board: board.clone(), progress: Progress::New });
        let boards: Box<[_]> = boards.collect();
        let (id, lists_wanted) = (fastrand::u64(..), boards.len());
        Self {
            hub,
            boards,
            lists_wanted,
            first: 0,
            id,
            caller,
            expires,
            heartbeat,
            scheduled_at: None,
            over: false,
            reason: None,
        }
    }

    /// Asks the boards in turn. `None` when none of them has an item; then each of them keeps the waker.
    fn next_item(&mut self, waker: &Waker) -> Option<WatchItem> {
        let (before, from_first) = self.boards.split_at_mut(self.first);
        for (steps, WatchedBoard { board, progress }) in from_first.iter_mut().chain(before).enumerate() {
            // All first lists come before the first change.
            if self.lists_wanted > 0 && matches!(progress, Progress::AfterBatch(_)) {
                continue;
            }
            let user = || board.user.clone();
            let item = match board.next(progress, self.id, waker) {
                BoardItem::List(devices) => {
                    self.lists_wanted = self.lists_wanted.saturating_sub(1);
                    WatchItem::Devices(user(), devices)
                }
                BoardItem::Changes(changes) => WatchItem::Changes(user(), changes),
                BoardItem::End(reason) => WatchItem::End(reason),
                BoardItem::Wait => continue,
            };
            self.first = (self.first + steps + 1) % self.boards.len();
            return Some(item);
        }
        None
    }

    /// As [`Hub::drain_left`].
    #[must_use]
    pub fn drain_left(&self) -> Duration {
        self.hub.drain_left()
    }

    /// Gives a ping if one is due. Otherwise schedules the next one, or the end of the token, and waits.
    fn ping_or_wait(&mut self, now: Millis, token_check: Option<Tick>) -> Poll<Option<WatchItem>> {
        self.heartbeat.check(now);
        if self.heartbeat.take(now) {
            return Poll::Ready(Some(WatchItem::Ping));
        }
        if let Some(next) =
            self.heartbeat.next().filter(|_| self.scheduled_at.is_none_or(|at| at <= Tick::reached(now)))
        {
            let ping = Tick::not_before(next.min(now.after(FARTHEST_MS)));
            let tick = *self.scheduled_at.insert(token_check.map_or(ping, |check| check.min(ping)));
            // One board is enough: all of them have the waker of the same task.
            if let Some(WatchedBoard { board, .. }) = self.boards.first() {
                let watch = WaitingWatch { board: board.clone(), id: self.id };
                self.hub.0.core.deadlines.schedule_watch(tick, watch);
            }
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
        let token_check = this.expires.map(|expires| expiry::next_check(expires, now));
        if token_check == Some(None) {
            (this.over, this.reason) = (true, Some(EndReason::Expired));
            return Poll::Ready(Some(WatchItem::End(EndReason::Expired)));
        }
        let Some(item) = this.next_item(context.waker()) else {
            return this.ping_or_wait(now, token_check.flatten());
        };
        this.over = matches!(item, WatchItem::End(_));
        this.heartbeat.reset(now);
        Poll::Ready(Some(item))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let reason = self.reason.or_else(|| self.boards.iter().find_map(|watched| watched.board.ending()));
        let users = self.boards.iter().map(|watched| &watched.board.user);
        self.hub.0.core.presence.remove_watch(users, self.caller.as_ref());
        for WatchedBoard { board, .. } in &self.boards {
            board.take_waker(self.id);
            self.hub.observe(&Event::WatchEnded { user: &board.user, reason });
        }
    }
}
