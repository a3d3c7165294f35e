//! The clock of the directory: times in requests are its times, because the clocks of machines differ.

use std::collections::VecDeque;

/// The offset of the directory's clock to the one of this machine.
#[derive(Default)]
pub(super) struct DirectoryClock {
    /// The round trip of each of the last beats, with the offset that it showed, in milliseconds.
    samples: VecDeque<(u64, i64)>,
}

impl DirectoryClock {
    /// Adds what a beat showed. Says whether the directory's clock jumped so far that nodes may look dead or alive.
    pub(super) fn add(&mut self, time_ms: u64, sent: u64, answered: u64) -> bool {
        let offset =
            i64::try_from(time_ms).unwrap_or(i64::MAX) - i64::try_from(sent.midpoint(answered)).unwrap_or(i64::MAX);
        let round_trip = answered.saturating_sub(sent);
        let jumped = self.samples.back().is_some_and(|(_, before)| before.abs_diff(offset) > JUMP_MS);
        // Both cannot be right: a clock was set meanwhile, or this is another server.
        let disagrees = |(trip, before): &(u64, i64)| before.abs_diff(offset) > (trip + round_trip) / 2 + TOLERANCE_MS;
        if self.samples.iter().any(disagrees) {
            self.samples.clear();
        }
        self.samples.push_back((round_trip, offset));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        jumped
    }

    /// The offset of the beat with the shortest round trip.
    pub(super) fn offset(&self) -> i64 {
        self.samples.iter().min_by_key(|(round_trip, _)| *round_trip).map_or(0, |(_, offset)| *offset)
    }

    /// The shortest round trip of the last beats, in milliseconds; at least 1.
    pub(super) fn round_trip_ms(&self) -> u64 {
        self.samples.iter().map(|(round_trip, _)| *round_trip).min().unwrap_or(1).max(1)
    }
}

/// A step of the directory's clock between two beats that makes nodes look dead or alive, in milliseconds.
const JUMP_MS: u64 = 3_000;
/// How far two beats may differ beyond what their round trips explain, in milliseconds.
const TOLERANCE_MS: u64 = 50;
/// How many beats the clock of the directory is read from.
const SAMPLES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        let mut clock = DirectoryClock::default();
        for second in 0..10 {
            assert!(!clock.add(5_000 + second * 1_000, second * 1_000, second * 1_000 + 2));
        }
        assert_eq!(clock.offset(), 4_999);
        // Less than what makes nodes look dead, and the beat takes longer than those before.
        assert!(!clock.add(15_800, 10_000, 10_040));
        assert_eq!(clock.offset(), 5_780);
        assert!(clock.add(25_000, 11_000, 11_002));
        assert_eq!(clock.offset(), 13_999);
    }

    #[test]
    fn a_slow_beat_does_not_move_the_clock() {
        let mut clock = DirectoryClock::default();
        clock.add(5_000, 0, 2);
        assert!(!clock.add(6_800, 1_000, 1_900));
        assert_eq!(clock.offset(), 4_999);
    }
}
