//! Why a connection to the engine is over, once it is.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// The end of one connection, and its reason. A cheap handle: whoever notices that the connection is broken sets it.
///
/// Those that wait for it wake in the order in which they came, so that a seed of the simulation gives the same run each time.
#[derive(Clone, Default)]
pub struct Lost(Arc<Inner>);

#[derive(Default)]
struct Inner {
    reason: OnceLock<String>,
    over: CancellationToken,
}

impl Lost {
    /// Ends the connection. The first reason stays.
    pub fn set(&self, why: &str) {
        if self.0.reason.set(why.to_owned()).is_ok() {
            self.0.over.cancel();
        }
    }

    /// Why the connection is over. `None`: it lives.
    pub fn reason(&self) -> Option<String> {
        self.0.reason.get().cloned()
    }

    /// Waits until the connection is over. Returns why.
    pub async fn wait(&self) -> String {
        self.0.over.cancelled().await;
        self.reason().unwrap_or_default()
    }
}
