//! Limits open connections. Over the limit a few more are accepted, only for health checks and refusals.

use std::{future::pending, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The permits of all connections.
pub(super) struct Permits {
    regular: Arc<Semaphore>,
    over_limit: Arc<Semaphore>,
}

/// The permit of one connection. Dropping the permit returns it.
pub(super) enum Permit {
    Regular(OwnedSemaphorePermit),
    /// The limit is reached: see [`over_limit`](super::over_limit).
    OverLimit(OwnedSemaphorePermit),
}

impl Permits {
    pub(super) fn new(limit: usize) -> Self {
        let semaphore = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self { regular: semaphore(limit), over_limit: semaphore(OVER_LIMIT) }
    }

    /// Waits for a permit of either kind. Nothing is accepted until then.
    pub(super) async fn acquire(&self) -> Permit {
        tokio::select! {
            biased;
            permit = acquire_from(&self.regular) => Permit::Regular(permit),
            permit = acquire_from(&self.over_limit) => Permit::OverLimit(permit),
        }
    }

    /// Call this when a connection was accepted: exchanges a permit over the limit for a regular one that was returned since.
    pub(super) fn upgrade(&self, permit: Permit) -> Permit {
        match permit {
            Permit::Regular(_) => permit,
            Permit::OverLimit(_) => self.regular.clone().try_acquire_owned().map_or(permit, Permit::Regular),
        }
    }
}

async fn acquire_from(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match permits.clone().acquire_owned().await {
        Ok(permit) => permit,
        // Only a closed semaphore fails, and nothing closes these.
        Err(_) => pending().await,
    }
}

/// Connections over the limit: enough for the health checks of a few load balancers and some refusals at once, and few enough
/// for the reserve of file descriptors.
const OVER_LIMIT: usize = 16;
