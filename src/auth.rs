//! Headers and a peer's address in, a [`Caller`] out; the only room that can make one.

mod claim;

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use crate::{
    error::{Error, Unproven},
    model::Address,
};

/// Where an identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A forward-auth proxy sets the claim header.
    Claim,
    /// Development: the path of a subscribe names the caller.
    None,
}

/// Who may be taken at their word, and when a word is needed.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Where an identity comes from.
    pub mode: Mode,
    /// Every route needs an identity, not just subscribing.
    pub require_all: bool,
    /// Peers that may call at all; everybody when empty.
    pub trusted_proxies: Vec<IpNet>,
}

/// Proof that a request's identity was checked: a device, or nobody in particular where that is allowed.
#[derive(Clone, Debug)]
pub struct Caller(Option<Address>);

/// Proof that the caller may take this device's messages.
#[derive(Clone, Debug)]
pub struct Subscriber(Address);

impl Auth {
    /// Who sends, lists or watches.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when an identity is required and absent, or present and not valid, or the peer not trusted.
    pub fn caller(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, Error> {
        self.trust(peer)?;
        let address = claim::read(headers)?;
        if address.is_none() && self.require_all {
            return Err(Unproven::Absent.into());
        }
        Ok(Caller(address))
    }

    /// Who subscribes; `path` is the address in the request's path, if it has one.
    ///
    /// # Errors
    /// As [`Auth::caller`], and [`Error::Forbidden`] when the path is not the caller's own; a path that is no address keeps
    /// its error.
    pub fn subscriber(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        path: Option<Result<Address, Error>>,
    ) -> Result<Subscriber, Error> {
        self.trust(peer)?;
        let claimed = claim::read(headers)?;
        match (self.mode, claimed, path) {
            (Mode::None, _, Some(path)) => path.map(Subscriber),
            (_, None, _) => Err(Unproven::Absent.into()),
            (_, Some(claimed), None) => Ok(Subscriber(claimed)),
            (Mode::Claim, Some(claimed), Some(path)) => {
                if path? == claimed {
                    Ok(Subscriber(claimed))
                } else {
                    Err(Error::Forbidden)
                }
            }
        }
    }

    fn trust(&self, peer: IpAddr) -> Result<(), Unproven> {
        let peer = peer.to_canonical();
        let trusted = self.trusted_proxies.is_empty() || self.trusted_proxies.iter().any(|net| net.contains(&peer));
        if trusted { Ok(()) } else { Err(Unproven::Untrusted) }
    }
}

impl Caller {
    /// The caller's device, unless it is anonymous.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        self.0.as_ref()
    }
}

#[cfg(test)]
impl Caller {
    /// Nobody in particular, for tests of the hub.
    pub(crate) fn anonymous() -> Self {
        Self(None)
    }

    /// A device that proved who it is, for tests of the hub.
    pub(crate) fn proven(address: Address) -> Self {
        Self(Some(address))
    }
}

#[cfg(test)]
impl Subscriber {
    /// A device that proved who it is, for tests of the hub.
    pub(crate) fn proven(address: Address) -> Self {
        Self(address)
    }
}

impl Subscriber {
    /// The caller's device.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0
    }
}
