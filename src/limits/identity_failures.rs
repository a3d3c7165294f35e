//! Slows down whoever guesses identities: each refusal of an address comes later than the one before.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::Quota;
use tokio::time::sleep;

use super::{AddressCounts, ClientAddresses, Counted, buckets::Buckets};
use crate::error::{Error, Limit, RetryAfter};

/// The failures of all addresses.
pub struct IdentityFailures {
    failures: Option<Buckets>,
    waiting: AddressCounts,
    addresses: ClientAddresses,
}

/// What happens to the refusal of an invalid identity.
pub enum Penalty {
    /// The refusal goes out at once.
    None,
    /// The refusal waits.
    Wait(HeldBack),
    /// Too many refusals of the address already wait: the client gets this error at once instead.
    Refuse(Error),
}

/// A refusal that waits. Counts against its address until it is dropped.
pub struct HeldBack {
    delay: Duration,
    _counted: Counted,
}

impl IdentityFailures {
    /// `per_minute`: how many failures of one address have no penalty. 0: no failure has one.
    #[must_use]
    pub fn new(per_minute: u32, addresses: ClientAddresses) -> Self {
        let buckets = |rate: NonZeroU32| {
            // The bucket has `LONGEST_DELAY` extra tokens. When only these are left, each one less adds a second.
            Buckets::new(Quota::per_minute(rate).allow_burst(rate.saturating_add(LONGEST_DELAY)))
        };
        let failures = NonZeroU32::new(per_minute).map(buckets);
        Self { failures, waiting: AddressCounts::new(WAITING), addresses }
    }

    /// Counts an identity of an address that is not valid.
    #[must_use]
    pub fn charge(&self, address: IpAddr) -> Penalty {
        let (Some(failures), Some(key)) = (&self.failures, self.addresses.counted(address)) else {
            return Penalty::None;
        };
        let left = failures.take(key);
        let seconds = LONGEST_DELAY.saturating_sub(*left.as_ref().unwrap_or(&0));
        if seconds == 0 {
            return Penalty::None;
        }
        match (self.waiting.add(key), left) {
            (Some(counted), _) => {
                Penalty::Wait(HeldBack { delay: Duration::from_secs(seconds.into()), _counted: counted })
            }
            (None, Err(after)) => Penalty::Refuse(Error::RateLimited(Limit::IdentityFailures, after)),
            // There is a token, but too many refusals still wait.
            (None, Ok(_)) => Penalty::Refuse(Error::RateLimited(Limit::IdentityFailures, SOON)),
        }
    }
}

impl HeldBack {
    /// Waits until the refusal may go out.
    pub async fn over(self) {
        sleep(self.delay).await;
    }
}

/// The longest time that a refusal waits, in seconds.
const LONGEST_DELAY: u32 = 8;
/// Refusals of one address that may wait at the same time.
const WAITING: usize = 16;
const SOON: RetryAfter = RetryAfter::exactly(1);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::{
        super::{AddressScope, AddressSource},
        *,
    };

    fn failures(per_minute: u32) -> IdentityFailures {
        let addresses = ClientAddresses::new(Vec::new(), AddressSource::XForwardedFor, AddressScope::Public);
        IdentityFailures::new(per_minute, addresses)
    }

    fn delay(penalty: &Penalty) -> u64 {
        match penalty {
            Penalty::None => 0,
            Penalty::Wait(held_back) => held_back.delay.as_secs(),
            Penalty::Refuse(error) => panic!("{error:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_ten_failures_in_a_minute_each_one_waits_a_second_longer_up_to_eight() {
        let (failures, eve, ana) = (failures(10), [192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        for expected in [[0; 10].as_slice(), &[1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]].concat() {
            assert_eq!(delay(&failures.charge(eve)), expected);
        }
        assert_eq!(delay(&failures.charge(ana)), 0, "another address");
        assert_eq!(delay(&failures.charge([127, 0, 0, 1].into())), 0);
        // Six seconds forgive one failure.
        advance(Duration::from_secs(18)).await;
        assert_eq!(delay(&failures.charge(eve)), 6);
        advance(Duration::from_secs(120)).await;
        assert_eq!(delay(&failures.charge(eve)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn sixteen_refusals_wait_and_one_more_is_answered_at_once() {
        let (failures, eve) = (failures(1), [192, 0, 2, 1].into());
        let mut waiting = Vec::new();
        while waiting.len() < WAITING {
            match failures.charge(eve) {
                Penalty::Wait(held_back) => waiting.push(held_back),
                penalty => assert_eq!(delay(&penalty), 0),
            }
        }
        let Penalty::Refuse(Error::RateLimited(limit, after)) = failures.charge(eve) else { panic!("too many wait") };
        assert_eq!((limit, after.seconds()), (Limit::IdentityFailures, 60));
        waiting.pop();
        assert_eq!(delay(&failures.charge(eve)), 8);
    }

    #[test]
    fn without_a_limit_no_refusal_waits() {
        let failures = failures(0);
        for _ in 0..100 {
            assert_eq!(delay(&failures.charge([192, 0, 2, 1].into())), 0);
        }
    }
}
