//! Everything that can go wrong, as one enum without status codes. Each protocol has one table from an error to its own code.

mod identity_fault;
mod invalid;
mod limit;
mod retry_after;

pub use self::{identity_fault::IdentityFault, invalid::Invalid, limit::Limit, retry_after::RetryAfter};

/// Why a request was refused, or a message not accepted.
///
/// An error holds no input of the request, so an answer or a log line that shows the error cannot repeat input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request has the wrong shape.
    Invalid(Invalid),
    /// The request needs an identity and has none, or its identity is not valid.
    Unauthenticated(IdentityFault),
    /// The identity is valid, but the request names another user, device or tenant.
    Forbidden,
    /// Users live inside tenants, and the caller has none.
    NoTenant,
    /// The identity does not list the user among those that the caller may reach.
    NotListed,
    /// A page of another site made the request, and that site may not act for its visitors.
    CrossSite,
    /// The device has no live stream, and the message was not held.
    NotConnected,
    /// Neither STUN nor TURN servers are configured.
    NoIceServers,
    /// No route has this path.
    NoRoute,
    /// A ticket is asked for, and this server has none: it verifies no tokens.
    NoTickets,
    /// The route does not have this method.
    MethodNotAllowed,
    /// The body or the message is over the size limit.
    TooLarge,
    /// The content type or the content encoding of the body is not supported.
    UnsupportedMedia,
    /// The transfer coding of the body is not supported.
    UnsupportedCoding,
    /// The client does not read the responses of a call, whose unread requests hold up the rest of its connection.
    UnreadResponses,
    /// The client waits for `100 Continue`, which this server cannot send over HTTP/2.
    ExpectationFailed,
    /// The request did not arrive in time.
    SlowRequest,
    /// The device's mailbox has no capacity for another message that waits for the device.
    MailboxFull(RetryAfter),
    /// A count is at its limit: devices or watches of a user, watches of a caller, or the used tickets that are remembered.
    TooMany(Limit, RetryAfter),
    /// The caller or the address exceeds a rate.
    RateLimited(Limit, RetryAfter),
    /// This node is stopping and accepts no new work.
    Draining(RetryAfter),
    /// The server has reached the limit for connections.
    TooManyConnections(RetryAfter),
    /// The memory budget for messages, or the budget for held messages, is used up.
    OverBudget(Limit, RetryAfter),
    /// This node cannot find out where the device is connected.
    Unreachable(RetryAfter),
    /// The keys of tokens could not be read, or are too old.
    NoKeys(RetryAfter),
    /// The node to which the device is connected did not answer in time. The message may or may not have been accepted.
    UnknownOutcome,
    /// A newer stream of the same device is connected. The client should not reconnect.
    Superseded,
    /// A fault of this server.
    Internal,
}

impl Error {
    /// [`Error::MailboxFull`]. A device that reads empties its mailbox within a second.
    pub const MAILBOX_FULL: Self = Self::MailboxFull(RetryAfter::exactly(1));
    /// [`Error::Draining`]. By then, another node or the next process should answer.
    pub const DRAINING: Self = Self::Draining(RetryAfter::exactly(5));
    /// [`Error::TooManyConnections`]. Nothing says when a connection closes.
    pub const TOO_MANY_CONNECTIONS: Self = Self::TooManyConnections(RetryAfter::exactly(5));
    /// [`Error::Unreachable`]. By then, the other nodes answer or are known to be gone.
    pub const UNREACHABLE: Self = Self::Unreachable(RetryAfter::exactly(5));
    /// [`Error::NoKeys`]. Nothing says when the key set can be read again.
    pub const NO_KEYS: Self = Self::NoKeys(RetryAfter::exactly(5));

    /// When it is worth trying again, for an error that passes by itself.
    #[must_use]
    pub fn retry_after(self) -> Option<RetryAfter> {
        match self {
            Self::MailboxFull(after)
            | Self::TooMany(_, after)
            | Self::RateLimited(_, after)
            | Self::Draining(after)
            | Self::TooManyConnections(after)
            | Self::OverBudget(_, after)
            | Self::Unreachable(after)
            | Self::NoKeys(after) => Some(after),
            Self::Invalid(_)
            | Self::Unauthenticated(_)
            | Self::Forbidden
            | Self::NoTenant
            | Self::NotListed
            | Self::CrossSite
            | Self::NotConnected
            | Self::NoIceServers
            | Self::NoRoute
            | Self::NoTickets
            | Self::MethodNotAllowed
            | Self::TooLarge
            | Self::UnsupportedMedia
            | Self::UnsupportedCoding
            | Self::ExpectationFailed
            | Self::UnreadResponses
            | Self::SlowRequest
            | Self::UnknownOutcome
            | Self::Superseded
            | Self::Internal => None,
        }
    }

