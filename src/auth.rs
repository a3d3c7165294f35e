//! Identifies the caller of a request from its headers, its URI and the peer's IP address. Only this room can make a [`Caller`].

mod caller;
mod claim;
mod claims;
mod jwt;
mod key_set;
mod keys;
mod signatures;
mod ticket;
mod token_source;
mod tokens;
mod user_list;

use std::net::IpAddr;

use http::{HeaderMap, Uri};
use ipnet::IpNet;

pub use self::{
    caller::{Caller, Reach, Subscriber},
    claims::ClaimNames,
    key_set::{Expected, KeySet, Readers},
    keys::Keys,
    ticket::{Issued, Reservation, Tickets},
    tokens::Tokens,
    user_list::UserList,
};
use crate::{
    error::{Error, IdentityFault, Invalid},
    model::Address,
    telemetry::Metrics,
};

/// Where an identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A forward-auth proxy sets the claim header.
    Claim,
    /// A token that the daemon verifies itself.
    Jwt,
    /// Development: the path of a subscribe request names the caller. A claim names the caller of other requests.
    None,
}

/// How callers are identified, and which requests need an identity.
#[derive(Clone)]
pub struct Auth {
    /// Where an identity comes from.
    pub mode: Mode,
    /// Sending, listing and watching need an identity too, not only subscribing. [`Mode::Jwt`] implies this.
    pub require_all: bool,
    /// The claims that are read.
    pub claims: ClaimNames,
    /// What verifies tokens in [`Mode::Jwt`].
    pub tokens: Option<Tokens>,
    /// The only peers that may subscribe, send, list and watch in [`Mode::Claim`]. Empty: any peer may.
    pub trusted_proxies: Vec<IpNet>,
    /// Where identities that are not valid are counted.
    pub metrics: Metrics,
}

/// The parts of a request that can identify its caller.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The headers. Never trailers: a proxy that sets the claim header does not remove the client's own claim from trailers.
    pub headers: &'a HeaderMap,
    /// The URI, whose query can carry a token or a ticket of [`Mode::Jwt`].
    pub uri: &'a Uri,
    /// Whether the request asks for an event stream. Only then the query can carry a token or a ticket.
    pub is_stream_request: bool,
    /// The IP address of the TCP peer.
    pub peer: IpAddr,
}

impl Auth {
    /// Identifies the caller of a request to send, list or watch.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when an identity is required and absent, or present and not valid, or when the peer is not a
    /// trusted proxy.
    pub fn caller(&self, credentials: &Credentials<'_>) -> Result<Caller, Error> {
        let caller = self.identify(credentials)?;
        let anonymous_allowed = !self.require_all && self.mode != Mode::Jwt;
        if caller.user().is_some() || anonymous_allowed { Ok(caller) } else { Err(self.absent().into()) }
    }

    /// Issues a ticket for the caller that a token names. In every mode but [`Mode::Jwt`] there are no tickets.
    ///
    /// # Errors
    /// [`Error::NoRoute`] when there are no tickets; [`Error::Unauthenticated`] when there is no token, or it is not valid.
    pub fn issue_ticket(&self, credentials: &Credentials<'_>) -> Result<Issued, Error> {
        let tokens = self.tokens.as_ref().ok_or(Error::NoRoute)?;
        let issued = tokens.issue_ticket(credentials, &self.claims).inspect_err(|error| self.count(*error))?;
        issued.ok_or_else(|| self.absent().into())
    }

    /// Whether a call that only describes the service needs an identity too.
    #[must_use]
    pub fn guards_reflection(&self) -> bool {
        self.mode == Mode::Jwt
    }

