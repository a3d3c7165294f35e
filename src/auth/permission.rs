//! Makes a `Caller` from the claims of an identity and from the names in the request.

use std::net::IpAddr;

use super::{
    Auth, Mode,
    caller::{Caller, Reach},
    claims::Claims,
    named::{Named, differ},
    user_list::UserList,
};
use crate::{
    error::Error,
    model::{TenantId, UserId},
};

impl Auth {
    /// The caller with these claims, or an anonymous one. With [`Mode::None`] a user in the request wins, and then the
    /// claims are ignored.
    ///
    /// Never fails. [`Caller::reach`] later refuses what the identity does not allow, because the shape of the whole
    /// request is checked before permissions.
    pub(super) fn caller_of(&self, claims: Option<Claims>, named: Named, ip: IpAddr) -> Caller {
        let Named { user: named_user, device: named_device, tenant: named_tenant, contradicts } = named;
        let claims = match (&named_user, self.mode) {
            (Some(user), Mode::None) => Some(Claims::of(user.clone())),
            _ => claims,
        };
        let (user, bound, own_tenant, listed, service) = match claims {
            Some(Claims { user, device, tenant, listed, service }) => (Some(user), device, tenant, listed, service),
            None => (None, None, None, None, false),
        };
        let is_other =
            contradicts || differ(user.as_ref(), named_user.as_ref()) || differ(bound.as_ref(), named_device.as_ref());
        let tenant = if is_other { Err(Error::Forbidden) } else { self.tenant(own_tenant, named_tenant, service) };
        Caller {
            // A device without a user is nobody's.
            device: bound.clone().or(named_device).filter(|_| user.is_some()),
            user,
            bound: bound.is_some(),
            tenant,
            reach: self.reach(listed, service),
            service,
            expires: None,
            ticket: None,
            ip,
        }
    }

    /// The tenant of a caller. `None`: users have no tenants. Only a service that has no tenant may choose one.
    fn tenant(
        &self,
        own: Option<TenantId>,
        named: Option<TenantId>,
        is_service: bool,
    ) -> Result<Option<TenantId>, Error> {
        if self.claims.tenant.is_none() {
            return Ok(None);
        }
        if differ(own.as_ref(), named.as_ref()) {
            return Err(Error::Forbidden);
        }
        own.or(named.filter(|_| is_service)).map(Some).ok_or(Error::NoTenant)
    }

    fn reach(&self, listed: Option<UserList>, is_service: bool) -> Reach {
        // Without a list a caller reaches only itself.
        if self.claims.listed.is_none() || is_service {
            Reach::Anyone
        } else {
            Reach::Listed(listed.unwrap_or_default())
        }
    }
}

impl Claims {
    /// Claims that only name a user.
    fn of(user: UserId) -> Self {
        Self { user, device: None, tenant: None, listed: None, service: false }
    }
}
