//! Identifies the caller of a request from its headers, its URI and the peer's IP address. Only this room can make a [`Caller`].

mod caller;
mod certificate;
mod challenge;
mod claim;
mod claims;
mod development_token;
mod jwt;
mod key_set;
mod keys;
mod named;
mod permission;
mod signatures;
mod tenant;
mod ticket;
mod token_source;
mod tokens;
mod used_tickets;
mod user_list;

use std::net::IpAddr;

use http::{HeaderMap, Uri};
use ipnet::IpNet;

pub use self::{
    caller::{Caller, CallerKey, Subscriber},
    claims::ClaimNames,
    development_token::development_token,
    key_set::{Expected, KeySet, Readers},
    keys::Keys,
    tenant::{TenantAddress, TenantUser},
    ticket::{Issued, Reservation, Tickets},
    tokens::{TicketRequest, Tokens},
    used_tickets::UsedTickets,
    user_list::UserList,
};
use self::{claims::Claims, named::Named, tokens::Token};
use crate::{
    error::{Error, IdentityFault, Invalid},
    model::Address,
    serve::ClientCertificate,
    telemetry::Metrics,
};

/// Where an identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A forward-auth proxy sets the claim header.
    Claim,
    /// A token that the daemon verifies itself.
    Jwt,
    /// For development: the path of a subscribe request or the query names the caller. If neither does, a claim may.
    None,
}

/// How callers are identified, and which requests need an identity.
#[derive(Clone)]
pub struct Auth {
    /// Where an identity comes from.
    pub mode: Mode,
    /// Sending, listing and watching need an identity too, not only subscribing. [`Mode::Jwt`] implies this.
    pub require_all: bool,
    /// TURN is configured: whoever asks for ICE servers needs an identity.
    pub require_for_ice: bool,
    /// The claims that are read.
    pub claims: ClaimNames,
    /// What verifies tokens in [`Mode::Jwt`].
    pub tokens: Option<Tokens>,
    /// The only peers that may subscribe, send, list and watch with [`Mode::Claim`]. Empty: any peer may.
    pub trusted_proxies: Vec<IpNet>,
    /// Where identities that are not valid are counted.
    pub metrics: Metrics,
}

/// The parts of a request that can identify its caller.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The headers. Never trailers: a proxy that sets the claim header does not remove the client's own claim from trailers.
    pub headers: &'a HeaderMap,
    /// The URI, whose query can name the device, and can carry a token or a ticket of [`Mode::Jwt`].
    pub uri: &'a Uri,
    /// Whether the request asks for an event stream. Only then the query can carry a token or a ticket.
    pub is_stream_request: bool,
    /// Whether the answer lasts until the token expires: a stream, a watch, or a call of gRPC with many messages. Its token must not
    /// have expired. Otherwise it would take a device over, and end at once.
    pub lasts: bool,
    /// The IP address of the TCP peer, which must be a trusted proxy if there are any.
    pub peer: IpAddr,
    /// The IP address of the client, which may stand behind proxies.
    pub client: IpAddr,
    /// The verified certificate of the TLS client. It counts when the request has no other identity.
    pub certificate: Option<&'a ClientCertificate>,
}

/// The claims of a valid identity, and the token that they come from, if any.
type Identity = (Claims, Option<Token>);

impl Auth {
    /// Identifies the caller of a request to send, list or watch.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when an identity is required and absent, or present and not valid, or when the peer is not a
    /// trusted proxy; [`Error::Invalid`] when an id that the request names is not valid, or when it names two devices. Whatever the
    /// identity does not allow is an error of [`Caller::reach`].
    pub fn caller(&self, credentials: &Credentials<'_>) -> Result<Caller, Error> {
        let needs_identity = self.require_all || self.mode == Mode::Jwt;
        self.named_caller(credentials, None, needs_identity)
    }

    /// Identifies the caller of a request for ICE servers.
    ///
    /// # Errors
    /// As [`Auth::caller`].
    pub fn ice_caller(&self, credentials: &Credentials<'_>) -> Result<Caller, Error> {
        let needs_identity = self.require_for_ice || self.require_all || self.mode == Mode::Jwt;
        self.named_caller(credentials, None, needs_identity)
    }

