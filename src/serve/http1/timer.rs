//! The timer of one HTTP/1.1 connection: one runtime timer for the time-outs of all its requests.
//!
//! hyper 1.12 makes a time-out before every request and drops it after the head. With runtime timers, both would take the lock of
//! the runtime's timers. Here the runtime timer stays set for as long as the connection lives. When it fires before the time-out
//! that hyper waits for now, it is set again.
//!
//! This is right as long as hyper has at most one time-out at a time for a connection.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use tokio::task::coop::unconstrained;

#[derive(Default)]
pub(super) struct ConnectionTimer {
    /// When the first time-out fires at the latest.
    first: Mutex<Option<Instant>>,
    shared: SharedSleep,
}

type SharedSleep = Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>;

/// One time-out. Making and dropping it leaves the runtime timer as it is.
struct Timeout {
    deadline: Instant,
    shared: SharedSleep,
}

impl ConnectionTimer {
    /// The time for the first head began with the connection. hyper would begin it with the first bytes, which have a deadline
    /// of their own, and the two times would add up.
    pub(super) fn with_first(latest: tokio::time::Instant) -> Self {
        Self { first: Mutex::new(Some(latest.into_std())), shared: Arc::default() }
    }
}

impl Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let deadline = self.first.lock().take().map_or(deadline, |first| first.min(deadline));
        Box::pin(Timeout { deadline, shared: self.shared.clone() })
    }

    /// By the runtime's clock, which tests can move.
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl Sleep for Timeout {}

impl Future for Timeout {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.into();
        let mut shared = self.shared.lock();
        if shared.as_ref().is_some_and(|sleep| sleep.deadline() <= deadline && !sleep.is_elapsed()) {
            // It will wake the connection's task.
            return Poll::Pending;
        }
        let sleep = shared.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            // `unconstrained`, because tokio does not set the timer for a task that has used up its cooperative budget.
            ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
            if sleep.deadline() == deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::coop::poll_proceed;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_out_fires_at_its_deadline_whatever_the_timer_was_set_for_before() {
        let (timer, second) = (ConnectionTimer::default(), Duration::from_secs(1));
        for (seconds, dropped_after) in [(3, 0), (1, 1), (10, 4), (2, 2), (2, 0), (5, 5)] {
            let began = tokio::time::Instant::now();
            let mut sleep = timer.sleep_until(began.into_std() + second * seconds);
            let waited = tokio::time::timeout(second * dropped_after + second / 2, sleep.as_mut()).await;
            assert_eq!(waited.is_ok(), dropped_after >= seconds, "{seconds} s, dropped after {dropped_after}");
            let woken = began.elapsed().as_millis();
            assert!(waited.is_err() || woken / 1_000 == u128::from(seconds), "{seconds} s: {woken} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_out_fires_although_its_task_had_used_up_its_cooperative_budget() {
        let (began, second) = (tokio::time::Instant::now(), Duration::from_secs(1));
        let (mut sleep, mut used_up) = (ConnectionTimer::default().sleep(second), false);
        let slept = poll_fn(|cx| {
            while !used_up && let Poll::Ready(turn) = poll_proceed(cx) {
                turn.made_progress();
            }
            used_up = true;
            sleep.as_mut().poll(cx)
        });
        tokio::time::timeout(10 * second, slept).await.expect("a time-out");
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