    /// Takes the result of `identify`. If a key was unknown, waits until the keys were read again, and then identifies once more.
    ///
    /// # Errors
    /// Those of `identify`.
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
        identify().inspect_err(|error| {
            if *error == UNKNOWN_KEY {
                self.metrics.identity_refused();
            }
        })
    }

    /// Whether new keys may change the result of a check.
    #[must_use]
    pub fn waits_for_keys(&self, error: Error) -> bool {
        error == UNKNOWN_KEY || matches!(error, Error::NoKeys(_))
    }

    /// Identifies the caller of a subscribe request. `path` is the address in the request's path, if the path has one.
    ///
    /// # Errors
    /// As [`Auth::caller`]; the error in `path`; [`Error::Forbidden`] when path and identity name different addresses.
    pub fn subscriber(
        &self,
        credentials: &Credentials<'_>,
        path: Option<Result<Address, Error>>,
    ) -> Result<Subscriber, Error> {
        let caller = self.identify(credentials)?;
        if self.mode == Mode::None
            && let Some(path) = path
        {
            return Ok(Subscriber::of(path?, caller.ip()));
        }
        let user = caller.user().cloned().ok_or_else(|| self.absent())?;
        let device = caller.device().cloned().ok_or(Invalid::NoDevice)?;
        let address = Address { user, device };
        if let Some(path) = path
            && path? != address
        {
            return Err(Error::Forbidden);
        }
        Ok(Subscriber::new(caller, address))
    }

    /// The caller that the credentials name, or an anonymous one. Counts the identities that are not valid.
    fn identify(&self, credentials: &Credentials<'_>) -> Result<Caller, Error> {
        let ip = credentials.peer.to_canonical();
        let caller = match self.mode {
            Mode::Claim => self.check_peer(ip).and_then(|()| self.claimed(credentials, ip)).map_err(Error::from),
            Mode::None => self.claimed(credentials, ip).map_err(Error::from),
            Mode::Jwt => self.verified(credentials, ip),
        };
        caller.inspect_err(|error| self.count(*error))
    }

    fn claimed(&self, credentials: &Credentials<'_>, ip: IpAddr) -> Result<Caller, IdentityFault> {
        Ok(Caller::new(claim::read(credentials.headers, &self.claims)?, ip))
    }

    fn verified(&self, credentials: &Credentials<'_>, ip: IpAddr) -> Result<Caller, Error> {
        let tokens = self.tokens.as_ref().ok_or(Error::Internal)?;
        let identified = tokens.identify(credentials, &self.claims)?;
        Ok(identified.map_or_else(|| Caller::new(None, ip), |identified| Caller::identified(identified, ip)))
    }

    fn absent(&self) -> IdentityFault {
        if self.mode == Mode::Jwt { IdentityFault::NoToken } else { IdentityFault::Absent }
    }

    /// Counts an identity that is not valid. Not one with an unknown key: [`Auth::with_new_keys`] decides about that.
    fn count(&self, error: Error) {
        if error.is_failed_identity() && error != UNKNOWN_KEY {
            self.metrics.identity_refused();
        }
    }

    fn check_peer(&self, ip: IpAddr) -> Result<(), IdentityFault> {
        let trusted = self.trusted_proxies.is_empty() || self.trusted_proxies.iter().any(|net| net.contains(&ip));
        if trusted { Ok(()) } else { Err(IdentityFault::Untrusted) }
    }
}

const UNKNOWN_KEY: Error = Error::Unauthenticated(IdentityFault::UnknownKey);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn auth(mode: Mode) -> Auth {
        Auth {
            mode,
            require_all: false,
            claims: ClaimNames::default(),
            tokens: None,
            trusted_proxies: Vec::new(),
            metrics: Metrics::new(),
        }
    }

    /// The callers that [`Auth::caller`] and [`Auth::subscriber`] return for a request with this claim header.
    fn identified(auth: &Auth, claim: Option<&'static str>, path: Option<&str>) -> [Result<Caller, Error>; 2] {
        let mut headers = HeaderMap::new();
        headers.extend(claim.map(|claim| (claim::NAME, HeaderValue::from_static(claim))));
        let uri = Uri::from_static("/subscribe?user=eve&device=x&token=y");
        let peer = "::ffff:192.0.2.7".parse().unwrap();
        let credentials = Credentials { headers: &headers, uri: &uri, is_stream_request: true, peer };
        let path = path.map(|device| Ok(Address::new("bob", device).unwrap()));
        let subscriber = auth.subscriber(&credentials, path);
        let same = |subscriber: Subscriber| {
            assert_eq!(subscriber.caller().address().as_ref(), Some(subscriber.address()));
            subscriber.caller().clone()
        };
        [auth.caller(&credentials), subscriber.map(same)]
    }

    const CLAIM: Option<&str> = Some(r#"{"userid":"bob","clientid":"phone"}"#);
    const ABSENT: Error = Error::Unauthenticated(IdentityFault::Absent);

    #[test]
    fn a_claim_gives_user_and_device_and_the_peer_gives_the_ip_address() {
        let (auth, bob) = (auth(Mode::Claim), Address::new("bob", "phone").unwrap());
        for caller in identified(&auth, CLAIM, Some("phone")).map(Result::unwrap) {
            assert_eq!((caller.user(), caller.device()), (Some(&bob.user), Some(&bob.device)));
            assert_eq!((caller.tenant(), caller.reach(), caller.is_service()), (None, &Reach::Anyone, false));
            assert_eq!((caller.expires(), caller.ip().to_string().as_str()), (None, "192.0.2.7"));
        }
        let [anonymous, subscriber] = identified(&auth, None, None);
        assert_eq!((anonymous.unwrap().address(), subscriber.err()), (None, Some(ABSENT)));
    }

    #[test]
    fn with_auth_none_the_path_names_the_subscriber_before_the_claim() {
        let auth = auth(Mode::None);
        for (claim, path, subscriber) in
            [(None, Some("laptop"), "laptop"), (CLAIM, Some("laptop"), "laptop"), (CLAIM, None, "phone")]
        {
            let found = identified(&auth, claim, path)[1].as_ref().unwrap().address();
            assert_eq!(found, Some(Address::new("bob", subscriber).unwrap()));
        }
        assert_eq!(identified(&auth, None, None)[1].as_ref().err(), Some(&ABSENT));
    }
}
