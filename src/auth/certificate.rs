//! The identity of a client certificate: a user whose id begins with `cert:`. No claim and no token can give such a user.

use super::claims::Claims;
use crate::{error::IdentityFault, model::UserId, serve::ClientCertificate};

/// The claims that stand for a certificate: a user without a device, which is a backend service.
pub(super) fn claims(certificate: &ClientCertificate) -> Result<Claims, IdentityFault> {
    Ok(Claims { user: user(certificate)?, device: None, tenant: None, listed: None, service: true })
}

/// The user of a certificate. An error if the certificate does not name exactly one.
fn user(certificate: &ClientCertificate) -> Result<UserId, IdentityFault> {
    let name = certificate.common_name().filter(|name| !name.is_empty()).ok_or(IdentityFault::Certificate)?;
    UserId::new(&format!("{PREFIX}{name}")).map_err(|_| IdentityFault::Certificate)
}

/// Checks a user from a claim or a token: only a certificate may give an id with [`PREFIX`].
pub(super) fn check_not_reserved(user: &UserId) -> Result<(), IdentityFault> {
    if user.as_str().starts_with(PREFIX) { Err(IdentityFault::Reserved) } else { Ok(()) }
}

/// The beginning of the ids of users with a certificate.
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
