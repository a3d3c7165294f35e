//! Answers that a client does not read: while it does not, nobody asks for the next one, so the clock stands outside.
//!
//! The response is a lasting one (see `serve::Lasting`) and so paced: being asked again after everything was given means that it
//! has been taken.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::drain::Drain;

pub(super) type Breaker = tokio::task::AbortHandle;

/// Since when answers of one call have been waiting for their client. Dropping it ends the watch.
pub(super) struct Unread {
    since: Arc<Mutex<Option<Instant>>>,
    /// Answers were given that are not on their way yet: they go out together when there are no more, or when the task has used up
    /// its budget.
    gathering: bool,
    _call: DropGuard,
}

impl Unread {
    /// Cuts the call when its oldest answer has been unread for longer than `patience`.
    pub(super) fn watched(drain: &Drain, patience: Duration, breaker: Breaker) -> Self {
        let (since, call) = (Arc::new(Mutex::new(None)), CancellationToken::new());
        let (watched, open) = (since.clone(), call.clone());
        drain.spawn(async move { open.run_until_cancelled(watch(&watched, patience, breaker)).await });
        Self { since, gathering: false, _call: call.drop_guard() }
    }

    /// The transport asks for the next answer, and there is one or not.
    pub(super) fn asked(&mut self, answered: bool) {
        if !self.gathering {
            // Whatever was given before has been taken.
            *self.since.lock() = answered.then(Instant::now);
        }
        self.gathering = answered;
    }
}

async fn watch(since: &Mutex<Option<Instant>>, patience: Duration, breaker: Breaker) {
    loop {
        let waiting = *since.lock();
        let end = waiting.unwrap_or_else(Instant::now) + patience;
        if waiting.is_some() && end <= Instant::now() {
            tracing::debug!("a call was cut: its client does not read the answers");
            return breaker.abort();
        }
        sleep_until(end).await;
    }
}
