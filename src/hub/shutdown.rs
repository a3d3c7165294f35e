//! Shutdown: the hub refuses new work and ends all streams and watches, spread over a window.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Hub, registry::SHARDS, timekeeper::wake_in_batches};
use crate::model::EndReason;

impl Hub {
    /// Refuses new work, and ends all streams and watches, spread over the first 90 % of `window`: the rest is for writing their last
    /// bytes. Returns early when no stream and no watch is left.
    pub async fn drain(&self, window: Duration) {
        // Fails in a second drain: the first one says when the window ends.
        let _ = self.0.drain_ends.set(self.elapsed() + window);
        self.0.draining.store(true, Ordering::Release);
        let mut slices = tokio::time::interval(window.mul_f64(0.9) / SHARDS_IN_U32);
        for shard in 0..SHARDS {
            slices.tick().await;
            let census = self.census();
            if census.streams == 0 && census.watches == 0 {
                return;
            }
            for slot in self.0.core.registry.of_shard(shard) {
                slot.end(&self.0.core, None, EndReason::Draining, self.now());
            }
            wake_in_batches(self.0.core.presence.end(shard, EndReason::Draining)).await;
        }
    }

    /// What is left of the drain window. Zero before the drain.
    #[must_use]
    pub fn drain_left(&self) -> Duration {
        self.0.drain_ends.get().copied().unwrap_or_default().saturating_sub(self.elapsed())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the number of shards is small")]
const SHARDS_IN_U32: u32 = SHARDS as u32;
