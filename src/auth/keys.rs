//! The current keys of tokens. Requests use them, and the task in `key_refresh` replaces them.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::key_set::KeySet;

/// The keys, and who waits for new ones.
pub struct Keys {
    state: Mutex<State>,
    wanted: Notify,
    /// Wakes waiting requests after each attempt to read the keys.
    read: watch::Sender<()>,
}

struct State {
    set: Option<Arc<KeySet>>,
    reading: bool,
    asked_at: Option<Instant>,
    /// Whether the last attempt gave keys.
    is_good: bool,
    /// Nobody reads the keys any more, because the daemon drains.
    is_final: bool,
}

impl Keys {
    /// No keys yet. Requests wait for the first attempt to read them.
    #[must_use]
    pub fn unread() -> Self {
        let state = State { set: None, reading: true, asked_at: None, is_good: false, is_final: false };
        Self { state: Mutex::new(state), wanted: Notify::new(), read: watch::Sender::new(()) }
    }

    /// Says that an attempt to read the keys begins. Requests with unknown keys then wait for its end.
    pub fn begin(&self) {
        self.state.lock().reading = true;
    }

    /// Ends an attempt that [`Keys::begin`] began. Without a new set the current one stays.
    pub fn finish(&self, set: Option<KeySet>) {
        let mut state = self.state.lock();
        state.reading = false;
        state.is_good = set.is_some();
        if let Some(set) = set {
            state.set = Some(Arc::new(set));
        }
        drop(state);
        self.read.send_replace(());
    }

    /// Says that there will be no further attempt. Requests no longer wait for one.
    pub fn end(&self) {
        let mut state = self.state.lock();
        (state.reading, state.is_final) = (false, true);
        drop(state);
        self.read.send_replace(());
    }

    /// Whether the last attempt to read the keys failed, or none has ended yet.
    #[must_use]
    pub fn are_unreadable(&self) -> bool {
        !self.state.lock().is_good
    }

    /// Forgets the keys, because they are too old to be trusted.
    pub fn forget(&self) {
        self.state.lock().set = None;
    }

    /// Waits until a request needs a key that the set does not have.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// The keys as they were read last. `None`: there are none, or they are too old.
    #[must_use]
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.state.lock().set.clone()
    }

    /// Whether nobody reads the keys any more.
    pub(super) fn are_final(&self) -> bool {
        self.state.lock().is_final
    }

    /// Has the keys read again and waits for that. Returns at once if a request asked less than [`ASK_EVERY`] ago, so that
    /// strangers with invented keys cannot make the daemon ask all the time; and in a drain.
    pub(crate) async fn read_again(&self) {
        let mut read = self.read.subscribe();
        if self.ask() {
            // If the keys did not come in time, the old ones decide.
            let _is_late = timeout(PATIENCE, read.changed()).await;
        }
    }

    /// Asks for an attempt if none is running. Returns whether there is one to wait for.
    fn ask(&self) -> bool {
        let mut state = self.state.lock();
        if state.reading {
            return true;
        }
        if state.is_final || state.asked_at.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            return false;
        }
        (state.asked_at, state.reading) = (Some(Instant::now()), true);
        drop(state);
        self.wanted.notify_one();
        true
    }
}

/// The shortest time between two attempts that unknown keys cause.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// How long a request waits for new keys. It waits because an `EventSource` never comes back after a 401.
const PATIENCE: Duration = Duration::from_secs(5);
