//! Cuts peers that do not read. Sockets and HTTP/2 streams that wait for their peer are in a list, and a task checks the list.
//!
//! hyper does not poll a response body while the peer does not read, so a timeout inside the body would never fire. But hyper polls
//! the socket, and tokio the HTTP/2 stream's task. Each of them puts a [`Waiter`] into the list while it waits for its peer. The
//! watchdog marks an overdue waiter as cut and wakes its task; the task sees the mark and ends.

mod request_state;
pub(super) mod waiter;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use self::waiter::Waiter;
use crate::{budget::Budget, serve::http2::Streams, telemetry::Metrics};

/// The unit of progress: a peer must take a piece within `--stall-timeout`.
pub(super) const PIECE: usize = 16 * 1024;

/// A cheap handle to the one watchdog of a server.
#[derive(Clone)]
pub(super) struct Watchdog(Arc<State>);

struct State {
    /// How long a waiter may wait, in units of the clock.
    stall_timeout: u32,
    budget: Budget,
    metrics: Metrics,
    /// The watchdog's own clock. It counts only time in which this process ran and the list was not empty.
    clock: AtomicU32,
    /// Waiters by the time of their next check. A waiter that has made progress by then gets a later check.
    waiting: Mutex<BTreeMap<u32, Vec<Arc<Waiter>>>>,
    /// Connections of which request bodies that nobody reads hold too much: see [`Streams::check_receive_window`].
    held: Mutex<Vec<Arc<Streams>>>,
    /// Wakes the task when the list is no longer empty, when a window is held, and when the memory budget is exceeded.
    wake: Notify,
}

impl Watchdog {
    pub(super) fn new(stall_timeout: Duration, budget: Budget, metrics: Metrics) -> Self {
        let stall_timeout = units(stall_timeout).saturating_add(CLOCK_LAG);
        let (waiting, held, wake) = (Mutex::default(), Mutex::default(), Notify::new());
        Self(Arc::new(State { stall_timeout, budget, metrics, clock: AtomicU32::new(0), waiting, held, wake }))
    }

    /// Checks the waiters at every tick; never ends. Sleeps while the list is empty.
    pub(super) async fn run(self) {
        let mut ran = Duration::ZERO;
        loop {
            if self.is_idle() {
                self.0.wake.notified().await;
            }
            let began = Instant::now();
            // An exceeded budget or a held window ends the pause early, but not before [`MIN_PAUSE`]: both may come very often.
            sleep(MIN_PAUSE).await;
            let _ = timeout(TICK, self.until_urgent()).await;
            // A process that was stopped wrote nothing. Counting that time would cut peers that read.
            ran += began.elapsed().min(2 * TICK + MIN_PAUSE);
            self.0.clock.store(units(ran), Ordering::Relaxed);
            self.cut_overdue();
            self.cut_blocking();
            self.cut_over_budget();
            self.end_unread();
        }
    }

    /// The time on the watchdog's own clock.
    pub(super) fn now(&self) -> u32 {
        self.0.clock.load(Ordering::Relaxed)
    }

    /// Adds a waiter to the list. Its first check is at the earliest time at which the whole timeout can have passed.
    fn add(&self, waiter: Arc<Waiter>, since: u32) {
        let mut waiting = self.0.waiting.lock();
        let first = waiting.is_empty();
        waiting.entry(since.saturating_add(self.0.stall_timeout)).or_default().push(waiter);
        drop(waiting);
        if first {
            self.0.wake.notify_one();
        }
    }

    /// Ends calls of a connection whose request bodies nobody reads, so that the others can go on.
    pub(super) fn end_unread_of(&self, streams: Arc<Streams>) {
        self.0.held.lock().push(streams);
        self.0.wake.notify_one();
    }

    /// Counts bytes that a peer has not taken.
    pub(super) fn add_unsent(&self, bytes: usize) {
        self.0.budget.add_unsent(bytes);
        if self.0.budget.excess() > 0 {
            self.0.wake.notify_one();
        }
    }

