//! What the checks of an identity give: a caller, and a caller that may receive the messages of one device.

use std::{net::IpAddr, time::SystemTime};

use super::{
    Mode,
    claims::Claims,
    named::{Named, differ},
    ticket::{Reservation, Unused},
    tokens::Token,
    user_list::UserList,
};
use crate::{
    error::Error,
    model::{Address, DeviceId, Sender, TenantId, UserId},
};

/// Proof that the identity of a request was checked. The hub's methods demand a `Caller`, so no route can forget the check. The hub
/// does not check `tenant` and `reach` yet.
#[derive(Clone, Debug)]
pub struct Caller {
    user: Option<UserId>,
    device: Option<DeviceId>,
    tenant: Option<TenantId>,
    reach: Reach,
    service: bool,
    expires: Option<SystemTime>,
    ticket: Option<Unused>,
    ip: IpAddr,
}

/// The users that a caller may send to, list and watch. The hub does not check this yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every user.
    Anyone,
    /// The users in this list.
    Listed(UserList),
}

/// Proof that a caller may receive the messages of one device.
#[derive(Clone, Debug)]
pub struct Subscriber {
    caller: Caller,
    address: Address,
}

impl Caller {
    /// A caller with these claims, or an anonymous one. With [`Mode::None`] the name of a user in the request comes first: then the
    /// claims say nothing.
    pub(super) fn new(claims: Option<Claims>, named: Named, mode: Mode, ip: IpAddr) -> Result<Self, Error> {
        if mode == Mode::None
            && let Some(user) = named.user
        {
            return if named.contradicts { Err(Error::Forbidden) } else { Ok(Self::of(Some(user), named.device, ip)) };
        }
        let Some(claims) = claims else { return Ok(Self::of(None, None, ip)) };
        let Claims { user, device, tenant, listed, service } = claims;
        if named.user.is_some_and(|named| named != user) || (device.is_some() && differ(&device, &named.device)) {
            return Err(Error::Forbidden);
        }
        let reach = listed.map_or(Reach::Anyone, Reach::Listed);
        Ok(Self { tenant, reach, service, ..Self::of(Some(user), device.or(named.device), ip) })
    }

    /// The same caller, identified by a token or a ticket.
    pub(super) fn with_token(self, token: Option<Token>) -> Self {
        match token {
            Some(Token { expires, ticket }) => Self { expires: Some(expires), ticket, ..self },
            None => self,
        }
    }

    fn of(user: Option<UserId>, device: Option<DeviceId>, ip: IpAddr) -> Self {
        Self { user, device, tenant: None, reach: Reach::Anyone, service: false, expires: None, ticket: None, ip }
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

    /// The tenant that the user belongs to. `None`: users have no tenants.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
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

    /// Reserves the ticket with which the caller opens a stream, if it has one.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when another request has used the ticket; [`Error::TooMany`] when too many were used lately.
    pub fn reserve_ticket(&self) -> Result<Reservation, Error> {
        Reservation::of(self.ticket.as_ref())
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
        Self::of(None, None, LOCALHOST)
    }

    /// An identified device, for tests of the hub.
    pub(crate) fn proven(address: Address) -> Self {
        Self::of(Some(address.user), Some(address.device), LOCALHOST)
    }
}

#[cfg(test)]
impl Subscriber {
    /// An identified device, for tests of the hub.
    pub(crate) fn proven(address: Address) -> Self {
        Self { caller: Caller::proven(address.clone()), address }
    }
}
