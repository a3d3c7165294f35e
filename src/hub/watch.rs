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
    /// The board whose end ends the watch. Only one, because a drain ends the boards one by one: a watch of many would end with the
    /// first of them, and most watches at the same time.
    ends_with: usize,
    id: u64,
    caller: Option<CallerKey>,
    /// When the token of the caller expires.
    expires: Option<SystemTime>,
    heartbeat: Heartbeat,
    /// When this watch is scheduled to be woken. `None`: it is not.
    scheduled_at: Option<Tick>,
    over: bool,
    /// All nodes are followed. Until then the watch may still be refused.
    is_open: bool,
    /// The reason if this watch alone ended, for example because its token expired, and not its boards.
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
        let (id, lists_wanted, ends_with) = (fastrand::u64(..), boards.len(), fastrand::usize(..boards.len().max(1)));
        Self {
            hub,
            boards,
            lists_wanted,
            first: 0,
            ends_with,
            id,
            caller,
            expires,
            heartbeat,
            scheduled_at: None,
            over: false,
            is_open: false,
            reason: None,
        }
    }

    /// From now on the end of this watch is observed.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// Asks the boards in turn. `None` when none of them has an item; then each of them keeps the waker.
    fn next_item(&mut self, waker: &Waker) -> Option<WatchItem> {
        let (boards, mut end) = (self.boards.len(), None);
        let (before, from_first) = self.boards.split_at_mut(self.first);
        for (steps, WatchedBoard { board, progress }) in from_first.iter_mut().chain(before).enumerate() {
            let index = (self.first + steps) % boards;
            let (user, heeds_end) = (|| board.user.clone(), index == self.ends_with);
            // All first lists come before the first change, but the end and a ping do not wait for them.
            let item = if self.lists_wanted > 0 && matches!(progress, Progress::AfterBatch(_)) {
                board.end_or_wait(self.id, waker, heeds_end)
            } else {
                board.next(progress, self.id, waker, heeds_end)
            };
            let item = match item {
                BoardItem::List(devices) => {
                    self.lists_wanted = self.lists_wanted.saturating_sub(1);
                    WatchItem::Devices(user(), devices)
                }
                BoardItem::Changes(changes) => WatchItem::Changes(user(), changes),
                // A list that another board has comes first.
                BoardItem::End(reason) if self.lists_wanted > 0 => {
                    end = Some(WatchItem::End(reason));
                    continue;
                }
                BoardItem::End(reason) => WatchItem::End(reason),
                BoardItem::Wait => continue,
            };
            self.first = (index + 1) % boards;
            return Some(item);
        }
        end
    }

    fn poll_item(&mut self, waker: &Waker, now: impl Fn() -> Millis) -> Poll<Option<WatchItem>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.expires.is_some_and(|expires| expiry::next_check(expires, now()).is_none()) {
            (self.over, self.reason) = (true, Some(EndReason::Expired));
            return Poll::Ready(Some(WatchItem::End(EndReason::Expired)));
        }
        let Some(item) = self.next_item(waker) else { return self.ping_or_wait(now()) };
        self.over = matches!(item, WatchItem::End(_));
        self.heartbeat.reset(now());
        Poll::Ready(Some(item))
    }

    /// As [`Hub::drain_left`].
    #[must_use]
    pub fn drain_left(&self) -> Duration {
        self.hub.drain_left()
    }

    /// Gives a ping if one is due. Otherwise schedules the next one, or the end of the token, and waits. `now` must be the time
    /// after the boards have got the waker: a tick that came before that has woken nobody.
    fn ping_or_wait(&mut self, now: Millis) -> Poll<Option<WatchItem>> {
        let check = |expires| expiry::next_check(expires, now).unwrap_or(Tick::not_before(now));
        let token_check = self.expires.map(check);
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
        let hub = self.hub.clone();
        self.poll_item(context.waker(), || hub.now())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let ending = || self.boards.get(self.ends_with).and_then(|watched| watched.board.ending());
        let reason = self.reason.or_else(ending);
        let users = self.boards.iter().map(|watched| &watched.board.user);
        let core = &self.hub.0.core;
        core.presence.remove_watch(users, self.caller.as_ref(), |user| core.backplane.unwatch(user));
        for WatchedBoard { board, .. } in &self.boards {
            board.take_waker(self.id);
            if self.is_open {
                self.hub.observe(&Event::WatchEnded { user: &board.user, reason });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;
    use crate::{
        auth::Caller,
        budget::Budget,
        hub::{Limits, Local, Observer, UserSet, tests::at_once},
        model::{DeviceId, UserId},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn watch(users: usize) -> (Hub, Watch) {
        let hub = Hub::new(Limits::only_times(SECOND, SECOND), Budget::new(1_000), Local, Unobserved);
        let users = UserSet::new((0..users).map(|user| UserId::new(&user.to_string()))).expect("not too many");
        let watch = at_once(hub.watch(&Caller::anonymous(), &users, SECOND)).expect("no limit");
        (hub, watch)
    }

    struct Unobserved;

    impl Observer for Unobserved {
        fn observe(&self, _: &Event<'_>) {}
    }

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    /// What the watch gives at a time, after its first lists.
    fn next(watch: &mut Watch, waker: &Waker, now: impl Fn() -> Millis) -> Poll<Option<WatchItem>> {
        loop {
            let polled = watch.poll_item(waker, &now);
            if !matches!(polled, Poll::Ready(Some(WatchItem::Devices(..)))) {
                return polled;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_not_missed_when_its_tick_comes_while_the_watch_is_polled() {
        let (hub, mut watch) = watch(1);
        assert!(next(&mut watch, Waker::noop(), || Millis(0)).is_pending());
        let (_, waiting) = hub.0.core.deadlines.watches.take(Tick::LAST, 1).expect("scheduled");
        assert!(waiting[0].take_waker().is_some());
        let due = watch.heartbeat.next().expect("a ping");
        // The tick comes just before the board gets the waker, so it wakes nobody.
        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        let now = || if Arc::strong_count(&task) > 2 { due } else { Millis(due.0 - 1) };
        assert!(matches!(next(&mut watch, &waker, now), Poll::Ready(Some(WatchItem::Ping))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_also_while_a_first_list_is_missing() {
        let (_hub, mut watch) = watch(2);
        let (ends_with, other) = (watch.ends_with, 1 - watch.ends_with);
        // The list of this board waits for a check.
        watch.boards[other].board.mark(&DeviceId::new("phone").expect("an id"), Millis(0));
        let task = Arc::new(Task);
        let waker = Waker::from(task.clone());
        assert!(next(&mut watch, &waker, || Millis(0)).is_pending());
        assert_eq!(watch.lists_wanted, 1);
        let wakers = watch.boards[ends_with].board.end(EndReason::Draining);
        assert!(wakers.iter().any(|known| known.will_wake(&waker)), "the board that gave its list wakes the watch");
        let end = next(&mut watch, &waker, || Millis(0));
        assert!(matches!(end, Poll::Ready(Some(WatchItem::End(EndReason::Draining)))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_of_many_users_ends_with_one_of_its_boards_and_not_with_the_first_that_ends() {
        let (_hub, mut watch) = watch(8);
        let ends_with = watch.ends_with;
        for board in (0..8).filter(|board| *board != ends_with) {
            watch.boards[board].board.end(EndReason::Draining);
            assert!(next(&mut watch, Waker::noop(), || Millis(0)).is_pending(), "{board} of {ends_with}");
        }
        watch.boards[ends_with].board.end(EndReason::Draining);
        let end = next(&mut watch, Waker::noop(), || Millis(0));
        assert!(matches!(end, Poll::Ready(Some(WatchItem::End(EndReason::Draining)))));
    }
}
