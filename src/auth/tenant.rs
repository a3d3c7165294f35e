//! Users inside their tenants: the addresses that the hub knows.

use std::{fmt, sync::Arc};

use crate::{
    error::Invalid,
    model::{DeviceId, TenantId, UserId},
};

/// A user in its tenant. Users with equal ids in two tenants are two users.
///
/// The hub knows users only as this type, and only [`Caller::reach`](super::Caller::reach) makes one. So no method of the hub can
/// forget the tenant, or whether the caller may reach the user.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantUser(
    /// `user`, or `tenant`, [`SEPARATOR`], `user`. One text and no second field: most daemons have no tenants, and then an
    /// idle stream pays nothing for them.
    Arc<str>,
);

/// One device of one user in its tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantAddress {
    /// The user.
    pub user: TenantUser,
    /// One of the user's devices.
    pub device: DeviceId,
}

/// Stands between a tenant and a user. No id has a control character.
const SEPARATOR: char = '\0';

impl TenantUser {
    pub(super) fn new(tenant: Option<&TenantId>, user: &UserId) -> Self {
        let Some(tenant) = tenant else { return Self(user.shared()) };
        Self(format!("{}{SEPARATOR}{}", tenant.as_str(), user.as_str()).into())
    }

    /// The text of [`TenantUser::as_text`], which another node sent: its `Caller::reach` made the value.
    ///
    /// # Errors
    /// When the text has no valid ids.
    pub fn from_node(text: &str) -> Result<Self, Invalid> {
        let user = match text.split_once(SEPARATOR) {
            Some((tenant, user)) => TenantId::new(tenant).map(|_| user)?,
            None => text,
        };
        UserId::new(user).map(|_| Self(text.into()))
    }

    /// Tenant and user as one text, for other nodes.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// The user's id, as it is shown to clients: without the tenant.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split_once(SEPARATOR).map_or(&*self.0, |(_, user)| user)
    }

    /// The tenant's id. `None`: users have no tenants.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.0.split_once(SEPARATOR).map(|(tenant, _)| tenant)
    }
}

impl fmt::Debug for TenantUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantUser").field("tenant", &self.tenant()).field("id", &self.id()).finish()
    }
}

#[cfg(test)]
impl TenantAddress {
    /// An address without a tenant, for tests of the hub.
    pub(crate) fn of(address: &crate::model::Address) -> Self {
        Self { user: TenantUser::new(None, &address.user), device: address.device.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_a_tenant_is_another_user_than_in_any_other_tenant_and_shows_only_its_id() {
        let user = |tenant: Option<&str>, id: &str| {
            TenantUser::new(tenant.map(|tenant| TenantId::new(tenant).unwrap()).as_ref(), &UserId::new(id).unwrap())
        };
        let users = [user(None, "bob"), user(Some("a"), "bob"), user(Some("b"), "bob"), user(Some("ab"), "ob")];
        assert_eq!(users.each_ref().map(TenantUser::id), ["bob", "bob", "bob", "ob"]);
        assert_eq!(users.each_ref().map(TenantUser::tenant), [None, Some("a"), Some("b"), Some("ab")]);
        for (index, user) in users.iter().enumerate() {
            assert!(!users[..index].contains(user), "{user:?}");
        }
    }

    #[test]
    fn without_tenants_a_user_is_the_text_of_its_id_and_no_copy() {
        let id = UserId::new("bob").unwrap();
        assert!(Arc::ptr_eq(&TenantUser::new(None, &id).0, &id.shared()));
    }
}
