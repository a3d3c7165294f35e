//! Decides from which address a request comes, behind trusted proxies too, and whether that address counts against limits.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::ValueEnum;
use http::{HeaderMap, header};
use ipnet::IpNet;

use super::{
    address_key::{AddressKey, is_public},
    forwarded::{self, X_FORWARDED_FOR},
};

/// Where a trusted proxy names the address of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AddressSource {
    /// The header X-Forwarded-For
    XForwardedFor,
    /// The header Forwarded (RFC 7239)
    Forwarded,
    /// A header of the PROXY protocol, version 2, before the first bytes of the connection
    ProxyProtocol,
}

/// Which addresses count against limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AddressScope {
    /// Not those of loopback, link-local, private and shared networks, nor of trusted proxies
    Public,
    /// Every address
    All,
}

/// A cheap handle to the rules.
#[derive(Clone, Debug)]
pub struct ClientAddresses(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    trusted: Vec<IpNet>,
    source: AddressSource,
    scope: AddressScope,
    /// Whether this process has already warned about an untrusted proxy. It warns once.
    warned: AtomicBool,
}

impl ClientAddresses {
    /// `trusted`: the networks of the proxies that are believed.
    #[must_use]
    pub fn new(trusted: Vec<IpNet>, source: AddressSource, scope: AddressScope) -> Self {
        Self(Arc::new(Rules { trusted, source, scope, warned: AtomicBool::new(false) }))
    }

    /// Whether proxies name their clients in the PROXY protocol.
    #[must_use]
    pub fn uses_proxy_protocol(&self) -> bool {
        self.0.source == AddressSource::ProxyProtocol
    }

    /// Whether a peer is a trusted proxy.
    #[must_use]
    pub fn is_trusted(&self, peer: IpAddr) -> bool {
        self.0.trusted.iter().any(|network| network.contains(&peer.to_canonical()))
    }

    /// The address that a request comes from. `client` is the address that its connection comes from: that of the TCP peer, or the
    /// one that a header of the PROXY protocol names.
    ///
    /// Reads the header of the trusted proxies from the right, to the first address that is not trusted. If all are trusted, takes
    /// the leftmost one. Stops before an entry that is no address: the client is unknown, so the last trusted proxy's address
    /// counts.
    #[must_use]
    pub fn of_request(&self, peer: IpAddr, client: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.is_trusted(peer) {
            self.warn_of_headers(peer, headers);
            return client;
        }
        match self.0.source {
            AddressSource::XForwardedFor => self.first_untrusted(client, forwarded::x_forwarded_for(headers)),
            AddressSource::Forwarded => self.first_untrusted(client, forwarded::forwarded(headers)),
            AddressSource::ProxyProtocol => client,
        }
    }

    fn first_untrusted(&self, peer: IpAddr, mut from_right: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut last = peer;
        while let Some(Some(address)) = from_right.next() {
            last = address.to_canonical();
            if !self.is_trusted(last) {
                break;
            }
        }
        last
    }

    /// The key under which an address counts against limits. `None`: it does not count.
    #[must_use]
    pub fn counted(&self, address: IpAddr) -> Option<AddressKey> {
        let counts = match self.0.scope {
            AddressScope::All => true,
            AddressScope::Public => is_public(address) && !self.is_trusted(address),
        };
        counts.then(|| AddressKey::of(address))
    }

    /// Warns that the connection of an untrusted peer is closed, because it begins with a header of the PROXY protocol.
    pub fn warn_of_closed(&self, peer: IpAddr) {
        self.warn_untrusted(peer, "a header of the PROXY protocol", "closes its connection");
    }

