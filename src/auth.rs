//! Identifies the caller of a request from its headers, its URI and the peer's IP address. Only this room can make a [`Caller`].

mod claim;

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::SystemTime};

use http::{HeaderMap, Uri};
use ipnet::IpNet;

use crate::{
    error::{Error, IdentityFault},
    model::{Address, DeviceId, UserId},
    telemetry::Metrics,
};

/// Where an identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A forward-auth proxy sets the claim header.
    Claim,
    /// A token that the daemon verifies itself. Not implemented: no request has an identity, and the daemon does not start in this
    /// mode.
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
    /// The only peers that may subscribe, send, list and watch with [`Mode::Claim`]. Empty: any peer may.
    pub trusted_proxies: Vec<IpNet>,
    /// Where identities that are not valid are counted.
    pub metrics: Metrics,
}

/// The parts of a request that can identify its caller.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The headers. Never trailers: a proxy that sets the claim header does not remove the client's own claim from trailers.
    pub headers: &'a HeaderMap,
    /// The URI, whose query can carry a token of [`Mode::Jwt`]. No mode reads it yet.
    pub uri: &'a Uri,
    /// The IP address of the TCP peer, which must be a trusted proxy if there are any.
    pub peer: IpAddr,
    /// The IP address of the client, which may stand behind proxies.
    pub client: IpAddr,
}

/// Proof that the identity of a request was checked. The hub's methods demand a `Caller`, so no route can forget the check. No mode
/// sets `tenant`, `reach`, `service` and `expires` yet; a token will.
#[derive(Clone, Debug)]
pub struct Caller {
    user: Option<UserId>,
    device: Option<DeviceId>,
    tenant: Option<Arc<str>>,
    reach: Reach,
    service: bool,
    expires: Option<SystemTime>,
    ip: IpAddr,
}

/// The users that a caller may send to, list and watch. Only a token will limit them, and the hub does not check this yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every user.
    Anyone,
    /// The users in this set.
    Listed(Arc<HashSet<UserId>>),
}

/// Proof that a caller may receive the messages of one device.
#[derive(Clone, Debug)]
pub struct Subscriber {
    caller: Caller,
    address: Address,
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
        if caller.user.is_some() || anonymous_allowed { Ok(caller) } else { Err(IdentityFault::Absent.into()) }
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
            return Ok(Subscriber::of(path?, caller.ip));
        }
        let address = caller.address().ok_or(IdentityFault::Absent)?;
        if let Some(path) = path
            && path? != address
        {
            return Err(Error::Forbidden);
        }
        Ok(Subscriber { caller, address })
    }

    /// The caller that the credentials name, or an anonymous one. Counts the identities that are not valid.
    fn identify(&self, credentials: &Credentials<'_>) -> Result<Caller, IdentityFault> {
        let address = self.check_peer(credentials.peer.to_canonical()).and_then(|()| match self.mode {
            Mode::Claim | Mode::None => claim::read(credentials.headers),
            Mode::Jwt => Ok(None),
        });
        Ok(Caller::new(address.inspect_err(|_| self.metrics.identity_refused())?, credentials.client.to_canonical()))
    }

    fn check_peer(&self, ip: IpAddr) -> Result<(), IdentityFault> {
        // In the other modes a client proves its identity itself, or has none.
        let any = self.mode != Mode::Claim || self.trusted_proxies.is_empty();
        let trusted = any || self.trusted_proxies.iter().any(|net| net.contains(&ip));
        if trusted { Ok(()) } else { Err(IdentityFault::Untrusted) }
    }
}

impl Caller {
    fn new(address: Option<Address>, ip: IpAddr) -> Self {
        let (user, device) = address.map(|address| (address.user, address.device)).unzip();
        Self { user, device, tenant: None, reach: Reach::Anyone, service: false, expires: None, ip }
    }

    /// The user, or `None` for an anonymous caller.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// The device of the identity, if the identity names one.
    #[must_use]
    pub fn device(&self) -> Option<&DeviceId> {
        self.device.as_ref()
    }

    /// The user and the device, when both are known.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        Some(Address { user: self.user.clone()?, device: self.device.clone()? })
    }

    /// The tenant that the user belongs to. `None`: users have no tenants.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The users that this caller may reach, besides itself.
    #[must_use]
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Whether the caller is a backend service and not a person's device.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.service
    }

    /// When the identity expires. `None`: never.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// The IP address of the client, which may stand behind proxies. An IPv4-mapped IPv6 address is given as IPv4.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }
}

impl Subscriber {
    fn of(address: Address, ip: IpAddr) -> Self {
        Self { caller: Caller::new(Some(address.clone()), ip), address }
    }

    /// Who subscribes.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The device whose messages the caller may receive.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

#[cfg(test)]
const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[cfg(test)]
impl Caller {
    /// An anonymous caller, for tests of the hub.
    pub(crate) fn anonymous() -> Self {
        Self::new(None, LOCALHOST)
    }

    /// An identified device, for tests of the hub.
    pub(crate) fn proven(address: Address) -> Self {
        Self::new(Some(address), LOCALHOST)
    }

    /// A backend service, for tests of limits.
    pub(crate) fn service(address: Address) -> Self {
        Self { service: true, ..Self::proven(address) }
    }
}

#[cfg(test)]
impl Subscriber {
    /// An identified device, for tests of the hub.
    pub(crate) fn proven(address: Address) -> Self {
        Self::of(address, LOCALHOST)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn auth(mode: Mode) -> Auth {
        Auth { mode, require_all: false, trusted_proxies: Vec::new(), metrics: Metrics::new() }
    }

    /// The callers that [`Auth::caller`] and [`Auth::subscriber`] return for a request with this claim header.
    fn identified(auth: &Auth, claim: Option<&'static str>, path: Option<&str>) -> [Result<Caller, Error>; 2] {
        let mut headers = HeaderMap::new();
        headers.extend(claim.map(|claim| (claim::NAME, HeaderValue::from_static(claim))));
        let uri = Uri::from_static("/subscribe?user=eve&device=x&token=y");
        let proxy = "192.0.2.200".parse().unwrap();
        let credentials =
            Credentials { headers: &headers, uri: &uri, peer: proxy, client: "::ffff:192.0.2.7".parse().unwrap() };
        let path = path.map(|device| Ok(Address::new("bob", device).unwrap()));
        let subscriber = auth.subscriber(&credentials, path);
        let same = |subscriber: Subscriber| {
            assert_eq!(subscriber.caller().address().as_ref(), Some(subscriber.address()));
            subscriber.caller
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

    #[test]
    fn with_tokens_the_claim_header_is_not_read_and_no_request_has_an_identity() {
        let auth = auth(Mode::Jwt);
        for claim in [None, CLAIM, Some("no claim")] {
            for path in [None, Some("phone")] {
                let errors = identified(&auth, claim, path).map(Result::err);
                assert_eq!(errors, [Some(ABSENT); 2], "{claim:?} {path:?}");
            }
        }
    }
}
