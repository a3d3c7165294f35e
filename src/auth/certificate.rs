//! The identity that a client certificate gives: a user of a kind that no claim and no token can give.

use super::claims::Claims;
use crate::{error::IdentityFault, model::UserId, serve::ClientCertificate};

/// A certificate as claims: a backend service, which is a user without a device.
pub(super) fn claims(certificate: &ClientCertificate) -> Result<Claims, IdentityFault> {
    Ok(Claims { user: user(certificate)?, device: None, tenant: None, listed: None, service: true })
}

/// The user that a certificate identifies. A certificate that does not name exactly one is no identity.
fn user(certificate: &ClientCertificate) -> Result<UserId, IdentityFault> {
    let name = certificate.common_name().filter(|name| !name.is_empty()).ok_or(IdentityFault::Certificate)?;
    UserId::new(&format!("{PREFIX}{name}")).map_err(|_| IdentityFault::Certificate)
}

/// Checks a user that something else than a certificate gives.
pub(super) fn check_not_reserved(user: &UserId) -> Result<(), IdentityFault> {
    if user.as_str().starts_with(PREFIX) { Err(IdentityFault::Reserved) } else { Ok(()) }
}

/// How the ids of these users begin.
const PREFIX: &str = "cert:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_gives_a_user_only_when_its_one_common_name_makes_an_id() {
        let (longest, too_long) = ("x".repeat(256 - PREFIX.len()), "x".repeat(257 - PREFIX.len()));
        for (name, expected) in [
            (Some("backend"), Some("cert:backend")),
            (Some("Zoë ☎"), Some("cert:Zoë ☎")),
            (Some("."), Some("cert:.")),
            (Some(longest.as_str()), Some(format!("cert:{longest}").as_str())),
            (Some(too_long.as_str()), None),
            (Some("a\0b"), None),
            (Some("a\nb"), None),
            (Some("\u{85}"), None),
            (Some(""), None),
            (None, None),
        ] {
            let user = user(&ClientCertificate::with_common_name(name));
            let expected = expected.map(|user| UserId::new(user).unwrap()).ok_or(IdentityFault::Certificate);
            assert_eq!(user, expected, "{name:?}");
        }
    }
}