    /// Warns once in this process that an untrusted peer names a client: a proxy that is not in the option, or a client that
    /// hopes to be believed.
    fn warn_untrusted(&self, peer: IpAddr, what: &'static str, effect: &'static str) {
        if !self.0.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "{what} from a peer that is not in --trusted-proxies {effect}; if the peer is your proxy, list it (this is said once)"
            );
        }
    }

    fn warn_of_headers(&self, peer: IpAddr, headers: &HeaderMap) {
        if self.0.warned.load(Ordering::Relaxed) {
            return;
        }
        if headers.contains_key(X_FORWARDED_FOR) {
            self.warn_untrusted(peer, "X-Forwarded-For", IGNORED);
        } else if headers.contains_key(header::FORWARDED) {
            self.warn_untrusted(peer, "Forwarded", IGNORED);
        }
    }
}

/// The effect of a header of HTTP.
const IGNORED: &str = "is ignored";

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn rules(source: AddressSource, scope: AddressScope) -> ClientAddresses {
        let trusted = ["10.0.0.0/8", "203.0.113.7/32", "fd00::/8"].map(|network| network.parse().unwrap());
        ClientAddresses::new(trusted.to_vec(), source, scope)
    }

    #[test]
    fn the_first_address_from_the_right_that_is_not_trusted_is_the_clients() {
        for (peer, header, client) in [
            ("10.0.0.1", None, "10.0.0.1"),
            ("10.0.0.1", Some("192.0.2.1"), "192.0.2.1"),
            ("10.0.0.1", Some("198.51.100.9, 192.0.2.1"), "192.0.2.1"),
            ("10.0.0.1", Some("198.51.100.9, 192.0.2.1, 203.0.113.7, fd00::1"), "192.0.2.1"),
            ("10.0.0.1", Some("192.0.2.1, ::ffff:10.9.9.9"), "192.0.2.1"),
            ("10.0.0.1", Some("10.0.0.3, 10.0.0.2"), "10.0.0.3"),
            ("10.0.0.1", Some("192.0.2.1, unknown, 10.0.0.2"), "10.0.0.2"),
            ("10.0.0.1", Some("192.0.2.1, unknown"), "10.0.0.1"),
            ("::ffff:10.0.0.1", Some("192.0.2.1"), "192.0.2.1"),
            ("10.0.0.1", Some("::ffff:192.0.2.1"), "192.0.2.1"),
            ("192.0.2.8", Some("192.0.2.1"), "192.0.2.8"),
            ("192.0.2.8", Some("10.0.0.1"), "192.0.2.8"),
        ] {
            for (source, other) in
                [(AddressSource::XForwardedFor, "forwarded"), (AddressSource::Forwarded, "x-forwarded-for")]
            {
                let is_forwarded = source == AddressSource::Forwarded;
                let name = if is_forwarded { "forwarded" } else { "x-forwarded-for" };
                let mut headers = HeaderMap::new();
                let nodes = |text: &str| text.split(", ").map(|node| format!(r#"for="{node}""#)).collect::<Vec<_>>();
                let value = header.map(|text| if is_forwarded { nodes(text).join(", ") } else { text.to_owned() });
                if let Some(value) = value {
                    headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
                }
                // Only one of them is read.
                headers.insert(HeaderName::from_static(other), HeaderValue::from_static("198.51.100.66"));
                let rules = rules(source, AddressScope::Public);
                let found = rules.of_request(ip(peer), ip(peer), &headers);
                assert_eq!(found.to_canonical(), ip(client), "{peer} {header:?} {source:?}");
            }
        }
    }

    #[test]
    fn with_the_proxy_protocol_no_header_is_read() {
        let rules = rules(AddressSource::ProxyProtocol, AddressScope::Public);
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("198.51.100.66"));
        assert_eq!(rules.of_request(ip("10.0.0.1"), ip("192.0.2.1"), &headers), ip("192.0.2.1"));
    }

    #[test]
    fn private_addresses_and_trusted_proxies_count_only_with_all() {
        for (address, public) in [("192.0.2.1", true), ("127.0.0.1", false), ("fd00::1", false), ("203.0.113.7", false)]
        {
            for (scope, counts) in [(AddressScope::Public, public), (AddressScope::All, true)] {
                let rules = rules(AddressSource::XForwardedFor, scope);
                assert_eq!(rules.counted(ip(address)).is_some(), counts, "{address} {scope:?}");
            }
        }
    }
}
