//! Reads the keys of tokens from their file or URL: at the start, and again whenever they may have changed.

mod https;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Uri;
use tokio::time::{Instant, sleep_until};

use self::https::HttpsClient;
use crate::{
    auth::{Expected, KeySet, Keys, Readers},
    drain::Drain,
    reload::Reload,
    secret_file::{read, read_secret, unusable},
    telemetry::Metrics,
};

/// Where the keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A file with one secret.
    Secret(PathBuf),
    /// A file with one public key in PEM.
    PublicKey(PathBuf),
    /// A file with a JWKS.
    JwksFile(PathBuf),
    /// An https URL of a JWKS.
    JwksUrl(Uri),
}

/// The task that reads the keys again.
pub struct KeyRefresh {
    source: KeySource,
    expected: Expected,
    keys: Arc<Keys>,
    client: Option<HttpsClient>,
    /// The version of the file at the last attempt, whether or not its keys were usable.
    version: Option<Version>,
    /// When the keys were read last.
    good_at: Instant,
    is_good: bool,
    /// Why the keys could not be read last.
    refused: Option<String>,
    /// What is odd about the keys that were read last.
    warning: Option<&'static str>,
    drain: Drain,
}

/// Changes when a file is written or replaced: device, inode, length, time of the last change.
type Version = (u64, u64, u64, Option<SystemTime>);

impl KeyRefresh {
    /// Reads the keys if they are in a file. If they are at a URL, [`KeyRefresh::run`] fetches them first of all.
    ///
    /// # Errors
    /// When the file cannot be read or has no usable keys, or the system has no certificates of authorities for https.
    pub fn new(source: KeySource, expected: Expected, drain: Drain) -> io::Result<Self> {
        let client = match source {
            KeySource::JwksUrl(_) => Some(HttpsClient::new(drain.clone())?),
            _ => None,
        };
        let (keys, good_at) = (Arc::new(Keys::unread()), Instant::now());
        let (version, is_good, refused, warning) = (None, false, None, None);
        let mut refresh = Self { source, expected, keys, client, version, good_at, is_good, refused, warning, drain };
        if let Some(path) = refresh.source.path() {
            refresh.version = version_of(path);
            let set = refresh.source.read_file(path, &refresh.expected)?;
            refresh.is_good = true;
            refresh.warning = set.warning();
            refresh.keys.finish(Some(set));
        }
        Ok(refresh)
    }

    /// A line for an operator about the keys of a file. [`KeyRefresh::run`] logs what it finds later.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        self.warning
    }

    /// The keys as they were read last.
    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        self.keys.clone()
    }

    /// Reads the keys when they may have changed, when a request has an unknown one, and when `reload` asks for it. Never returns.
    pub async fn run(mut self, reload: Reload, metrics: Metrics) {
        let drain = self.drain.clone();
        tokio::select! {
            () = drain.started() => {}
            () = self.refresh(&reload, &metrics) => {}
        }
        self.keys.end();
        std::future::pending::<()>().await;
    }

    async fn refresh(&mut self, reload: &Reload, metrics: &Metrics) {
        let mut requests = reload.requests();
        let mut next = match self.source {
            KeySource::JwksUrl(_) => Instant::now(),
            _ => Instant::now() + FILE_EVERY,
        };
        loop {
            let wanted = tokio::select! {
                () = self.keys.wanted() => true,
                () = requests.requested() => true,
                () = sleep_until(next) => false,
            };
            if wanted || self.may_have_changed() {
                self.keys.begin();
                let read = self.read().await;
                metrics.keys_refreshed(read.is_ok());
                self.finish(read);
            }
            self.forget_old_keys();
            next = Instant::now()
                + match self.source {
                    KeySource::JwksUrl(_) if self.is_good => FETCH_EVERY,
                    KeySource::JwksUrl(_) => RETRY_AFTER,
                    _ => FILE_EVERY,
                };
        }
    }

    /// Whether the keys may have changed: of a URL always, of a file if its [`Version`] has changed. A file that could not be used is tried again: another mode makes it
    /// readable and changes nothing else.
    fn may_have_changed(&mut self) -> bool {
        let Some(path) = self.source.path() else { return true };
        let is_unchanged = self.is_good && version_of(path) == self.version;
        if is_unchanged {
            self.good_at = Instant::now();
        }
        !is_unchanged
    }

    async fn read(&mut self) -> Result<KeySet, String> {
        match (&self.source, &self.client) {
            (KeySource::JwksUrl(url), Some(client)) => {
                let json = client.get(url, LARGEST).await.map_err(|reason| format!("{url}: {reason}"))?;
                Ok(KeySet::jwks(&json, Readers::Everybody, &self.expected)?)
            }
            (source, _) => {
                let path = source.path().ok_or("no file")?;
                // Taken before the read, so that a change during the read is noticed next time.
                self.version = version_of(path);
                // A pipe would block the thread until somebody writes to it. At the start it may be one.
                if !fs::metadata(path).is_ok_and(|file| file.is_file()) {
                    return Err(format!("{}: not a regular file", path.display()));
                }
                source.read_file(path, &self.expected).map_err(|error| error.to_string())
            }
        }
    }

    fn finish(&mut self, read: Result<KeySet, String>) {
        self.is_good = read.is_ok();
        if self.is_good {
            self.good_at = Instant::now();
        }
        let reason = read.as_ref().err().cloned();
        // A line for each reason, and not for each attempt.
        if reason != self.refused {
            self.warn(reason.as_deref());
        }
        self.refused = reason;
        if let Ok(set) = &read {
            self.warn_of(set.warning());
        }
        self.keys.finish(read.ok());
    }

    fn warn(&self, reason: Option<&str>) {
        match (reason, self.keys.current().is_some()) {
            (Some(reason), true) => {
                tracing::warn!(reason, "cannot read the keys of tokens; the keys from before stay for 24 h");
            }
            (Some(reason), false) => {
                tracing::warn!(reason, "cannot read the keys of tokens; until then every request is 503");
            }
            (None, _) => tracing::info!("the keys of tokens can be read again"),
        }
    }

    /// A line for each change, and not for each attempt.
    fn warn_of(&mut self, found: Option<&'static str>) {
        if let Some(found) = found.filter(|_| found != self.warning) {
            tracing::warn!("{found}");
        }
        self.warning = found;
    }

    fn forget_old_keys(&self) {
        if !self.is_good && self.good_at.elapsed() > LONGEST && self.keys.current().is_some() {
            tracing::error!("the keys of tokens are too old: no token is accepted until they can be read again");
            self.keys.forget();
        }
    }
}

