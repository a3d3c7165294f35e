//! Reads a JSON object of claims. The object comes from the claim header (`claim.rs`) or from a token (`jwt.rs`).

use serde_json::value::RawValue;

use super::user_list::UserList;
use crate::{
    json::{self, Malformed},
    model::{DeviceId, TenantId, UserId},
};

/// The names of the claims that the daemon reads. It ignores all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    /// Names the user.
    pub user: String,
    /// Names the user if the claim in `user` is absent.
    pub user_fallback: Option<String>,
    /// Names the device that the caller is bound to.
    pub device: String,
    /// Names the tenant of the user.
    pub tenant: Option<String>,
    /// Lists the users that the caller may reach.
    pub listed: Option<String>,
    /// Says whether the caller is a service.
    pub service: Option<String>,
}

/// Claims of the right shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) user: UserId,
    pub(super) device: Option<DeviceId>,
    pub(super) tenant: Option<TenantId>,
    pub(super) listed: Option<UserList>,
    pub(super) service: bool,
}

impl Default for ClaimNames {
    /// The names of the claim header.
    fn default() -> Self {
        let (user, device) = ("userid".to_owned(), "clientid".to_owned());
        Self { user, user_fallback: None, device, tenant: None, listed: None, service: None }
    }
}

impl ClaimNames {
    /// Whether a claim of this name is read.
    pub(super) fn contains(&self, claim: &str) -> bool {
        let Self { user, user_fallback, device, tenant, listed, service } = self;
        let optional = [user_fallback, tenant, listed, service].into_iter().flatten();
        [user, device].into_iter().chain(optional).any(|name| name == claim)
    }

    /// Reads the claims of an object. `None` if it is no object, has one of these claims twice or of the wrong type, or has no
    /// user. Ids are strings or numbers. A claim that is `null` or empty has the wrong type: it does not count as absent.
    pub(super) fn read(&self, object: &[u8]) -> Option<Claims> {
        self.parse(object).ok()
    }

    fn parse(&self, object: &[u8]) -> Result<Claims, Malformed> {
        let Self { user, user_fallback, device, tenant, listed, service } = self;
        let names =
            [Some(user), user_fallback.as_ref(), Some(device), tenant.as_ref(), listed.as_ref(), service.as_ref()];
        let [user, user_fallback, device, tenant, listed, service] =
            json::members(object, names.map(|name| name.map(String::as_str)))?;
        Ok(Claims {
            user: id(user.or(user_fallback).ok_or(Malformed)?, UserId::new)?,
            device: device.map(|claim| id(claim, DeviceId::new)).transpose()?,
            tenant: tenant.map(|claim| id(claim, TenantId::new)).transpose()?,
            listed: listed.map(list).transpose()?,
            service: service.map(flag).transpose()?.unwrap_or_default(),
        })
    }
}

fn id<T, E>(claim: &RawValue, new: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Malformed> {
    new(&json::scalar(claim).ok_or(Malformed)?).map_err(|_| Malformed)
}

fn list(claim: &RawValue) -> Result<UserList, Malformed> {
    let elements: Vec<&RawValue> = serde_json::from_str(claim.get()).map_err(|_| Malformed)?;
    elements.into_iter().map(|element| id(element, UserId::new)).collect()
}

fn flag(claim: &RawValue) -> Result<bool, Malformed> {
    claim.get().parse().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> ClaimNames {
        let name = |name: &str| Some(name.to_owned());
        ClaimNames {
            user_fallback: name("sub"),
            tenant: name("org"),
            listed: name("contacts"),
            service: name("backend"),
            ..ClaimNames::default()
        }
    }

    fn user(id: &str) -> UserId {
        UserId::new(id).unwrap()
    }

    #[test]
    fn claims_have_a_user_and_perhaps_a_device_a_tenant_a_list_and_the_mark_of_a_service() {
        let read = |object: &str| names().read(object.as_bytes()).unwrap();
        let bob = Claims { user: user("bob"), device: None, tenant: None, listed: None, service: false };
        assert_eq!(read(r#"{"userid":"bob"}"#), bob);
        assert_eq!(read(r#"{"sub":"bob","backend":false,"x":{"userid":[]}}"#), bob);
        assert_eq!(read(r#"{"sub":"ana","userid":"bob","backend":true}"#), Claims { service: true, ..bob.clone() });
        let all = read(r#"{"userid":7,"clientid":1.50,"org":-3,"contacts":["\u00e9",8]}"#);
        assert_eq!((all.user, all.device), (user("7"), Some(DeviceId::new("1.50").unwrap())));
        assert_eq!(all.tenant, Some(TenantId::new("-3").unwrap()));
        assert_eq!(all.listed, Some([user("é"), user("8")].into_iter().collect()));
        assert_eq!(read(r#"{"userid":1,"contacts":[]}"#).listed, Some(UserList::default()));
    }

    #[test]
    fn a_claim_without_a_name_is_ignored_whatever_it_is() {
        let object = br#"{"userid":"bob","org":null,"contacts":7,"backend":"no","sub":[],"org":null}"#;
        let bob = Claims { user: user("bob"), device: None, tenant: None, listed: None, service: false };
        assert_eq!(ClaimNames::default().read(object), Some(bob));
    }

    #[test]
    fn one_claim_may_have_several_meanings() {
        let names = ClaimNames { device: "userid".to_owned(), tenant: Some("userid".to_owned()), ..names() };
        let claims = names.read(br#"{"userid":"bob"}"#).unwrap();
        let ids = (claims.device.unwrap(), claims.tenant.unwrap());
        assert_eq!((ids.0.as_str(), ids.1.as_str()), ("bob", "bob"));
    }

    #[test]
    fn a_named_claim_of_another_type_or_given_twice_makes_all_claims_invalid() {
        for claim in [
            r#""userid":null"#,
            r#""userid":"bob","userid":"bob""#,
            r#""userid":"bob","\u0075serid":"bob""#,
            r#""userid":"","sub":"bob""#,
            r#""clientid":"phone""#,
            r#""sub":"bob","sub":"bob""#,
            r#""sub":"bob","clientid":null"#,
            r#""sub":"bob","clientid":"""#,
            r#""sub":"bob","clientid":[]"#,
            r#""sub":"bob","org":null"#,
            r#""sub":"bob","org":"""#,
            r#""sub":"bob","org":true"#,
            r#""sub":"bob","org":["a"]"#,
            r#""sub":"bob","org":"a","org":"a""#,
            r#""sub":"bob","org":"a\u0000b""#,
            r#""sub":"bob","contacts":null"#,
            r#""sub":"bob","contacts":"ana""#,
            r#""sub":"bob","contacts":{"ana":1}"#,
            r#""sub":"bob","contacts":["ana",null]"#,
            r#""sub":"bob","contacts":["ana",["eve"]]"#,
            r#""sub":"bob","contacts":["ana",""]"#,
            r#""sub":"bob","contacts":["a\u0000b"]"#,
            r#""sub":"bob","backend":null"#,
            r#""sub":"bob","backend":1"#,
            r#""sub":"bob","backend":"true""#,
            r#""sub":"bob","backend":true,"backend":true"#,
        ] {
            assert_eq!(names().read(format!("{{{claim}}}").as_bytes()), None, "{claim}");
        }
        for other in
            ["", "null", "[]", r#"["userid","bob"]"#, r#"{"userid":"bob"}{}"#, r#"{"userid":"bob","x":"\ud800"}"#]
        {
            assert_eq!(names().read(other.as_bytes()), None, "{other}");
        }
    }
}
