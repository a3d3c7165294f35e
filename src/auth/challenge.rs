//! How a refused client can authenticate: the value of `WWW-Authenticate`, which every 401 must have (RFC 9110, section 11.6.1).

use http::{HeaderName, HeaderValue, header};

use super::{Auth, Mode};
use crate::error::{Error, IdentityFault};

impl Auth {
    /// The header for the answer to a request without a valid identity. `None` for any other error.
    #[must_use]
    pub fn challenge(&self, error: Error) -> Option<(HeaderName, HeaderValue)> {
        let Error::Unauthenticated(fault) = error else { return None };
        Some((header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge(self.mode, fault))))
    }
}

/// No registered scheme describes a header that a proxy sets, so the claim has a scheme of its own. Browsers ignore a scheme that they
/// do not know, and ask nobody for a password.
fn challenge(mode: Mode, fault: IdentityFault) -> &'static str {
    match (mode, fault) {
        (Mode::Claim | Mode::None, _) => r#"Claim realm="backend-signal""#,
        // A request without a token gets no `error` (RFC 6750, section 3.1).
        (
            Mode::Jwt,
            IdentityFault::Absent | IdentityFault::NoToken | IdentityFault::Untrusted | IdentityFault::Certificate,
        ) => r#"Bearer realm="backend-signal""#,
        (
            Mode::Jwt,
            IdentityFault::Malformed
            | IdentityFault::Ambiguous
            | IdentityFault::InvalidToken
            | IdentityFault::ExpiredToken
            | IdentityFault::AmbiguousToken
            | IdentityFault::UnknownKey
            | IdentityFault::SpentTicket
            | IdentityFault::Reserved,
        ) => r#"Bearer realm="backend-signal", error="invalid_token""#,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_not_valid_is_an_error_of_the_challenge_and_an_absent_one_is_not() {
        assert_eq!(challenge(Mode::Jwt, IdentityFault::NoToken), r#"Bearer realm="backend-signal""#);
        let refused = challenge(Mode::Jwt, IdentityFault::InvalidToken);
        assert_eq!(refused, r#"Bearer realm="backend-signal", error="invalid_token""#);
    }
}
