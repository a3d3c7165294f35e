//! The secret that the daemon shares with its TURN servers. It is read again when its file changes.

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::RwLock;
use ring::hmac;

use crate::{reload::Reload, secret_file::read_secret, telemetry::Metrics};

/// The secret. A cheap handle.
#[derive(Clone)]
pub struct TurnSecret(Arc<Inner>);

struct Inner {
    file: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    secret: Vec<u8>,
    key: hmac::Key,
}

impl TurnSecret {
    /// Reads the secret.
    ///
    /// # Errors
    /// When the file cannot be read or has no secret.
    pub fn read(file: PathBuf) -> io::Result<Self> {
        let current = Current::of(read_secret(&file)?);
        Ok(Self(Arc::new(Inner { file, current: RwLock::new(current) })))
    }

    /// Whether the secret is so short that whoever has credentials could find it by trying.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.current.read().secret.len() < SHORTEST
    }

    /// Reads the file every few seconds, and when a request comes. Never ends. If the new file cannot be used, the old secret stays
    /// in use.
    ///
    /// Compares the content and not the time, as for TLS.
    pub async fn keep_current(self, reload: Reload, metrics: Metrics) {
        let mut requests = reload.requests();
        let mut tried = Ok(self.0.current.read().secret.clone());
        loop {
            let is_requested = requests.next().await;
            let read = self.read_again();
            if !is_requested && read == tried {
                continue;
            }
            tried.clone_from(&read);
            metrics.turn_secret_reloaded(read.is_ok());
            match read {
                Ok(secret) => {
                    *self.0.current.write() = Current::of(secret);
                    if self.is_short() {
                        tracing::warn!("the secret of TURN that was read again is shorter than {SHORTEST} bytes");
                    }
                    tracing::info!("new credentials for TURN are made with the secret that was read again");
                }
                Err(reason) => {
                    tracing::error!(reason, "a changed secret of TURN is not used; the one from before stays in use");
                }
            }
        }
    }

    /// What is not a regular file is read only at start: a pipe gives its content once, and opening it again would block.
    fn read_again(&self) -> Result<Vec<u8>, String> {
        let Inner { file, current } = &*self.0;
        if file.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Ok(current.read().secret.clone());
        }
        read_secret(file).map_err(|error| error.to_string())
    }

    /// HMAC-SHA1, because the convention says so. Its collisions do not weaken an HMAC.
    pub(super) fn sign(&self, text: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0.current.read().key, text)
    }
}

impl Current {
    fn of(secret: Vec<u8>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret);
        Self { secret, key }
    }
}

/// 16 random bytes cannot be found by trying.
const SHORTEST: usize = 16;
