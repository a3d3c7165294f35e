//! How the daemon stops: a soft stop, then a hard one, with every task tracked; the only place that spawns.

use std::{
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use tokio::task::AbortHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A cheap handle to the one shutdown of this process.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    died: Arc<OnceLock<Died>>,
}

/// A task that must not die did. The daemon drains, and whatever runs it should start it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died {
    /// Its name for operators.
    pub task: &'static str,
}

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} died", self.task)
    }
}

impl std::error::Error for Died {}

impl Drain {
    /// Nothing is stopping yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the soft stop: no new work; what runs is asked to end.
    pub fn start(&self) {
        self.soft.cancel();
    }

    /// The soft stop has begun.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Waits for the soft stop.
    pub async fn started(&self) {
        self.soft.cancelled().await;
    }

    /// Begins the hard stop: what still runs ends now, after the request or frame in hand.
    pub fn finish(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Waits for the hard stop.
    pub async fn finished(&self) {
        self.hard.cancelled().await;
    }

    /// Waits for the soft stop or, where that has begun already, for the hard one.
    ///
    /// For one task that is often woken for something else: the token is its own, because it would take the lock of a shared one
    /// every time, and once it waits for it, it only looks at it.
    pub fn next_stop(&self) -> impl Future<Output = ()> + use<> {
        let token = if self.has_started() { &self.hard } else { &self.soft }.child_token();
        let (mut stop, mut waits) = (Box::pin(token.clone().cancelled_owned()), false);
        poll_fn(move |cx| {
            if std::mem::replace(&mut waits, true) && !token.is_cancelled() {
                return Poll::Pending;
            }
            stop.as_mut().poll(cx)
        })
    }

    /// Starts a task that the shutdown waits for. The handle can end it early, and keeps its memory for as long as it is kept.
    pub fn spawn<F>(&self, task: F) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task).abort_handle()
    }

    /// Starts a task that must not die before the hard stop, which ends it.
    ///
    /// Without it the daemon would live on and do half of its work. So if the task panics or ends by itself, the drain starts,
    /// and [`Drain::died`] says why.
    pub fn supervise<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let drain = self.clone();
        self.tasks.spawn(async move {
            let mut task = pin!(task);
            // After a panic it is not polled again, so that nobody sees it broken.
            let ended = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
                Ok(polled) => polled.map(|()| "ended"),
                Err(_) => Poll::Ready("panicked"),
            });
            if let Some(how) = drain.hard.run_until_cancelled(ended).await {
                tracing::error!(task = name, how, "a task that must not die did: the daemon stops");
                // Only the first one is the cause.
                let _ = drain.died.set(Died { task: name });
                drain.start();
            }
        });
    }

    /// The supervised task that died first, if any did.
    #[must_use]
    pub fn died(&self) -> Option<Died> {
        self.died.get().copied()
    }

    /// Waits until all tasks have ended, at most for `patience`. Says whether they have.
    pub async fn wait(&self, patience: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn signals() -> std::io::Result<impl AsyncFnMut()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
