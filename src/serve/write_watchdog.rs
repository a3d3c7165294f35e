//! The write watchdog: one list of everything that waits for its peer, and one task that cuts what has waited too long.
//!
//! hyper does not poll a response body while its peer does not read, so a time-out in a body would never fire. So whoever is
//! polled instead, a socket or the task of an HTTP/2 stream, enters a [`Waiter`] here while it waits, and is woken to be cut.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

pub(super) mod waiter;

use self::waiter::{Since, Waiter};
use crate::{budget::Budget, telemetry::Metrics};

/// A cheap handle to the one watchdog of a server.
#[derive(Clone)]
pub(super) struct Watchdog(Arc<Shared>);

struct Shared {
    /// In units of the clock.
    patience: u32,
    budget: Budget,
    metrics: Metrics,
    /// Units of time in which this process ran and somebody waited.
    clock: AtomicU32,
    /// Everything that waits, by the time to look at it. One that went on meanwhile is moved when that time comes.
    waiting: Mutex<BTreeMap<u32, Vec<Arc<Waiter>>>>,
    /// Wakes the task: somebody waits, or the budget is exceeded.
    wake: Notify,
}

impl Watchdog {
    pub(super) fn new(patience: Duration, budget: Budget, metrics: Metrics) -> Self {
        let patience = units(patience).saturating_add(SLACK);
        let (waiting, wake) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { patience, budget, metrics, clock: AtomicU32::new(0), waiting, wake }))
    }

    /// Looks at those that wait, again and again; never ends. Sleeps while nobody waits.
    pub(super) async fn run(self) {
        let mut ran = Duration::ZERO;
        loop {
            if self.is_idle() {
                self.0.wake.notified().await;
            }
            let began = Instant::now();
            // A budget that is exceeded is looked at early, but not for every byte.
            sleep(SOONEST).await;
            let _ = timeout(TICK, self.over_budget()).await;
            // A process that was stopped did not write either, so its peers are not blamed for that time.
            ran += began.elapsed().min(2 * TICK + SOONEST);
            self.0.clock.store(units(ran), Ordering::Relaxed);
            self.cut_late();
            self.relieve_crowded();
            self.relieve_budget();
        }
    }

    /// The time on the watchdog's own clock.
    pub(super) fn now(&self) -> u32 {
        self.0.clock.load(Ordering::Relaxed)
    }

    /// Looks at somebody who waits since then, when the time for it comes.
    pub(super) fn enter(&self, waiter: Arc<Waiter>, since: u32) {
        let mut waiting = self.0.waiting.lock();
        let first = waiting.is_empty();
        waiting.entry(since.saturating_add(self.0.patience)).or_default().push(waiter);
        drop(waiting);
        if first {
            self.0.wake.notify_one();
        }
    }

    /// Counts bytes that wait for a peer.
    pub(super) fn charge(&self, bytes: usize) {
        self.0.budget.add_unsent(bytes);
        if self.0.budget.is_exceeded() {
            self.0.wake.notify_one();
        }
    }

    /// Counts bytes no longer.
    pub(super) fn release(&self, bytes: usize) {
        self.0.budget.remove_unsent(bytes);
    }

    async fn over_budget(&self) {
        loop {
            self.0.wake.notified().await;
            if self.0.budget.is_exceeded() {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.0.waiting.lock().is_empty()
    }

    fn cut_late(&self) {
        let now = self.now();
        let mut due = Vec::new();
        let mut waiting = self.0.waiting.lock();
        while let Some(entry) = waiting.first_entry().filter(|entry| *entry.key() <= now) {
            due.extend(entry.remove());
        }
        drop(waiting);
        for waiter in due {
            match waiter.since_or_leave() {
                Since::Nothing => {}
                Since::Time(since) if since.saturating_add(self.0.patience) <= now => self.cut(&waiter),
                Since::Time(since) => self.enter(waiter, since),
            }
        }
    }

    /// One peer that does not read must not hold up the other streams of its connection for the whole patience.
    fn relieve_crowded(&self) {
        let longest = units(CROWDED_PATIENCE).saturating_add(SLACK);
        let now = self.now();
        let latest = now.saturating_sub(longest).saturating_add(self.0.patience);
        for waiter in self.oldest(latest, Waiter::is_in_the_way) {
            if waiter.since().is_some_and(|since| since.saturating_add(longest) <= now) && waiter.takes_the_blame(now) {
                self.cut(&waiter);
            }
        }
    }

    /// While the budget is exceeded, those that have waited longest go first, until enough is on its way out.
    fn relieve_budget(&self) {
        let budget = &self.0.budget;
        if !budget.is_exceeded() {
            return;
        }
        let mut excess = (budget.messages() + budget.unsent()).saturating_sub(budget.limit());
        let mut waiting = self.oldest(u32::MAX, |waiter| waiter.owned() > 0);
        waiting.sort_by_key(|waiter| waiter.since());
        for waiter in waiting.into_iter().filter(|waiter| waiter.since().is_some()) {
            if excess == 0 {
                return;
            }
            excess = excess.saturating_sub(waiter.owned());
            self.cut(&waiter);
        }
    }

    /// Those that are looked at no later than then, in this order.
    fn oldest(&self, latest: u32, wanted: impl Fn(&Waiter) -> bool) -> Vec<Arc<Waiter>> {
        let waiting = self.0.waiting.lock();
        let oldest = waiting.range(..=latest).flat_map(|(_, waiters)| waiters);
        oldest.filter(|waiter| wanted(waiter)).cloned().collect()
    }

    fn cut(&self, waiter: &Waiter) {
        let Some(waker) = waiter.cut() else { return };
        if waiter.is_stream() {
            self.0.metrics.stream_stalled();
        } else {
            self.0.metrics.connection_stalled();
        }
        waker.wake();
    }
}

fn units(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / UNIT.as_millis()).unwrap_or(u32::MAX)
}

