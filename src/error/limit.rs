//! The limits that one user, one caller, one address or all held messages can reach, by name.

use super::{Error, IdentityFault, RetryAfter};

/// A limit that was reached. Each is an option (but `UsedTickets`), a row of `docs/reference.md` and a value of the metrics label `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Devices of one user.
    UserDevices,
    /// Devices of one user that only hold messages.
    UserHeldDevices,
    /// Watches of one user's devices.
    UserWatchers,
    /// Watches of one caller.
    CallerWatches,
    /// Bytes of all messages and unread responses.
    MemoryBudget,
    /// Bytes of all held messages.
    HoldBudget,
    /// Messages that one caller sends in a second.
    SendRate,
    /// Messages that anonymous callers of one address send in a second.
    AnonymousSendRate,
    /// Identities of one address that are not valid, in a minute.
    IdentityFailures,
    /// Connections of one address.
    AddressConnections,
    /// Used tickets that are remembered. A constant and not an option.
    UsedTickets,
}

impl Limit {
    /// The name in metrics. It is that of the option, if there is one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UserDevices => "user_devices",
            Self::UserHeldDevices => "user_held_devices",
            Self::UserWatchers => "user_watchers",
            Self::CallerWatches => "caller_watches",
            Self::MemoryBudget => "memory_budget",
            Self::HoldBudget => "hold_budget",
            Self::SendRate => "send_rate",
            Self::AnonymousSendRate => "anonymous_send_rate",
            Self::IdentityFailures => "identity_failures",
            Self::AddressConnections => "address_connections",
            Self::UsedTickets => "used_tickets",
        }
    }

    /// The detail of [`Error::RateLimited`].
    pub(super) fn rate_detail(self) -> &'static str {
        match self {
            Self::AnonymousSendRate => {
                "Anonymous messages of this address come too fast (--anonymous-send-rate). Send with an identity, or try \
                 again later."
            }
            Self::IdentityFailures => {
                "Too many identities of this address were not valid (--identity-failures). Try again later."
            }
            _ => "The messages of this caller come too fast (--send-rate). Try again later.",
        }
    }
}

impl Error {
    /// [`Error::OverBudget`] of the memory budget. Nobody knows when devices will take their messages.
    pub const OVER_BUDGET: Self = Self::OverBudget(Limit::MemoryBudget, Self::LATER);
    /// [`Error::OverBudget`] of the budget for held messages.
    pub const OVER_HOLD_BUDGET: Self = Self::OverBudget(Limit::HoldBudget, Self::LATER);

    /// Nobody knows when a count or a budget has room again. Random, so that clients do not all try again at the same time.
    const LATER: RetryAfter = RetryAfter::between(2, 6);

    /// [`Error::TooMany`] for one limit.
    #[must_use]
    pub const fn too_many(limit: Limit) -> Self {
        Self::TooMany(limit, Self::LATER)
    }

    /// Whether somebody may be guessing identities. Not if the identity is absent, nor if the peer is not a trusted proxy: it
    /// was refused for its address.
    #[must_use]
    pub fn is_failed_identity(self) -> bool {
        self.is_refused_identity() && self != Self::Unauthenticated(IdentityFault::Untrusted)
    }

    /// The limit that was reached, if the error is about one of them.
    #[must_use]
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::TooMany(limit, _) | Self::RateLimited(limit, _) | Self::OverBudget(limit, _) => Some(limit),
            _ => None,
        }
    }
}
