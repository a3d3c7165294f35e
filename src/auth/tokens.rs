//! Identifies callers by tokens and tickets.

use std::{sync::Arc, time::SystemTime};

use super::{
    Credentials,
    claims::{ClaimNames, Claims},
    jwt::{self, Verified},
    keys::Keys,
    ticket::{Issued, Tickets, Unused},
    token_source::{self, Bearer},
};
use crate::error::{Error, IdentityFault};

/// What verifies the tokens of requests.
#[derive(Clone)]
pub struct Tokens {
    /// The keys of whoever issues the tokens.
    pub keys: Arc<Keys>,
    /// What issues and verifies the tickets.
    pub tickets: Arc<Tickets>,
    /// The name of the cookie that may have the token.
    pub cookie: Option<String>,
}

/// What a token or a ticket says.
pub(super) struct Identified {
    pub(super) claims: Claims,
    pub(super) expires: SystemTime,
    /// Opening a stream uses it up.
    pub(super) ticket: Option<Unused>,
}

impl Tokens {
    /// `None` when the request has neither a token nor a ticket.
    pub(super) fn identify(
        &self,
        credentials: &Credentials<'_>,
        names: &ClaimNames,
    ) -> Result<Option<Identified>, Error> {
        let Some(bearer) = token_source::find(credentials, self.cookie.as_deref())? else { return Ok(None) };
        let (Verified { claims, expires }, ticket) = match bearer {
            Bearer::Token(token) => (self.verify(&token)?, None),
            Bearer::Ticket(ticket) => {
                let (verified, unused) = self.tickets.verify(&ticket)?;
                (verified, Some(unused))
            }
        };
        let claims = names.read(claims.get().as_bytes()).ok_or(IdentityFault::InvalidToken)?;
        Ok(Some(Identified { claims, expires, ticket }))
    }

    /// A ticket for the caller that the token of a request names. `None` when the request has no token.
    pub(super) fn issue_ticket(
        &self,
        credentials: &Credentials<'_>,
        names: &ClaimNames,
    ) -> Result<Option<Issued>, Error> {
        match token_source::find(credentials, self.cookie.as_deref())? {
            Some(Bearer::Token(token)) => {
                let verified = self.verify(&token)?;
                names.read(verified.claims.get().as_bytes()).ok_or(IdentityFault::InvalidToken)?;
                self.tickets.issue(&verified, |claim| names.contains(claim)).map(Some)
            }
            // With a ticket for a ticket, one leaked URL would be good for ever.
            Some(Bearer::Ticket(_)) | None => Ok(None),
        }
    }

    fn verify(&self, token: &[u8]) -> Result<Verified, Error> {
        let keys = self.keys.current().ok_or(Error::NO_KEYS)?;
        Ok(jwt::verify(token, &keys)?)
    }
}
