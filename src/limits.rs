//! Rates and counts by caller and by address, and the address that a request comes from.
//!
//! `client_address` finds the address of a client behind proxies, with `forwarded` for their headers, and says whether the address
//! counts; `address_key` is what counts: an IPv4 address or an IPv6 network. `send_rates` and `identity_failures` are rates: their
//! token buckets stand in `buckets`. `address_counts` counts what exists at the same time, such as connections.

mod address_counts;
mod address_key;
mod buckets;
mod client_address;
mod forwarded;
mod identity_failures;
mod send_rates;

pub use self::{
    address_counts::{AddressCounts, Counted},
    address_key::AddressKey,
    client_address::{AddressScope, AddressSource, ClientAddresses},
    identity_failures::{HeldBack, IdentityFailures, Penalty},
    send_rates::SendRates,
};
