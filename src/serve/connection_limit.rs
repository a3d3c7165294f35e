//! Permits for connections: as many as the settings allow, and a few more for connections that only learn that there is none.

use std::{future::pending, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All places of a server.
pub(super) struct Permits {
    all: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

/// A place of one connection, which is given back when it is dropped.
pub(super) enum Permit {
    /// It is served.
    Regular(OwnedSemaphorePermit),
    /// All places are taken: it is told so, or that the server is healthy.
    OverLimit(OwnedSemaphorePermit),
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        let semaphore = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self { all: semaphore(count), spare: semaphore(SPARE) }
    }

    /// Waits until there is a place of either kind. Nothing is accepted before.
    pub(super) async fn next(&self) -> Permit {
        tokio::select! {
            biased;
            place = take(&self.all) => Permit::Regular(place),
            place = take(&self.spare) => Permit::OverLimit(place),
        }
    }

    /// Takes a better place for a connection that has come, if one is free by now.
    pub(super) fn improve(&self, place: Permit) -> Permit {
        match place {
            Permit::Regular(_) => place,
            Permit::OverLimit(_) => self.all.clone().try_acquire_owned().map_or(place, Permit::Regular),
        }
    }
}

async fn take(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match places.clone().acquire_owned().await {
        Ok(place) => place,
        // Nobody closes it.
        Err(_) => pending().await,
    }
}

/// Enough for the health checks of a few balancers at once and a share of refusals; few enough for the descriptors that are not
/// places.
const SPARE: usize = 16;
