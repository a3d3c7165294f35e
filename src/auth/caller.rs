//! The results of an identity check: `Caller`, and `Subscriber`, which may receive the messages of one device.

use std::{net::IpAddr, time::SystemTime};

use super::{
    tenant::{TenantAddress, TenantUser},
    ticket::{Reservation, Unused},
    tokens::Token,
    user_list::UserList,
};
use crate::{
    error::Error,
    model::{Address, DeviceId, Sender, TenantId, UserId},
};

/// Proof that the identity of a request was checked. The hub's methods demand a `Caller`, so no route can forget the check.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) user: Option<UserId>,
    pub(super) device: Option<DeviceId>,
    /// The identity names the device, and not only the request.
    pub(super) bound: bool,
    /// The tenant of the users that the caller may reach; an error if it may reach nobody.
    pub(super) tenant: Result<Option<TenantId>, Error>,
    pub(super) reach: Reach,
    pub(super) service: bool,
    pub(super) expires: Option<SystemTime>,
    pub(super) ticket: Option<Unused>,
    pub(super) ip: IpAddr,
}

/// Which users of its tenant a caller may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every user.
    Anyone,
    /// The users in this list, and the caller itself.
    Listed(UserList),
}

/// Identifies a caller to the limits of what one caller may use: the user, and the device if the identity is bound to it. A device
/// that only the request names is not part of it: otherwise a caller could escape each limit by naming another device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerKey {
    user: TenantUser,
    device: Option<DeviceId>,
}

/// Proof that a caller may receive the messages of one device, if [`Subscriber::reach`] agrees.
#[derive(Clone, Debug)]
pub struct Subscriber {
    caller: Caller,
    address: Address,
}

impl Caller {
    /// Checks that the caller may send to, list and watch a user. Gives the user as the hub knows it.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when the request names another user, device or tenant than the identity; [`Error::NoTenant`];
    /// [`Error::NotListed`].
    pub fn reach(&self, user: &UserId) -> Result<TenantUser, Error> {
        let tenant = self.tenant.as_ref().map_err(|error| *error)?;
        let allowed = match &self.reach {
            Reach::Anyone => true,
            Reach::Listed(listed) => self.user.as_ref() == Some(user) || listed.contains(user),
        };
        if allowed { Ok(TenantUser::new(tenant.as_ref(), user)) } else { Err(Error::NotListed) }
    }

    /// The same caller, identified by a token or a ticket.
    pub(super) fn with_token(self, token: Option<Token>) -> Self {
        match token {
            Some(Token { expires, ticket }) => Self { expires: Some(expires), ticket, ..self },
            None => self,
        }
    }

    /// Like [`Caller::reach`], for one device of a user.
    ///
    /// # Errors
    /// As [`Caller::reach`].
    pub fn reach_device(&self, address: &Address) -> Result<TenantAddress, Error> {
        Ok(TenantAddress { user: self.reach(&address.user)?, device: address.device.clone() })
    }

    /// For limits of what one caller may use. `None` for a caller without such limits: an anonymous one, or a service.
    #[must_use]
    pub fn key(&self) -> Option<CallerKey> {
        let user = self.user.as_ref().filter(|_| !self.service)?;
        let user = TenantUser::new(self.tenant(), user);
        Some(CallerKey { user, device: self.bound_device().cloned() })
    }

    /// The device, if the identity names it. `None` if only the request names it: the next request may name another one.
    #[must_use]
    pub fn bound_device(&self) -> Option<&DeviceId> {
        self.device.as_ref().filter(|_| self.bound)
    }

    /// The user, or `None` for an anonymous caller.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// The device of the identity, else the one that the request names, if any.
    #[must_use]
    pub fn device(&self) -> Option<&DeviceId> {
        self.device.as_ref()
    }

    /// The user and the device, when both are known.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        Some(Address { user: self.user.clone()?, device: self.device.clone()? })
    }

    /// As the sender of a message. `None` for an anonymous caller.
    #[must_use]
    pub fn sender(&self) -> Option<Sender> {
        Some(Sender { user: self.user.clone()?, device: self.device.clone() })
    }

    /// The tenant of the users that the caller may reach. `None`: users have no tenants, or the caller may reach nobody.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref().ok()?.as_ref()
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

    /// Reserves the ticket with which the caller opens a stream, if it has one. Asks other nodes only about a ticket.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when another request has used the ticket; [`Error::TooMany`] when too many were used lately.
    pub async fn reserve_ticket(&self) -> Result<Reservation, Error> {
        Reservation::of(self.ticket.as_ref()).await
    }

    /// The IP address that the request came from. An IPv4-mapped IPv6 address is given as IPv4.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }
}

impl Subscriber {
    pub(super) fn new(caller: Caller, address: Address) -> Self {
        Self { caller, address }
    }

    /// The device, as the hub knows it.
    ///
    /// # Errors
    /// As [`Caller::reach`].
    pub fn reach(&self) -> Result<TenantAddress, Error> {
        self.caller.reach_device(&self.address)
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
        Self {
            user: None,
            device: None,
            bound: false,
            tenant: Ok(None),
            reach: Reach::Anyone,
            service: false,
            expires: None,
            ticket: None,
            ip: LOCALHOST,
        }
    }

    /// An identified device, for tests of the hub.
    pub(crate) fn proven(address: Address) -> Self {
        Self { user: Some(address.user), device: Some(address.device), bound: true, ..Self::anonymous() }
    }

    /// The same caller from another address, for tests of what depends on it.
    pub(crate) fn at(self, ip: &str) -> Self {
        Self { ip: ip.parse().expect("an address"), ..self }
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
        Self { caller: Caller::proven(address.clone()), address }
    }
}
