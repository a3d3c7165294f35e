//! The two measures of time in the hub: milliseconds, and the ticks at which deadlines are checked. Pure.

use std::{num::NonZeroU32, time::Duration};

/// Milliseconds since the hub began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Millis(pub(crate) u64);

impl Millis {
    /// A time, from the duration since the hub began.
    pub(super) fn new(elapsed: Duration) -> Self {
        Self(millis(elapsed))
    }

    /// How long ago `earlier` was, in milliseconds.
    pub(super) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time `ms` milliseconds later.
    pub(super) fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The first multiple of `grid` milliseconds that is not earlier.
    pub(super) fn on_grid(self, grid: u64) -> Self {
        Self(self.0.div_ceil(grid.max(1)).saturating_mul(grid.max(1)))
    }
}

/// A point in time: the number of steps of [`STEP_MS`] since the hub began, for at most six years. The stored number is one higher,
/// so it is never zero and `Option<Tick>` takes no extra memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) NonZeroU32);

impl Tick {
    /// The latest tick.
    pub(super) const LAST: Self = Self(NonZeroU32::MAX);

    /// The first tick that is not before `time`.
    pub(super) fn not_before(time: Millis) -> Self {
        Self::at_step(time.0.div_ceil(STEP_MS))
    }

    /// The last tick that is not after `now`.
    pub(super) fn reached(now: Millis) -> Self {
        Self::at_step(now.0 / STEP_MS)
    }

    pub(super) fn at_step(step: u64) -> Self {
        Self(NonZeroU32::MIN.saturating_add(u32::try_from(step).unwrap_or(u32::MAX)))
    }

    pub(super) fn time(self) -> Millis {
        Millis(u64::from(self.0.get() - 1) * STEP_MS)
    }
}

/// The milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The length of a step, in milliseconds. A check may be late by this much.
const STEP_MS: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_never_before_its_time() {
        for ms in [0, 1, 49, 50, 51, 99_999] {
            assert!(Tick::not_before(Millis(ms)).time() >= Millis(ms));
            assert!(Tick::reached(Millis(ms)).time() <= Millis(ms));
        }
    }
}