    /// Identifies the caller of a subscribe request. `path` is the address in the request's path, if the path has one.
    ///
    /// # Errors
    /// As [`Auth::caller`]; the error in `path`; [`Invalid::NoDevice`].
    pub fn subscriber(
        &self,
        credentials: &Credentials<'_>,
        path: Option<Result<Address, Error>>,
    ) -> Result<Subscriber, Error> {
        let caller = self.named_caller(credentials, path, true)?;
        let user = caller.user().cloned().ok_or_else(|| self.absent())?;
        let device = caller.device().cloned().ok_or(Invalid::NoDevice)?;
        Ok(Subscriber::new(caller, Address { user, device }))
    }

    /// The caller that the identity and the request name, or an anonymous one.
    fn named_caller(
        &self,
        credentials: &Credentials<'_>,
        path: Option<Result<Address, Error>>,
        needs_identity: bool,
    ) -> Result<Caller, Error> {
        let (claims, token) = self.identity(credentials)?.unzip();
        // Before the ids in the request are checked: a caller without an identity should get 401 and not 400.
        if needs_identity && claims.is_none() && self.mode != Mode::None {
            return Err(self.absent().into());
        }
        let caller = self.caller_with(claims, credentials, path)?.with_token(token.flatten());
        if needs_identity && caller.user().is_none() { Err(self.absent().into()) } else { Ok(caller) }
    }

    /// The caller with these claims, or an anonymous one, and with what the request names.
    fn caller_with(
        &self,
        claims: Option<Claims>,
        credentials: &Credentials<'_>,
        path: Option<Result<Address, Error>>,
    ) -> Result<Caller, Error> {
        let named = Named::read(credentials, self.mode, path.transpose()?, self.claims.tenant.is_some())?;
        self.check_named(&named, claims.as_ref()).inspect_err(|error| self.count(*error))?;
        Ok(self.caller_of(claims, named, credentials.client.to_canonical()))
    }

    /// The claims of the identity, if there is one, and the token that they come from. Counts the identities that are not valid.
    fn identity(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, Error> {
        self.identify(credentials).inspect_err(|error| self.count(*error))
    }

    fn identify(&self, credentials: &Credentials<'_>) -> Result<Option<Identity>, Error> {
        let trusted = match self.mode {
            Mode::Claim => self.check_peer(credentials.peer.to_canonical()),
            Mode::Jwt | Mode::None => Ok(()),
        };
        if credentials.certificate.is_none() {
            trusted?;
        }
        let identity = match self.mode {
            Mode::Claim | Mode::None => claim::read(credentials.headers, &self.claims)?.map(|claims| (claims, None)),
            Mode::Jwt => self.verified(credentials)?.map(|(claims, token)| (claims, Some(token))),
        };
        match (identity, credentials.certificate) {
            // From any peer: a certificate proves an identity without a proxy.
            (None, Some(certificate)) => Ok(Some((certificate::claims(certificate)?, None))),
            (None, None) => Ok(None),
            (Some(identity), _) => {
                trusted?;
                Ok(Some(identity))
            }
        }
    }

    /// With [`Mode::None`] a request may name any user, but not one that only a certificate can give: a backend may rely on those.
    fn check_named(&self, named: &Named, claims: Option<&Claims>) -> Result<(), Error> {
        match &named.user {
            Some(user) if self.mode == Mode::None && claims.is_none_or(|claims| claims.user != *user) => {
                Ok(certificate::check_not_reserved(user)?)
            }
            _ => Ok(()),
        }
    }

    fn absent(&self) -> IdentityFault {
        if self.mode == Mode::Jwt { IdentityFault::NoToken } else { IdentityFault::Absent }
    }

    fn check_peer(&self, ip: IpAddr) -> Result<(), IdentityFault> {
        // Only in this mode a proxy vouches for the caller. In the others a client proves its identity itself, or has none.
        let any = self.mode != Mode::Claim || self.trusted_proxies.is_empty();
        let trusted = any || self.trusted_proxies.iter().any(|net| net.contains(&ip));
        if trusted { Ok(()) } else { Err(IdentityFault::Untrusted) }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn auth(mode: Mode) -> Auth {
        Auth {
            mode,
            require_all: false,
            require_for_ice: false,
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
        let uri = Uri::from_static("/subscribe?token=y");
        let (peer, client) = ("192.0.2.200".parse().unwrap(), "::ffff:192.0.2.7".parse().unwrap());
        let (headers, uri, certificate) = (&headers, &uri, None);
        let credentials = Credentials { headers, uri, is_stream_request: true, lasts: true, peer, client, certificate };
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
            assert_eq!((caller.tenant(), caller.is_service()), (None, false));
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
