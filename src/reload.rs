//! The request to read the files of TLS and the secret of TURN again, which SIGHUP makes. Keys of tokens have their own task in `key_refresh`.

use std::time::Duration;

use tokio::sync::watch;

/// Makes the request. A cheap handle.
#[derive(Clone, Debug)]
pub struct Reload(watch::Sender<()>);

/// Receives the requests that come after its creation.
#[derive(Debug)]
pub struct ReloadRequests {
    requests: watch::Receiver<()>,
    /// Keeps the channel open. When the last sender is dropped, each wait for a request would end at once.
    _sender: Reload,
}

impl Default for Reload {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Reload {
    /// Asks the tasks that hold [`ReloadRequests`] to read their files again.
    pub fn request(&self) {
        self.0.send_replace(());
    }

    /// For a task that reads files.
    #[must_use]
    pub fn requests(&self) -> ReloadRequests {
        ReloadRequests { requests: self.0.subscribe(), _sender: self.clone() }
    }
}

impl ReloadRequests {
    /// Waits for the next request, but at most 3 s. Then the task should check whether its files have changed. Returns
    /// whether there was a request.
    pub async fn next(&mut self) -> bool {
        tokio::time::timeout(INTERVAL, self.requested()).await.is_ok()
    }

    /// Waits for the next request.
    pub async fn requested(&mut self) {
        // An error would mean that there is no sender, and this has one.
        let _is_ok = self.requests.changed().await.is_ok();
    }
}

/// Short, so that a new file is used soon. Long, so that the checks cost nothing.
const INTERVAL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_the_wait_and_without_one_the_wait_ends_after_the_interval() {
        let reload = Reload::default();
        reload.request();
        let (mut first, mut second) = (reload.requests(), reload.requests());
        let began = Instant::now();
        assert!(!first.next().await, "a request from before");
        assert_eq!(began.elapsed(), INTERVAL);
        reload.request();
        reload.request();
        drop(reload);
        assert_eq!([first.next().await, second.next().await], [true, true]);
        assert_eq!(began.elapsed(), INTERVAL);
        assert!(!first.next().await);
        assert_eq!(began.elapsed(), INTERVAL * 2);
    }
}
