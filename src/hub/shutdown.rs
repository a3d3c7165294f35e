//! Shutdown: the hub refuses new work and ends all streams and watches, spread over a window.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Hub, registry::SHARDS, timekeeper::wake_in_batches};
use crate::model::EndReason;

impl Hub {
    /// Refuses new work, and ends all streams and watches, spread over `window`. Returns early when no stream and no watch is left.
    pub async fn drain(&self, window: Duration) {
        self.0.draining.store(true, Ordering::Release);
        let mut slices = tokio::time::interval(window / SHARDS_IN_U32);
        for shard in 0..SHARDS {
            slices.tick().await;
            let census = self.census();
            if census.streams == 0 && census.watches == 0 {
                return;
            }
            for slot in self.0.core.registry.of_shard(shard) {
                slot.end(&self.0.core, EndReason::Draining, self.now());
            }
            wake_in_batches(self.0.core.presence.end(shard, EndReason::Draining)).await;
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the number of shards is small")]
const SHARDS_IN_U32: u32 = SHARDS as u32;
