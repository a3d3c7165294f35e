//! How the daemon stops: a soft stop, a hard stop, and a wait for every task. Only this file spawns, so no task is missed.

use std::{
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use hyper::rt::Executor;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::AbortHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::reload::Reload;

/// A cheap handle to the one shutdown of this process.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    soft: CancellationToken,
    hard: CancellationToken,
    /// Connections, streams and requests that are in hand when the soft stop begins. They end without the hard stop.
    in_hand: TaskTracker,
    /// Tasks that only the hard stop ends: the supervised ones, and connections that came during the drain.
    until_hard_stop: TaskTracker,
    died: Arc<OnceLock<Died>>,
}

/// A supervised task has died. The daemon drains and exits with an error, so that systemd or Kubernetes starts it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Died {
    /// The name of the task in the log.
    pub task: &'static str,
}

impl Drain {
    /// A drain that has not started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the soft stop: the daemon takes no new work and asks running tasks to end.
    pub fn start(&self) {
        self.soft.cancel();
    }

    /// Whether the soft stop has begun.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.soft.is_cancelled()
    }

    /// Waits for the soft stop.
    pub async fn started(&self) {
        self.soft.cancelled().await;
    }

    /// Begins the hard stop: ends the supervised tasks, and asks the connections that came during the drain to close. Tasks that
    /// have not ended after [`Drain::wait_for_tasks`] end with the process.
    pub fn begin_hard_stop(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Waits for the hard stop.
    pub async fn hard_stop(&self) {
        self.hard.cancelled().await;
    }

    /// Waits for the first stop that had not begun when this was called: the soft stop or the hard stop.
    pub fn next_stop(&self) -> impl Future<Output = ()> + Send {
        if self.has_started() { self.hard.cancelled() } else { self.soft.cancelled() }
    }

    /// Starts a task that the shutdown waits for. The handle can end the task early; the memory of the task is freed only when
    /// its handle is dropped too.
    pub fn spawn<F>(&self, task: F) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.in_hand.spawn(task).abort_handle()
    }

    /// Starts the task of a connection. A connection that comes during the drain is for health checks: it may stay open until the
    /// hard stop, so [`Drain::wait_for_work`] does not wait for it.
    pub fn spawn_connection(&self, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = if self.has_started() { &self.until_hard_stop } else { &self.in_hand };
        tasks.spawn(task);
    }

    /// Starts a task that the hard stop ends and that work in hand does not wait for, such as a request to another node that is
    /// repeated until it is answered.
    pub fn spawn_until_hard_stop(&self, task: impl Future<Output = ()> + Send + 'static) {
        let hard = self.hard.clone();
        self.until_hard_stop.spawn(async move { hard.run_until_cancelled(task).await });
    }

    /// Starts a task that must not die before the hard stop, which ends it.
    ///
    /// Without such a task the daemon would go on and do only half of its work. So if the task panics or ends, the drain
    /// starts, and [`Drain::died`] names the task.
    pub fn supervise<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let drain = self.clone();
        self.until_hard_stop.spawn(async move {
            if let Some(ended) = drain.hard.run_until_cancelled(catch_panic(pin!(task))).await {
                let how = if ended.is_some() { "ended" } else { "panicked" };
                tracing::error!(task = name, how, "a task that must not die has died: the daemon stops");
                // Fails if another task died before: that task is the cause.
                let _ = drain.died.set(Died { task: name });
                drain.start();
            }
        });
    }

    /// The supervised task that died first, if one has died.
    #[must_use]
    pub fn died(&self) -> Option<Died> {
        self.died.get().copied()
    }

    /// Waits for the end of all work that was in hand when the soft stop began.
    pub async fn wait_for_work(&self) {
        self.in_hand.close();
        self.in_hand.wait().await;
    }

    /// Waits for the end of all tasks, for at most `patience`. Returns whether all have ended. Call this after the hard stop.
    pub async fn wait_for_tasks(&self, patience: Duration) -> bool {
        self.until_hard_stop.close();
        let ended = async {
            self.wait_for_work().await;
            self.until_hard_stop.wait().await;
        };
        tokio::time::timeout(patience, ended).await.is_ok()
    }
}

/// The HTTP clients of the libraries start the tasks of their connections with it.
impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Drain {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// The output of a future; `None` if it panics.
pub async fn catch_panic<T>(mut future: Pin<&mut (impl Future<Output = T> + Send)>) -> Option<T> {
    // Unwind safe: the future is not polled again after a panic, so nothing reads its broken state.
    let polled = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    });
    polled.await
}

/// The signals that the process handles. SIGTERM and SIGINT stop it. SIGHUP asks for the TLS files to be read again.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Gets a request at each SIGHUP.
    reload: Reload,
}

impl StopSignals {
    /// Installs the handlers. Needs no runtime: signals that come before a runtime runs are not lost.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        // tokio installs handlers only inside a runtime. They stay for the whole process, and every later runtime gets the signals.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let _inside = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reload: Reload::default(),
        })
    }

    /// Sends the requests of SIGHUP to this handle from now on.
    pub fn reload_with(&mut self, reload: Reload) {
        self.reload = reload;
    }

    /// Waits for the next signal that stops the process.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    tracing::info!("SIGHUP: certificates and keys are read again");
                    self.reload.request();
                }
            }
        }
    }

    /// Waits for the next signal that ends a client command. SIGHUP is one: the terminal of the command has closed.
    pub async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// The output of a future; `None` if a signal comes first.
    pub async fn unless_first<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            output = future => Some(output),
            () = self.next() => None,
        }
    }

    /// Runs the daemon to its end. The first signal starts the drain. `None`: a second one came, which does not wait for the drain.
    pub async fn drain_on_first<T>(&mut self, drain: &Drain, running: impl Future<Output = T>) -> Option<T> {
        let mut running = pin!(running);
        if let Some(ended) = self.unless_first(running.as_mut()).await {
            return Some(ended);
        }
        drain.start();
        self.unless_first(running).await
    }
}
