//! Token buckets by key, in a table of a fixed size.
//!
//! `governor` does the arithmetic, but its own tables grow until somebody cleans them up. This table has room for [`SETS`] times
//! [`WAYS`] buckets. A full bucket may be forgotten when its place is needed: a new bucket is full, too. If
//! all eight buckets of a set are in use, the fullest of them is forgotten. So a stranger is never refused because
//! of others, and whoever has taken most is forgotten last: the table forgets a key only for eight keys that have taken more.
//! A secret hash chooses the set of a key, so nobody can fill the set of a certain key.

use std::hash::{BuildHasher as _, Hash, RandomState};

use governor::{
    NotUntil, Quota, RateLimiter, clock::Clock, middleware::StateInformationMiddleware, nanos::Nanos, state::StateStore,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::RetryAfter;

/// The buckets of one limit.
pub(super) struct Buckets {
    limiter: RateLimiter<u64, Table, TokioClock, StateInformationMiddleware>,
    hasher: RandomState,
}

impl Buckets {
    pub(super) fn new(quota: Quota) -> Self {
        let limiter = RateLimiter::new(quota, Table::default(), TokioClock);
        Self { limiter, hasher: RandomState::new() }
    }

    /// Takes a token from the bucket of a key. Returns how many are left, or when the next one comes.
    ///
    /// Keys with the same hash share a bucket. Among a million keys the chance of such a pair is 1 in 37 million.
    pub(super) fn take(&self, key: impl Hash) -> Result<u32, RetryAfter> {
        let taken = self.limiter.check_key(&self.hasher.hash_one(key));
        taken.map(|left| left.remaining_burst_capacity()).map_err(|until| self.retry_after(&until))
    }

    fn retry_after(&self, until: &NotUntil<StdInstant>) -> RetryAfter {
        let wait = until.wait_time_from(self.limiter.clock().now());
        let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
        RetryAfter::exactly(u16::try_from(seconds).unwrap_or(u16::MAX))
    }
}

/// The clock of the runtime, which tests can pause.
#[derive(Clone, Debug)]
struct TokioClock;

type StdInstant = std::time::Instant;

impl Clock for TokioClock {
    type Instant = StdInstant;

    fn now(&self) -> StdInstant {
        Instant::now().into_std()
    }
}

/// The buckets that are not full, in sets: a key has its place in one set.
struct Table {
    sets: Box<[Mutex<[Bucket; WAYS]>]>,
}

/// The hash of a key, and when its bucket is full again, in nanoseconds since the start; 0 for a free place.
#[derive(Clone, Copy, Default)]
struct Bucket {
    key: u64,
    full_at: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self { sets: (0..SETS).map(|_| Mutex::default()).collect() }
    }
}

impl StateStore for Table {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, update: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
        let mut set = self.sets[*key as usize % SETS].lock();
        let (mut place, mut known) = (0, None);
        for (index, bucket) in set.iter().enumerate() {
            if bucket.key == *key && bucket.full_at > 0 {
                (place, known) = (index, Some(Nanos::new(bucket.full_at)));
                break;
            }
            if bucket.full_at < set[place].full_at {
                place = index;
            }
        }
        let (outcome, full_at) = update(known)?;
        set[place] = Bucket { key: *key, full_at: full_at.as_u64() };
        Ok(outcome)
    }
}

/// 4,096 sets of eight buckets take 557 KiB.
const SETS: usize = 4_096;
const WAYS: usize = 8;

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use tokio::time::advance;

    use super::*;

    fn five_a_second() -> Buckets {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        Buckets::new(Quota::per_second(number(5)).allow_burst(number(20)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_has_its_burst_and_then_its_rate() {
        let buckets = five_a_second();
        for left in (0..20).rev() {
            assert_eq!(buckets.take("ana").ok(), Some(left));
        }
        assert_eq!(buckets.take("ana").err(), Some(RetryAfter::exactly(1)));
        assert_eq!(buckets.take("bob").ok(), Some(19));
        advance(Duration::from_millis(199)).await;
        assert!(buckets.take("ana").is_err());
        advance(Duration::from_millis(1)).await;
        assert_eq!(buckets.take("ana").ok(), Some(0));
        advance(Duration::from_secs(60)).await;
        assert_eq!(buckets.take("ana").ok(), Some(19));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_is_exact_to_the_second() {
        let slow = Buckets::new(Quota::per_minute(NonZeroU32::new(10).expect("not zero")));
        while slow.take(1).is_ok() {}
        for seconds in [6, 5, 4] {
            assert_eq!(slow.take(1).err(), Some(RetryAfter::exactly(seconds)));
            advance(Duration::from_secs(1)).await;
        }
        advance(Duration::from_millis(2_500)).await;
        assert_eq!(slow.take(1).err(), Some(RetryAfter::exactly(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn of_200_000_strangers_none_is_refused_and_they_do_not_make_the_table_forget_an_attacker() {
        let buckets = five_a_second();
        while buckets.take("attacker").is_ok() {}
        for stranger in 0..200_000 {
            assert!(buckets.take(stranger).is_ok(), "{stranger}");
            if stranger % 1_000 == 0 {
                // Time for as many tokens as the attacker may take.
                assert!(buckets.take("attacker").is_err(), "forgotten after {stranger} strangers");
            }
        }
    }
}