/// The unit of the clock: 32 bits of it, which every waiting stream has, last for six years.
const UNIT: Duration = Duration::from_millis(50);

/// How often the watchdog looks while somebody waits.
const TICK: Duration = Duration::from_millis(100);

/// How soon it looks again at a budget that is exceeded: what was cut needs a moment to be given back.
const SOONEST: Duration = Duration::from_millis(10);

/// Units by which the clock may be behind when somebody begins to wait; a tick, rounded up.
const SLACK: u32 = 3;

/// How long a stream may wait for its peer while others of its connection wait for room. A phone that is behind a proxy and
/// still there reads within a second; the others are messages of a call that rings.
const CROWDED_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_process_did_not_run_is_nobodys_fault() {
        let watchdog = Watchdog::new(Duration::from_secs(1), Budget::new(0), Metrics::new());
        let drain = crate::drain::Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let waiter = Waiter::of_socket();
        waiter.wait(&watchdog, true, std::task::Waker::noop());
        tokio::task::yield_now().await;
        // As after a SIGSTOP: the clock has moved on at once.
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
    async fn the_one_that_has_waited_longest_goes_first_and_not_the_one_that_began_first() {
        let watchdog = Watchdog::new(Duration::from_secs(30), Budget::new(10), Metrics::new());
        let (reads, stalls, noop) = (Waiter::of_socket(), Waiter::of_socket(), std::task::Waker::noop());
        for (time, waiter) in [(0, &reads), (20, &stalls), (200, &reads)] {
            watchdog.0.clock.store(time, Ordering::Relaxed);
            waiter.wait(&watchdog, true, noop);
        }
        for waiter in [&reads, &stalls] {
            waiter.set_owned(6);
            watchdog.charge(6);
        }
        watchdog.relieve_budget();
        assert_eq!((reads.is_cut(), stalls.is_cut()), (false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_goes_on_in_time_is_never_cut_and_one_that_rests_is_forgotten() {
        let watchdog = Watchdog::new(Duration::from_secs(1), Budget::new(0), Metrics::new());
        let drain = crate::drain::Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let waiter = Waiter::of_socket();
        for _ in 0..20 {
            waiter.wait(&watchdog, true, std::task::Waker::noop());
            sleep(Duration::from_millis(700)).await;
        }
        assert!(!waiter.is_cut() && !watchdog.is_idle());
        waiter.rest();
        sleep(Duration::from_secs(2)).await;
        assert!(watchdog.is_idle() && Arc::strong_count(&waiter) == 1);
    }
}