    /// Stops counting bytes: the peer has taken them, or never will.
    pub(super) fn remove_unsent(&self, bytes: usize) {
        self.0.budget.remove_unsent(bytes);
    }

    async fn until_urgent(&self) {
        loop {
            self.0.wake.notified().await;
            if self.0.budget.excess() > 0 || !self.0.held.lock().is_empty() {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        let has_waiter = !self.0.waiting.lock().is_empty();
        !has_waiter && self.0.held.lock().is_empty()
    }

    /// Cuts every waiter that has waited for the whole timeout.
    fn cut_overdue(&self) {
        let now = self.now();
        let mut due = Vec::new();
        let mut waiting = self.0.waiting.lock();
        while let Some(entry) = waiting.first_entry().filter(|entry| *entry.key() <= now) {
            due.extend(entry.remove());
        }
        drop(waiting);
        for waiter in due {
            match waiter.waiting_since_or_remove() {
                None => {}
                Some(since) if since.saturating_add(self.0.stall_timeout) <= now => self.cut(&waiter),
                Some(since) => self.add(waiter, since),
            }
        }
    }

    /// Cuts a stream early while other streams of its connection are queued behind its unsent bytes: one for each connection
    /// and tick. Without this, one stalled stream would hold up the others for the whole timeout.
    fn cut_blocking(&self) {
        let timeout = units(BLOCKING_TIMEOUT).saturating_add(CLOCK_LAG);
        let now = self.now();
        // A waiter with a later check cannot have waited for this timeout yet.
        let latest = now.saturating_sub(timeout).saturating_add(self.0.stall_timeout);
        for waiter in self.listed_until(latest, Waiter::blocks_others) {
            if waiter.waiting_since().is_some_and(|since| since.saturating_add(timeout) <= now)
                && waiter.claim_cut_at(now)
            {
                self.cut(&waiter);
            }
        }
    }

    /// While the memory budget is exceeded, cuts the waiters that have waited longest, until their unsent bytes make up the
    /// excess.
    fn cut_over_budget(&self) {
        let mut excess = self.0.budget.excess();
        if excess == 0 {
            return;
        }
        let waiters = self.listed_until(u32::MAX, |waiter| waiter.unsent() > 0).into_iter();
        // Reads each time once. Other threads change the times, and a sort may panic when a key changes.
        let mut waiting: Vec<_> = waiters.filter_map(|waiter| Some((waiter.waiting_since()?, waiter))).collect();
        waiting.sort_by_key(|(since, _)| *since);
        for (_, waiter) in waiting {
            if excess == 0 {
                return;
            }
            excess = excess.saturating_sub(waiter.unsent());
            self.cut(&waiter);
        }
    }

    /// On each reported connection, ends the calls that have waited longest for their peer to read, until the others can go on.
    fn end_unread(&self) {
        let now = self.now();
        let oldest = now.saturating_sub(units(UNREAD_TIMEOUT).saturating_add(CLOCK_LAG));
        // Not in the head of the loop, which would hold the lock until the end of the loop.
        let held = std::mem::take(&mut *self.0.held.lock());
        for streams in held {
            let waiters = self.listed_until(u32::MAX, |waiter| waiter.holds_window_of(&streams)).into_iter();
            let mut waiting: Vec<_> = waiters.filter_map(|waiter| Some((waiter.unread_since()?, waiter))).collect();
            waiting.sort_by_key(|(since, _)| *since);
            waiting.truncate(streams.calls_to_end());
            let paused_since = streams.paused_since();
            let is_paused = paused_since.is_some_and(|since| now < since.saturating_add(units(LONGEST_PAUSE)));
            if is_paused || waiting.iter().any(|(since, _)| *since > oldest) {
                // Looks again at the next tick.
                self.0.held.lock().push(streams);
            } else {
                if paused_since.is_some() && waiting.is_empty() {
                    streams.receive_window().forget_small_frames();
                }
                streams.end_report(paused_since.is_some());
            }
            for (_, waiter) in waiting.into_iter().filter(|(since, _)| *since <= oldest) {
                if let Some(waker) = waiter.refuse_request() {
                    self.0.metrics.stream_stalled();
                    waker.wake();
                }
            }
        }
    }

    /// The wanted waiters whose next check is no later than `latest`, in the order of these checks.
    fn listed_until(&self, latest: u32, wanted: impl Fn(&Waiter) -> bool) -> Vec<Arc<Waiter>> {
        let waiting = self.0.waiting.lock();
        let due = waiting.range(..=latest).flat_map(|(_, waiters)| waiters);
        due.filter(|waiter| wanted(waiter)).cloned().collect()
    }

    fn cut(&self, waiter: &Waiter) {
        let Some(waker) = waiter.cut() else { return };
        match waiter.is_stream() {
            true if waiter.request.is_refused() => {}
            true => self.0.metrics.stream_stalled(),
            false => self.0.metrics.connection_stalled(),
        }
        waker.wake();
    }
}

/// Bytes that count as unsent until this value is dropped.
pub(super) struct UnsentBytes {
    watchdog: Watchdog,
    bytes: usize,
}

impl UnsentBytes {
    pub(super) fn new(watchdog: &Watchdog, bytes: usize) -> Self {
        watchdog.add_unsent(bytes);
        Self { watchdog: watchdog.clone(), bytes }
    }

    /// Stops counting some of the bytes.
    pub(super) fn remove(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.watchdog.remove_unsent(bytes);
    }
}

impl Drop for UnsentBytes {
    fn drop(&mut self) {
        self.watchdog.remove_unsent(self.bytes);
    }
}

/// The bytes, with a count that ends when they are dropped.
pub(super) fn with_count(bytes: Bytes, count: impl Send + 'static) -> Bytes {
    struct Counted<C>(Bytes, C);

    impl<C> AsRef<[u8]> for Counted<C> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    Bytes::from_owner(Counted(bytes, count))
}

pub(super) fn as_u32(length: impl TryInto<u32>) -> u32 {
    length.try_into().unwrap_or(u32::MAX)
}

fn units(time: Duration) -> u32 {
    as_u32(time.as_millis() / UNIT.as_millis())
}

/// The unit of the clock. A time has 32 bits, because every waiting stream stores one. They last for six years of watching.
const UNIT: Duration = Duration::from_millis(50);

/// The longest wait after [`MIN_PAUSE`]: the watchdog checks the list every 110 ms.
const TICK: Duration = Duration::from_millis(100);

/// The shortest pause between two checks while the budget is exceeded: a stream that was cut needs a moment to free its memory.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// How far the clock may lag behind when a waiter begins to wait: 110 ms, rounded up to units.
const CLOCK_LAG: u32 = 3;

/// How long a stream may wait for its peer while other streams of its connection are queued. A phone that reads makes progress
/// within a second. Waiting longer would delay the queued streams, which may carry a ringing call.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a call may wait for its peer to read while unread requests hold up the others: enough for a slow network.
const UNREAD_TIMEOUT: Duration = BLOCKING_TIMEOUT;

/// How long a connection may stop reading for small frames that no handler has read. Their handlers may be slow and wait for nothing
/// that could be ended; but what the connection does not read may be what its other streams wait for.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::AtomicBool,
    };

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_not_cut_for_time_in_which_the_process_did_not_run() {
        let watchdog = Watchdog::new(Duration::from_secs(1), Budget::new(0), Metrics::new());
        let drain = crate::drain::Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let waiter = Waiter::of_socket();
        waiter.start_waiting(&watchdog, true, std::task::Waker::noop());
        tokio::task::yield_now().await;
        // The clock jumps, as it does after a SIGSTOP.
        for _ in 0..3 {
            advance(Duration::from_secs(8)).await;
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        assert!(!waiter.is_cut());
        for _ in 0..30 {
            sleep(Duration::from_millis(50)).await;
        }
        assert!(waiter.is_cut());
    }

    #[tokio::test]
    async fn over_budget_the_peer_that_has_waited_longest_is_cut_although_another_one_was_listed_earlier() {
        let watchdog = Watchdog::new(Duration::from_secs(30), Budget::new(10), Metrics::new());
        let (reads, stalls, noop) = (Waiter::of_socket(), Waiter::of_socket(), std::task::Waker::noop());
        for (time, waiter) in [(0, &reads), (20, &stalls), (200, &reads)] {
            watchdog.0.clock.store(time, Ordering::Relaxed);
            waiter.start_waiting(&watchdog, true, noop);
        }
        for waiter in [&reads, &stalls] {
            waiter.set_unsent(6);
            watchdog.add_unsent(6);
        }
        watchdog.cut_over_budget();
        assert_eq!((reads.is_cut(), stalls.is_cut()), (false, true));
    }

    #[test]
    fn over_budget_only_as_many_peers_are_cut_as_bring_unsent_bytes_below_a_quarter() {
        let budget = Budget::new(400);
        let watchdog = Watchdog::new(Duration::from_secs(30), budget.clone(), Metrics::new());
        budget.add_messages(400);
        let waiters = [(); 11].map(|()| Waiter::of_socket());
        for waiter in &waiters {
            waiter.start_waiting(&watchdog, true, std::task::Waker::noop());
            waiter.set_unsent(10);
            watchdog.add_unsent(10);
        }
        watchdog.cut_over_budget();
        assert_eq!(waiters.iter().filter(|waiter| waiter.is_cut()).count(), 1);
    }

    /// The standard library's sort may panic when a key changes while it sorts.
    #[test]
    fn waiters_that_start_to_wait_anew_while_they_are_sorted_do_not_stop_the_watchdog() {
        let watchdog = Watchdog::new(Duration::from_secs(30), Budget::new(0), Metrics::new());
        let waiters: Vec<_> = (0..2_000).map(|_| Waiter::of_socket()).collect();
        let restart = |waiter: &Arc<Waiter>, time: usize| {
            watchdog.0.clock.store(u32::try_from(time).expect("small"), Ordering::Relaxed);
            waiter.start_waiting(&watchdog, true, std::task::Waker::noop());
        };
        for (index, waiter) in waiters.iter().enumerate() {
            restart(waiter, index);
            waiter.set_unsent(1);
        }
        watchdog.add_unsent(1);
        let is_sorting = AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Every waiter gets another time again and again, in no order.
                let mut time = 0;
                while is_sorting.load(Ordering::Relaxed) {
                    time += 7_919;
                    restart(&waiters[time % waiters.len()], time * 31 % 4_001);
                }
            });
            let cut = catch_unwind(AssertUnwindSafe(|| (0..200).for_each(|_| watchdog.cut_over_budget())));
            is_sorting.store(false, Ordering::Relaxed);
            assert!(cut.is_ok(), "the sort panicked");
        });
        assert!(waiters.iter().any(|waiter| waiter.is_cut()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_on_in_time_is_never_cut_and_one_that_stops_waiting_leaves_the_list() {
        let watchdog = Watchdog::new(Duration::from_secs(1), Budget::new(0), Metrics::new());
        let drain = crate::drain::Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let waiter = Waiter::of_socket();
        for _ in 0..20 {
            waiter.start_waiting(&watchdog, true, std::task::Waker::noop());
            sleep(Duration::from_millis(700)).await;
        }
        assert!(!waiter.is_cut() && !watchdog.is_idle());
        waiter.stop_waiting();
        sleep(Duration::from_secs(2)).await;
        assert!(watchdog.is_idle() && Arc::strong_count(&waiter) == 1);
    }
}
