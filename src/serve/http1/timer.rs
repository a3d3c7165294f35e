//! The time-outs of one connection of HTTP/1.1, without a timer for each of its requests.
//!
//! hyper asks for a time-out before every request and drops it when the head is there, and each of both would take the lock of
//! the runtime's timers. Here one alarm stays set for as long as the connection: when it goes off and a later request is what is
//! waited for, it is set again.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use tokio::task::coop::unconstrained;

/// What hyper asks for time-outs.
#[derive(Default)]
pub(in crate::serve) struct ConnectionTimer {
    /// When the first time-out comes at the latest.
    first: Mutex<Option<Instant>>,
    alarm: Arc<Mutex<Option<Alarm>>>,
}

type Alarm = Pin<Box<tokio::time::Sleep>>;

/// One time-out. Setting it and dropping it leave the alarm alone.
struct Timeout {
    deadline: Instant,
    alarm: Arc<Mutex<Option<Alarm>>>,
}

impl ConnectionTimer {
    /// hyper begins to wait for the first head when the first bytes are there, and their time and its would add up.
    pub(in crate::serve) fn with_first(latest: tokio::time::Instant) -> Self {
        Self { first: Mutex::new(Some(latest.into_std())), alarm: Arc::default() }
    }
}

impl Timer for ConnectionTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let deadline = self.first.lock().take().map_or(deadline, |first| first.min(deadline));
        Box::pin(Timeout { deadline, alarm: self.alarm.clone() })
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
        let mut alarm = self.alarm.lock();
        if alarm.as_ref().is_some_and(|alarm| alarm.deadline() <= deadline && !alarm.is_elapsed()) {
            // It wakes the connection's task already.
            return Poll::Pending;
        }
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            if alarm.deadline() > deadline {
                alarm.as_mut().reset(deadline);
            }
            // Outside the task's budget: without one an alarm would only seem to be set.
            ready!(pin!(unconstrained(alarm.as_mut())).poll(cx));
            if alarm.deadline() == deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::coop::poll_proceed;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_out_comes_at_its_time_whatever_the_alarm_was_set_for_before() {
        let (clock, second) = (ConnectionTimer::default(), Duration::from_secs(1));
        for (seconds, dropped_after) in [(3, 0), (1, 1), (10, 4), (2, 2), (2, 0), (5, 5)] {
            let began = tokio::time::Instant::now();
            let mut sleep = clock.sleep_until(began.into_std() + second * seconds);
            let waited = tokio::time::timeout(second * dropped_after + second / 2, sleep.as_mut()).await;
            assert_eq!(waited.is_ok(), dropped_after >= seconds, "{seconds} s, dropped after {dropped_after}");
            let woken = began.elapsed().as_millis();
            assert!(waited.is_err() || woken / 1_000 == u128::from(seconds), "{seconds} s: {woken} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_out_that_is_asked_for_when_the_budget_of_a_task_is_used_up_comes_all_the_same() {
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
