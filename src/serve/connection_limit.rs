//! Limits open connections: all together, and of each address. Over the common limit, a few more are accepted, only for health
//! checks and refusals.

use std::{future::pending, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::Counted;

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

/// What a connection gives back when it ends: its permit, and its place among the connections of its address.
///
/// Boxed, so that it is no larger than a permit: each idle HTTP/1.1 stream keeps one, and with a few bytes more its task would
/// take 128 bytes more.
pub(super) enum ConnectionPermit {
    /// The address of the connection does not count.
    Uncounted {
        _permit: OwnedSemaphorePermit,
    },
    Counted {
        _both: Box<(OwnedSemaphorePermit, Counted)>,
    },
}

impl ConnectionPermit {
    pub(super) fn new(permit: OwnedSemaphorePermit, counted: Option<Counted>) -> Self {
        match counted {
            None => Self::Uncounted { _permit: permit },
            Some(counted) => Self::Counted { _both: Box::new((permit, counted)) },
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permit_of_a_connection_is_no_larger_with_a_count_of_its_address() {
        assert_eq!(size_of::<ConnectionPermit>(), size_of::<OwnedSemaphorePermit>());
    }
}
