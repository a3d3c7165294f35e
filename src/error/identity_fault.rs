//! What can be wrong with an identity.

use super::Error;

/// What is wrong with an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityFault {
    /// The request needs an identity and has none.
    Absent,
    /// The request needs a token and has none.
    NoToken,
    /// The identity cannot be parsed.
    Malformed,
    /// The request has more than one identity, or one under a look-alike name.
    Ambiguous,
    /// The peer is not a trusted proxy.
    Untrusted,
    /// The token or the ticket cannot be parsed, or its signature, audience, issuer or claims are not those that are expected.
    InvalidToken,
    /// The token has expired.
    ExpiredToken,
    /// The request has two tokens in the same place.
    AmbiguousToken,
    /// The token was signed with a key that the key set does not have.
    UnknownKey,
    /// The ticket was used, or is too old.
    SpentTicket,
    /// The client certificate does not say clearly whom it identifies.
    Certificate,
    /// A claim or a token names a user that only a client certificate may give.
    Reserved,
}

impl IdentityFault {
    /// Whether the metrics count the fault. They do not count an absent identity, nor the old ticket of a browser
    /// that reconnects.
    fn is_failure(self) -> bool {
        match self {
            Self::Absent | Self::NoToken | Self::SpentTicket => false,
            Self::Malformed
            | Self::Ambiguous
            | Self::Untrusted
            | Self::InvalidToken
            | Self::ExpiredToken
            | Self::AmbiguousToken
            | Self::UnknownKey
            | Self::Certificate
            | Self::Reserved => true,
        }
    }

    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Absent => {
                "This request needs an identity. A proxy gives one in the header X-User-Claim. With --auth none, the path \
                 of a subscribe request or the query parameters user and device give one."
            }
            Self::NoToken => {
                "This request needs a token, in the header Authorization: Bearer. An event stream may have it in ?token=, or a \
                 ticket in ?ticket=. The option --token-cookie names a cookie that may have it."
            }
            Self::Malformed => {
                "The identity is not valid. X-User-Claim must be a JSON object with a userid, and perhaps a clientid: strings or numbers, each \
                 once. The claim of --tenant-claim must be a string or a number, that of --allow an array of them, and that of \
                 --service-claim true or false."
            }
            Self::Ambiguous => {
                "The request has more than one X-User-Claim header, or a header with a similar name. The proxy must \
                 remove the client's own."
            }
            Self::Untrusted => "This server accepts requests only from the proxies in --trusted-proxies.",
            Self::InvalidToken => {
                "The token is not valid: its form, its signature, its times, its audience, its issuer, or the claims: those of user, \
                 device and tenant must be strings or numbers, that of --allow an array of them, that of --service-claim true or \
                 false. The log of the server says at debug which check failed. The first place that has a token decides: Authorization, ?ticket=, ?token=, the cookie."
            }
            Self::ExpiredToken => "The token has expired. Get a new one.",
            Self::AmbiguousToken => {
                "The request has two tokens in the same place: two headers Authorization: Bearer, two equal parameters, or two \
                 cookies of the same name."
            }
            Self::UnknownKey => "The token is signed with a key that is not in the key set of this server (--jwks).",
            Self::SpentTicket => {
                "The ticket was used, or is older than 30 s. Get a new one with POST /ticket, and open a new stream with it."
            }
            Self::Certificate => {
                "The subject of the client certificate must have exactly one common name (CN): not empty, at most 251 bytes, \
                 and without control characters."
            }
            Self::Reserved => "A user id that begins with `cert:` comes only from a client certificate.",
        }
    }
}

impl Error {
    /// Whether the request has an invalid identity, or comes from a peer that is not a trusted proxy.
    #[must_use]
    pub fn is_refused_identity(self) -> bool {
        matches!(self, Self::Unauthenticated(fault) if fault.is_failure())
    }
}

impl From<IdentityFault> for Error {
    fn from(fault: IdentityFault) -> Self {
        Self::Unauthenticated(fault)
    }
}
