//! The timer of one HTTP/1.1 connection: the time for its first head begins with the connection.
//!
//! hyper starts its timer for the first head when it reads the first bytes. `detect` has already waited for these bytes, so a slow
//! peer would get the time twice. This relies on hyper: the first timer that it makes is the one for the head.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;

/// The latest time for hyper's first timer; `None` afterwards.
pub(super) struct FirstHeadTimer(Mutex<Option<Instant>>);

impl FirstHeadTimer {
    pub(super) fn new(first_head_by: tokio::time::Instant) -> Self {
        Self(Mutex::new(Some(first_head_by.into_std())))
    }
}

impl Timer for FirstHeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep_until(self.0.lock().take().map_or(deadline, |first| first.min(deadline)))
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        TokioTimer::new().reset(sleep, deadline);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_first_time_out_counts_from_the_beginning_of_the_connection() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let timer = FirstHeadTimer::new(began + 3 * second);
        let mut sleep = timer.sleep(10 * second);
        sleep.as_mut().await;
        assert_eq!(began.elapsed().as_secs(), 3);
        timer.reset(&mut sleep, timer.now() + 10 * second);
        sleep.await;
        timer.sleep(10 * second).await;
        assert_eq!(began.elapsed().as_secs(), 23);
    }
}