impl KeySource {
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Secret(path) | Self::PublicKey(path) | Self::JwksFile(path) => Some(path),
            Self::JwksUrl(_) => None,
        }
    }

    fn read_file(&self, path: &Path, expected: &Expected) -> io::Result<KeySet> {
        let set = match self {
            Self::Secret(_) => KeySet::secret(&read_secret(path)?, expected),
            Self::PublicKey(_) => KeySet::public_key(&read(path)?, expected),
            Self::JwksFile(_) | Self::JwksUrl(_) => KeySet::jwks(&read(path)?, Readers::Operator, expected),
        };
        set.map_err(|reason| unusable(path, &reason))
    }
}

fn version_of(path: &Path) -> Option<Version> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.len(), file.modified().ok()))
}

/// The most bytes of a key set from a URL.
const LARGEST: usize = 64 * 1024;

/// How often the daemon checks whether a file has changed.
const FILE_EVERY: Duration = Duration::from_secs(2);

/// How often a key set is fetched. A key that was removed from it is accepted for this long.
const FETCH_EVERY: Duration = Duration::from_secs(5 * 60);

/// When the daemon tries again after it could not fetch a key set.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long old keys stay in use while they cannot be read again.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const SECRET: &str = "a secret of at least 32 bytes, as RFC 7518 wants";

    fn secret_file(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("backend-signal-{}-{name}", std::process::id()));
        fs::write(&path, SECRET).unwrap();
        path
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_cannot_be_read_any_more_are_accepted_for_24_hours() {
        let path = secret_file("old-keys");
        let refresh = KeyRefresh::new(KeySource::Secret(path.clone()), Expected::default(), Drain::new()).unwrap();
        let keys = refresh.keys();
        let mut running = Box::pin(refresh.run(Reload::default(), Metrics::new()));
        let mut run = async |time| assert!(timeout(time, running.as_mut()).await.is_err(), "it never ends");
        run(Duration::from_secs(25 * 60 * 60)).await;
        assert!(keys.current().is_some(), "a file that does not change stays good");
        fs::write(&path, "short").unwrap();
        run(LONGEST.saturating_sub(2 * FILE_EVERY)).await;
        assert!(keys.current().is_some());
        run(4 * FILE_EVERY).await;
        assert!(keys.current().is_none());
        fs::write(&path, SECRET).unwrap();
        run(2 * FILE_EVERY).await;
        assert!(keys.current().is_some());
        fs::remove_file(&path).unwrap();
        advance(FILE_EVERY).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_could_not_be_used_is_tried_again_although_nothing_of_it_has_changed() {
        let path = secret_file("same-version");
        let set = |kind| format!(r#"{{"keys":[{{"kty":"{kind}","alg":"HS256","k":"{}"}}]}}"#, "A".repeat(43));
        fs::write(&path, set("oct")).unwrap();
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        let refresh = KeyRefresh::new(KeySource::JwksFile(path.clone()), Expected::default(), Drain::new()).unwrap();
        let keys = refresh.keys();
        let mut running = Box::pin(refresh.run(Reload::default(), Metrics::new()));
        let mut run = async |time| assert!(timeout(time, running.as_mut()).await.is_err(), "it never ends");
        let write = |text: String, seconds| {
            fs::write(&path, text).unwrap();
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_modified(first + Duration::from_secs(seconds)).unwrap();
        };
        write(set("bad"), 1);
        run(2 * FILE_EVERY).await;
        let before = keys.current().unwrap();
        write(set("oct"), 1);
        run(2 * FILE_EVERY).await;
        assert!(!Arc::ptr_eq(&before, &keys.current().unwrap()));
        fs::remove_file(&path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_drain_nobody_waits_for_keys_that_nobody_reads() {
        let path = secret_file("drain");
        let drain = Drain::new();
        let refresh = KeyRefresh::new(KeySource::Secret(path.clone()), Expected::default(), drain.clone()).unwrap();
        let (keys, began) = (refresh.keys(), Instant::now());
        // An attempt has begun, and the drain ends it.
        keys.begin();
        drain.start();
        let waiting = keys.read_again();
        let mut running = Box::pin(refresh.run(Reload::default(), Metrics::new()));
        tokio::select! {
            () = running.as_mut() => panic!("it never ends"),
            () = waiting => {}
        }
        keys.read_again().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(keys.current().is_some());
        fs::remove_file(&path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_in_the_place_of_the_file_blocks_nobody_and_the_keys_stay() {
        let path = secret_file("pipe");
        let refresh = KeyRefresh::new(KeySource::Secret(path.clone()), Expected::default(), Drain::new()).unwrap();
        let keys = refresh.keys();
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        // Without the check this waits for a writer for ever.
        assert!(timeout(3 * FILE_EVERY, refresh.run(Reload::default(), Metrics::new())).await.is_err());
        assert!(keys.current().is_some());
        fs::remove_file(&path).unwrap();
    }
}
