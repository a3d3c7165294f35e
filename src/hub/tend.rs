//! The hub's look at the clock: one walk over all mailboxes stands for every timer, and another one for the drain.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    Hub, millis,
    pace::Millis,
    registry::SHARDS,
    slot::{Breaker, Slot},
};
use crate::model::EndReason;

impl Hub {
    /// Walks over all mailboxes again and again: heartbeats, stalled streams, messages and mailboxes whose time is over.
    ///
    /// Never ends. `heartbeat` is the shortest one in use.
    pub async fn tend(self, heartbeat: Duration) {
        // A heartbeat may be late by a thirtieth of it, a stalled stream by a fifth of its time: a mailbox may be among the first in
        // one round and, when there are more of them, among the last in the next. Where the least round is longer, by two of those.
        let round = (heartbeat / 60).min(self.0.limits.stall / 10).clamp(Duration::from_millis(20), ROUND);
        let (slice, mut rested) = (round / SHARDS_IN_U32, Instant::now());
        loop {
            let (mut shards, mut slots) = (0, Vec::new());
            for shard in 0..SHARDS {
                slots.append(&mut self.0.registry.of_shard(shard));
                shards += 1;
                if slots.len() >= AT_ONCE || shard == SHARDS - 1 {
                    // One of them also where nobody is to be looked at.
                    let parts = slots.len().div_ceil(AT_ONCE).max(1);
                    for part in 0..parts {
                        self.tick(slots.chunks(AT_ONCE).nth(part).unwrap_or_default());
                        rested = rest(rested, slice * shards / u32::try_from(parts).unwrap_or(u32::MAX)).await;
                    }
                    (shards, slots) = (0, Vec::new());
                }
            }
            let now = self.now();
            for breaker in self.0.presence.tick(millis(self.0.limits.stall), now) {
                self.see_off(Some(breaker), now);
            }
            self.cut_leaving(now);
        }
    }

    /// Refuses new work from now on and ends all streams, spread over `window`; returns early when none is left.
    pub async fn drain(&self, window: Duration) {
        self.0.draining.store(true, Ordering::Release);
        self.0.presence.end(EndReason::Draining, self.now());
        let mut slices = tokio::time::interval(window / SHARDS_IN_U32);
        for shard in 0..SHARDS {
            slices.tick().await;
            if self.census().streams == 0 {
                return;
            }
            for slot in self.0.registry.of_shard(shard) {
                slot.end(&self.0.totals, EndReason::Draining, self.now());
            }
        }
    }

    /// Looks at some mailboxes.
    pub(super) fn tick(&self, slots: &[Arc<Slot>]) {
        let limits = &self.0.limits;
        let (stall, window) = (millis(limits.stall), millis(limits.resume_window));
        for slot in slots {
            let now = self.now();
            let (ticked, leaving) = slot.tick(&self.0.totals, stall, window, now);
            self.see_off(leaving.breaker, now);
            if ticked.stalled {
                self.0.presence.note(slot, now);
                tracing::debug!("a stream was cut: its peer does not read");
            }
            self.0.metrics.expired(ticked.expired);
            if ticked.forget {
                self.0.registry.remove(slot, &self.0.totals);
            }
        }
    }

    /// Leaves a stream that was told to end the time to say its last word.
    pub(super) fn see_off(&self, breaker: Option<Breaker>, now: Millis) {
        if let Some(breaker) = breaker {
            self.0.leaving.lock().push((Millis(now.0 + LAST_WORD_MS), breaker));
        }
    }

    fn cut_leaving(&self, now: Millis) {
        // A task that has ended would be kept by its handle.
        let over = |(at, breaker): &mut (Millis, Breaker)| *at <= now || breaker.is_finished();
        let due: Vec<_> = self.0.leaving.lock().extract_if(.., over).collect();
        for (_, breaker) in due {
            breaker.abort();
        }
    }
}

/// Rests for so long after the last rest, so that what was done meanwhile does not add up, unless that took too long; gives the
/// end of it.
async fn rest(last: Instant, length: Duration) -> Instant {
    let (now, end) = (Instant::now(), last + length);
    let end = if end + LATE < now { now + length } else { end };
    sleep_until(end).await;
    end
}

/// By how much a rest may be late and the next ones still make up for it.
const LATE: Duration = Duration::from_millis(5);

/// How long a round takes at most: what is held, remembered or about to be called absent has times that no option sets.
const ROUND: Duration = Duration::from_millis(250);

/// Mailboxes after which the walk rests, some 20 us of it. An idle node rests once a round.
const AT_ONCE: usize = 256;

/// How long a stream that was told to end may take for it before it is cut.
const LAST_WORD_MS: u64 = 5_000;

#[expect(clippy::cast_possible_truncation, reason = "64 fits")]
const SHARDS_IN_U32: u32 = SHARDS as u32;
