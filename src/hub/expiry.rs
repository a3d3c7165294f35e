//! Ends a stream when the token of its caller expires. Tokens follow the wall clock, which can be set; everything else in the hub
//! follows a clock that nobody can set.

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
        // Without this, entries of streams that are over would keep their mailboxes in memory.
        if !expiry.slot.is_attached(expiry.generation) {
            return;
        }
        match next_check(expiry.expires, now) {
            Some(tick) => core.deadlines.schedule_expiry(tick, expiry),
            None => expiry.slot.end(core, Some(expiry.generation), EndReason::Expired, now),
        }
    }
}

/// When to look at the wall clock again. `None`: the time is over.
pub(super) fn next_check(expires: SystemTime, now: Millis) -> Option<Tick> {
    let left = expires.duration_since(wall_clock::now()).ok().filter(|left| !left.is_zero())?;
    Some(Tick::not_before(now.after(millis(left).saturating_add(1).min(LONGEST_MS))))
}

/// The longest time between two looks at the wall clock, in milliseconds: an expired token is noticed that late when the clock is set.
const LONGEST_MS: u64 = 60_000;
