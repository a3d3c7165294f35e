//! How long a message takes from its acceptance until its stream has written it. Pure: time is an argument.

use std::{num::NonZeroU32, time::Duration};

/// When the hub accepted a message: microseconds since the hub began, modulo 2^32 (71 minutes). Always made odd, so it is never zero
/// and an `Option` of it takes four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AcceptedAt(NonZeroU32);

impl AcceptedAt {
    pub(super) fn new(elapsed: Duration) -> Self {
        Self(micros(elapsed))
    }

    /// The time from the acceptance until `elapsed`.
    pub(super) fn latency(self, elapsed: Duration) -> Duration {
        Duration::from_micros(micros(elapsed).get().wrapping_sub(self.0.get()).into())
    }
}

/// One message in this many is measured: an observer may take a lock, which all senders would share.
const SAMPLED_MESSAGES: u64 = 16;

/// Whether the latency of a message is measured. `epoch` is random, so that the first message of a mailbox is measured as often as any
/// other.
pub(super) fn is_sampled(epoch: u64, seq: u64) -> bool {
    epoch.wrapping_add(seq).is_multiple_of(SAMPLED_MESSAGES)
}

fn micros(elapsed: Duration) -> NonZeroU32 {
    NonZeroU32::MIN | u32::try_from(elapsed.as_micros() & u128::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_right_also_when_the_microseconds_start_again_from_zero() {
        for accepted in [0, 1, 5_000, u64::from(u32::MAX), u64::from(u32::MAX) + 1, 1 << 40] {
            for latency in [0, 1, 50, 10_000_000] {
                let at = AcceptedAt::new(Duration::from_micros(accepted));
                let found = at.latency(Duration::from_micros(accepted + latency)).as_micros();
                assert!(found.abs_diff(latency.into()) <= 1, "{latency} us after {accepted}: {found}");
            }
        }
    }
}
