//! The request to read certificates and keys again, which SIGHUP makes.

use std::time::Duration;

use tokio::sync::watch;

/// A cheap handle through which the request is made.
#[derive(Clone, Debug)]
pub struct Reload(watch::Sender<()>);

/// Gets the requests that are made after it was created.
#[derive(Debug)]
pub struct ReloadRequests {
    requests: watch::Receiver<()>,
    /// Without a sender, waiting for a request would end at once, again and again.
    _sender: Reload,
}

impl Default for Reload {
    fn default() -> Self {
        Self(watch::Sender::new(()))
    }
}

impl Reload {
    /// Asks everything that came from a file to be read again.
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
    /// Waits until it is time to look whether files have changed: at the next request, at the latest after [`INTERVAL`]. Returns
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

/// Short enough that nobody waits for a change, and long enough to cost nothing.
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