    /// A stable, machine-readable name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid(part) => part.code(),
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Forbidden | Self::NoTenant | Self::NotListed => "forbidden",
            Self::CrossSite => "cross_site",
            Self::NotConnected => "not_connected",
            Self::NoIceServers => "no_ice_servers",
            Self::NoRoute | Self::NoTickets => "no_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media_type",
            Self::UnsupportedCoding => "unsupported_coding",
            Self::ExpectationFailed => "expectation_failed",
            Self::UnreadResponses => "unread_responses",
            Self::SlowRequest => "request_timeout",
            Self::MailboxFull(_) => "mailbox_full",
            Self::TooMany(..) => "too_many",
            Self::RateLimited(..) => "rate_limited",
            Self::Draining(_) => "draining",
            Self::TooManyConnections(_) => "no_place",
            Self::OverBudget(..) => "over_memory_budget",
            Self::Unreachable(_) => "unreachable",
            Self::NoKeys(_) => "no_keys",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Superseded => "superseded",
            Self::Internal => "internal",
        }
    }

    /// What a person should know: always the same text for the same error.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Invalid(part) => part.detail(),
            Self::Unauthenticated(fault) => fault.detail(),
            Self::Forbidden => {
                "The identity is valid, but the request names another user, device or tenant. Name your own, or none."
            }
            Self::NoTenant => {
                "The caller has no tenant (--tenant-claim). An identity names one; a service may name one in the header \
                 X-Signal-Tenant."
            }
            Self::NotListed => "The caller may reach only itself and the users that its identity lists (--allow).",
            Self::CrossSite => {
                "A page of another site made the request, or may have made it. To allow that site, list its origin in \
                 --cors-origins. To open a stream with a cookie or a client certificate, send Accept: text/event-stream."
            }
            Self::NotConnected => "Not connected. Send a TTL to have a message to one device held.",
            Self::NoIceServers => "This server names no STUN or TURN servers (--stun, --turn).",
            Self::NoRoute => "No route has this path.",
            Self::NoTickets => {
                "This server gives no tickets. A ticket stands for a token, and only with --auth jwt the server verifies tokens."
            }
            Self::MethodNotAllowed => "This path does not have this method. The header Allow lists its methods.",
            Self::TooLarge => "The request is larger than the limit of this server (--body-limit).",
            Self::UnsupportedMedia => {
                "Send the body as application/json or application/x-www-form-urlencoded, without a content encoding. \
                 On a gRPC path, send a POST of application/grpc over HTTP/2, or of application/grpc-web."
            }
            Self::UnsupportedCoding => "The only supported transfer coding is chunked, applied once.",
            Self::UnreadResponses => {
                "The responses of this call were not read, and its requests held up the other calls of the connection."
            }
            Self::ExpectationFailed => {
                "Over HTTP/2 this server does not send 100 Continue. Repeat the request without the header Expect."
            }
            Self::SlowRequest => "The request did not arrive in time.",
            Self::MailboxFull(_) => "Too many messages wait for the device. Try again later.",
            Self::RateLimited(limit, _) => limit.rate_detail(),
            Self::TooMany(..) => {
                "The user or the caller has reached the limit for devices or watches. Try again later."
            }
            Self::Draining(_) => {
                "This server is stopping and accepts no new work. Try another server, or try again later."
            }
            Self::TooManyConnections(_) => "This server has reached its limit for connections. Try again later.",
            Self::OverBudget(..) => {
                "This server has reached its memory budget for messages, or for held messages. Try again later."
            }
            Self::Unreachable(_) => "This server cannot find out where the device is connected. Try again later.",
            Self::NoKeys(_) => "This server cannot read the keys that tokens are verified with. Try again later.",
            Self::UnknownOutcome => {
                "The server to which the device is connected did not answer in time. The message may or may not have been \
                 accepted. It is safe to repeat it if it had an Idempotency-Key."
            }
            Self::Superseded => "A newer stream of the same device is connected. Do not reconnect.",
            Self::Internal => "The server failed. Its log has the cause.",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Error {}

impl From<Invalid> for Error {
    fn from(part: Invalid) -> Self {
        Self::Invalid(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_when_to_try_again_and_a_range_differs_from_answer_to_answer() {
        let exact = [Error::MAILBOX_FULL, Error::DRAINING, Error::TOO_MANY_CONNECTIONS, Error::UNREACHABLE];
        let seconds = exact.map(|error| error.retry_after().map(RetryAfter::seconds));
        assert_eq!(seconds, [Some(1), Some(5), Some(5), Some(5)]);
        for error in [Error::too_many(Limit::UserDevices), Error::OVER_BUDGET, Error::OVER_HOLD_BUDGET] {
            let counts: std::collections::BTreeSet<_> =
                (0..1_000).filter_map(|_| Some(error.retry_after()?.seconds())).collect();
            assert_eq!(counts.into_iter().collect::<Vec<_>>(), [2, 3, 4, 5, 6], "{error:?}");
        }
        let rate = Error::RateLimited(Limit::SendRate, RetryAfter::exactly(17));
        assert_eq!(rate.retry_after().map(RetryAfter::seconds), Some(17));
        assert_eq!(Error::NotConnected.retry_after(), None);
    }
}
