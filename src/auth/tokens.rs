//! Identifies callers by tokens and tickets.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::value::RawValue;

use super::{
    Auth, Caller, Credentials, Mode, certificate, claim,
    claims::{ClaimNames, Claims},
    jwt::{self, LEEWAY, Verified},
    keys::Keys,
    ticket::{Issued, Tickets, Unused},
    token_source::{self, Bearer},
};
use crate::error::{Error, IdentityFault};

/// Verifies the tokens and tickets of requests.
#[derive(Clone)]
pub struct Tokens {
    /// The keys of whoever issues the tokens.
    pub keys: Arc<Keys>,
    /// What issues and verifies the tickets.
    pub tickets: Arc<Tickets>,
    /// The name of the cookie that may have the token.
    pub cookie: Option<String>,
}

/// What a caller keeps of its token.
pub(super) struct Token {
    pub(super) expires: SystemTime,
    /// The ticket, if the caller has one instead of a token. Opening a stream uses it up.
    pub(super) ticket: Option<Unused>,
}

/// A request for a ticket whose identity and shape were checked.
pub struct TicketRequest {
    token: Verified,
    caller: Caller,
}

impl Tokens {
    /// `None` when the request has neither a token nor a ticket.
    fn identify(&self, credentials: &Credentials<'_>, names: &ClaimNames) -> Result<Option<(Claims, Token)>, Error> {
        let Some(bearer) = token_source::find(credentials, self.cookie.as_deref())? else { return Ok(None) };
        let (Verified { claims, expires }, ticket) = match bearer {
            Bearer::Token(token) => (self.verify(&token, credentials.lasts)?, None),
            Bearer::Ticket(ticket) => {
                let (verified, unused) = self.tickets.verify(&ticket)?;
                (verified, Some(unused))
            }
        };
        Ok(Some((checked(&claims, names)?, Token { expires, ticket })))
    }

    /// The token of a request for a ticket, and what it says. `None` when the request has no token.
    fn of_ticket_request(
        &self,
        credentials: &Credentials<'_>,
        names: &ClaimNames,
    ) -> Result<Option<(Verified, Claims)>, Error> {
        match token_source::find(credentials, self.cookie.as_deref())? {
            Some(Bearer::Token(token)) => {
                let verified = self.verify(&token, LASTS)?;
                let claims = checked(&verified.claims, names)?;
                Ok(Some((verified, claims)))
            }
            // A ticket must not give a new ticket: otherwise one leaked URL would work until the token expires.
            Some(Bearer::Ticket(_)) | None => Ok(None),
        }
    }

    fn verify(&self, token: &[u8], lasts: bool) -> Result<Verified, Error> {
        let keys = self.keys.current().ok_or(Error::NO_KEYS)?;
        Ok(jwt::verify(token, &keys, if lasts { Duration::ZERO } else { LEEWAY })?)
    }
}

/// What a verified token or ticket says about its caller.
fn checked(claims: &RawValue, names: &ClaimNames) -> Result<Claims, IdentityFault> {
    let claims = names.read(claims.get().as_bytes()).ok_or_else(|| jwt::refuse("claims"))?;
    certificate::check_not_reserved(&claims.user)?;
    Ok(claims)
}

impl Auth {
    /// What the token of a request says.
    pub(super) fn verified(&self, credentials: &Credentials<'_>) -> Result<Option<(Claims, Token)>, Error> {
        self.tokens.as_ref().ok_or(Error::Internal)?.identify(credentials, &self.claims)
    }

    /// Whether the caller is identified by what a browser adds by itself, also to requests of pages of other sites: a cookie, or a
    /// client certificate. Not when the request has another identity, which comes first, valid or not.
    #[must_use]
    pub fn browser_identifies(&self, credentials: &Credentials<'_>) -> bool {
        let has_certificate = credentials.certificate.is_some();
        match (self.mode, &self.tokens) {
            (Mode::Claim, _) => has_certificate && claim::is_absent(credentials.headers),
            (Mode::Jwt, Some(tokens)) => {
                let has_cookie =
                    || tokens.cookie.as_deref().is_some_and(|name| token_source::has_cookie(credentials, name));
                token_source::is_cookie_next(credentials) && (has_certificate || has_cookie())
            }
            // Any page can name any user, so that the browser adds nothing.
            (Mode::Jwt | Mode::None, _) => false,
        }
    }

    /// Checks a request for a ticket. In every mode but [`Mode::Jwt`] there are no tickets.
    ///
    /// # Errors
    /// [`Error::NoTickets`]; [`Error::Unauthenticated`] when there is no token, or it is not valid; [`Error::Invalid`] as for
    /// [`Auth::caller`].
    pub fn ticket_request(&self, credentials: &Credentials<'_>) -> Result<TicketRequest, Error> {
        let tokens = self.tokens.as_ref().ok_or(Error::NoTickets)?;
        let asked = tokens.of_ticket_request(credentials, &self.claims).inspect_err(|error| self.count(*error))?;
        let (token, claims) = asked.ok_or(IdentityFault::NoToken)?;
        Ok(TicketRequest { token, caller: self.caller_with(Some(claims), credentials, None)? })
    }

    /// Issues a ticket for the caller that the token of a request names.
    ///
    /// # Errors
    /// As [`Caller::reach`] for the caller's own user: a ticket with which no stream can be opened is none.
    pub fn issue_ticket(&self, TicketRequest { token, caller }: &TicketRequest) -> Result<Issued, Error> {
        let tokens = self.tokens.as_ref().ok_or(Error::NoTickets)?;
        caller.user().map(|user| caller.reach(user)).transpose()?;
        tokens.tickets.issue(token, |claim| self.claims.contains(claim))
    }

    /// Whether a call that only describes the service needs an identity too.
    #[must_use]
    pub fn guards_reflection(&self) -> bool {
        self.mode == Mode::Jwt
    }

    /// Takes the result of `identify`. If its key was unknown, has the keys read again and calls `identify` once more.
    ///
    /// # Errors
    /// Those of `identify`. In a drain nobody reads keys: an unknown one is [`Error::Draining`].
    pub async fn with_new_keys<T>(
        &self,
        identified: Result<T, Error>,
        identify: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (Err(error), Some(tokens)) = (&identified, &self.tokens) else { return identified };
        if !self.waits_for_keys(*error) {
            return identified;
        }
        tokens.keys.read_again().await;
        match identify() {
            // The key may be a new one, which another server would read. A 401 would end an `EventSource` for good.
            Err(UNKNOWN_KEY) if tokens.keys.are_final() => Err(Error::DRAINING),
            Err(UNKNOWN_KEY) => {
                self.metrics.identity_refused();
                Err(UNKNOWN_KEY)
            }
            identified => identified,
        }
    }

    /// Whether the error may be gone when the keys have been read again.
    #[must_use]
    pub fn waits_for_keys(&self, error: Error) -> bool {
        self.tokens.is_some() && (error == UNKNOWN_KEY || matches!(error, Error::NoKeys(_)))
    }

    /// Counts an invalid identity, except one with an unknown key: [`Auth::with_new_keys`] counts that if new keys do not help.
    pub(super) fn count(&self, error: Error) {
        if error.is_refused_identity() && error != UNKNOWN_KEY {
            self.metrics.identity_refused();
        }
    }
}

/// A ticket opens a stream, and so its token has to be good for one.
const LASTS: bool = true;

const UNKNOWN_KEY: Error = Error::Unauthenticated(IdentityFault::UnknownKey);
