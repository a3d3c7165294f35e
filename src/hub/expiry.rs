//! Ends a stream when the token of its caller expires. Tokens use the wall clock, which somebody can set; the rest of the hub
//! uses a monotonic clock.

use std::{sync::Arc, time::SystemTime};

use super::{
    Hub,
    slot::Slot,
    time::{Millis, Tick, millis},
};
use crate::{model::EndReason, wall_clock};

/// A stream whose token expires.
pub(super) struct Expiry {
    pub(super) slot: Arc<Slot>,
    pub(super) generation: u32,
    pub(super) expires: SystemTime,
}

impl Hub {
    /// Ends the stream if its token has expired. Otherwise schedules the next check.
    pub(super) fn check_expiry(&self, expiry: Expiry) {
        let (core, now) = (&self.0.core, self.now());
        // Does not schedule a check for a stream that has ended: its entry would keep the mailbox in memory.
        if !expiry.slot.is_attached(expiry.generation) {
            return;
        }
        match next_check(expiry.expires, now) {
            Some(tick) => core.deadlines.schedule_expiry(tick, expiry),
            None => expiry.slot.end(core, Some(expiry.generation), EndReason::Expired, now),
        }
    }
}

/// When to check the wall clock again. `None`: the token has expired.
pub(super) fn next_check(expires: SystemTime, now: Millis) -> Option<Tick> {
    let left = expires.duration_since(wall_clock::now()).ok().filter(|left| !left.is_zero())?;
    Some(Tick::not_before(now.after(millis(left).saturating_add(1).min(LONGEST_MS))))
}

/// The longest time between two checks, in milliseconds. If the clock is set, an expired token is noticed at most this late.
const LONGEST_MS: u64 = 60_000;
