//! How many messages a caller may send in a second. A caller without an identity counts by its address.

use std::num::NonZeroU32;

use governor::Quota;

use super::{ClientAddresses, buckets::Buckets};
use crate::{
    auth::Caller,
    error::{Error, Limit},
};

/// The rates of all callers.
pub struct SendRates {
    callers: Option<Buckets>,
    /// The rates of addresses, and which addresses count.
    anonymous: Option<(Buckets, ClientAddresses)>,
}

impl SendRates {
    /// `caller`: messages a second of one caller. `anonymous`: messages a second of all anonymous callers of one address. 0:
    /// no limit.
    #[must_use]
    pub fn new(caller: u32, anonymous: u32, addresses: ClientAddresses) -> Self {
        let anonymous = buckets(anonymous, ANONYMOUS_BURST).map(|buckets| (buckets, addresses));
        Self { callers: buckets(caller, BURST), anonymous }
    }

    /// Any number of messages.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { callers: None, anonymous: None }
    }

    /// Counts one message of a caller, before the hub looks at its receiver. A broadcast is one message. A service has no limit.
    ///
    /// # Errors
    /// [`Error::RateLimited`] when the messages of the caller come too fast. Such a message does not count.
    pub fn admit(&self, caller: &Caller) -> Result<(), Error> {
        if caller.is_service() {
            return Ok(());
        }
        let (taken, limit) = match (caller.user(), &self.callers, &self.anonymous) {
            (Some(user), Some(callers), _) => {
                (callers.take((caller.tenant(), user, caller.bound_device())), Limit::SendRate)
            }
            (None, _, Some((buckets, addresses))) => match addresses.counted(caller.ip()) {
                Some(address) => (buckets.take(address), Limit::AnonymousSendRate),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        taken.map(drop).map_err(|after| Error::RateLimited(limit, after))
    }
}

fn buckets(per_second: u32, burst: u32) -> Option<Buckets> {
    let rate = NonZeroU32::new(per_second)?;
    let burst = NonZeroU32::new(burst.saturating_mul(per_second))?;
    Some(Buckets::new(Quota::per_second(rate).allow_burst(burst)))
}

/// How many seconds' worth of messages may come at once: an offer and its candidates are several dozen messages.
const BURST: u32 = 4;
/// The same for an address, which several people may share.
const ANONYMOUS_BURST: u32 = 5;

#[cfg(test)]
mod tests {
    use super::{
        super::{AddressScope, AddressSource},
        *,
    };
    use crate::model::Address;

    fn rates(caller: u32, anonymous: u32, scope: AddressScope) -> SendRates {
        SendRates::new(caller, anonymous, ClientAddresses::new(Vec::new(), AddressSource::XForwardedFor, scope))
    }

    fn admitted(rates: &SendRates, caller: &Caller) -> usize {
        (0..1_000).filter(|_| rates.admit(caller).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_has_four_seconds_of_its_rate_at_once_and_an_address_five() {
        let rates = rates(100, 20, AddressScope::All);
        for device in ["phone", "laptop"] {
            let caller = Caller::proven(Address::new("bob", device).unwrap());
            assert_eq!(admitted(&rates, &caller), 400, "{device}");
            let Err(Error::RateLimited(limit, after)) = rates.admit(&caller) else { panic!("too fast") };
            assert_eq!((limit, after.seconds()), (Limit::SendRate, 1));
        }
        assert_eq!(admitted(&rates, &Caller::anonymous()), 100);
        assert!(matches!(rates.admit(&Caller::anonymous()), Err(Error::RateLimited(Limit::AnonymousSendRate, _))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_has_no_limit() {
        let service = Caller::service(Address::new("backend", "1").unwrap());
        assert_eq!(admitted(&rates(1, 1, AddressScope::All), &service), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_highest_rate_that_the_options_allow_has_no_effect() {
        let rates = rates(u32::MAX, u32::MAX, AddressScope::All);
        assert_eq!(admitted(&rates, &Caller::anonymous()), 1_000);
        assert_eq!(admitted(&rates, &Caller::proven(Address::new("bob", "phone").unwrap())), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_and_for_an_address_that_does_not_count_any_number_is_admitted() {
        let bob = Caller::proven(Address::new("bob", "phone").unwrap());
        for rates in [rates(0, 0, AddressScope::All), rates(0, 20, AddressScope::Public), SendRates::unlimited()] {
            assert_eq!((admitted(&rates, &bob), admitted(&rates, &Caller::anonymous())), (1_000, 1_000));
        }
    }
}
