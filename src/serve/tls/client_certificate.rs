//! What a client certificate says about its owner.

use std::{io, sync::Arc};

use tokio_rustls::rustls::{CertificateError, Error, pki_types::CertificateDer};
use x509_cert::{
    Certificate,
    der::{Decode as _, asn1::ObjectIdentifier},
    ext::pkix::name::DirectoryString,
};

/// A certificate with which a client has proven its identity. rustls has verified it. Cheap to clone, because each request of the
/// connection carries it.
#[derive(Clone, Debug)]
pub struct ClientCertificate(Option<Arc<str>>);

impl ClientCertificate {
    /// Reads the first certificate of a chain: the client's own.
    pub(super) fn of_chain(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        Some(Self(only_common_name(chain?.first()?)))
    }

    /// The common name of the subject. `None` if there is none, several, or one that cannot be read: such a certificate does not
    /// identify exactly one user.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// A certificate with this common name, for tests of other rooms.
    #[cfg(test)]
    pub(crate) fn with_common_name(name: Option<&str>) -> Self {
        Self(name.map(Into::into))
    }
}

/// Why a handshake refused the certificate of its client, without anything that the certificate says. `None`: it failed otherwise.
pub(super) fn refusal(handshake: &io::Error) -> Option<&'static str> {
    let Error::InvalidCertificate(fault) = handshake.get_ref()?.downcast_ref()? else { return None };
    Some(match fault {
        CertificateError::UnknownIssuer => "none of the known authorities has signed it",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => "it is not for clients",
        // An authority that was made anew has the name of the old one and another key.
        CertificateError::BadSignature => "a signature is wrong, or that of another authority with a known name",
        _ => "it is not valid",
    })
}

fn only_common_name(certificate: &[u8]) -> Option<Arc<str>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let mut names = certificate.tbs_certificate().subject().iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let (name, None) = (names.next()?, names.next()) else { return None };
    let name = DirectoryString::try_from(&name.value).ok()?;
    Some(name.value().as_ref().into())
}

/// RFC 4519, section 2.3.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    fn common_name(names: Vec<(DnType, DnValue)>) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind, value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let found = ClientCertificate::of_chain(Some(&[certificate.der().clone()])).expect("a certificate");
        found.common_name().map(str::to_owned)
    }

    #[test]
    fn the_only_common_name_of_the_subject_is_read() {
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let organization = (DnType::OrganizationName, utf8("Example"));
        // rcgen keeps one value of each type, so the second one has the type as a custom one.
        let second = DnType::CustomDnType(vec![2, 5, 4, 3]);
        for (names, expected) in [
            (vec![(DnType::CommonName, utf8("backend"))], Some("backend")),
            (vec![organization.clone(), (DnType::CommonName, utf8("zoë ☎"))], Some("zoë ☎")),
            (vec![(DnType::CommonName, DnValue::PrintableString("Back End".try_into().unwrap()))], Some("Back End")),
            (vec![(DnType::CommonName, DnValue::BmpString("zoë".try_into().unwrap()))], Some("zoë")),
            (vec![(DnType::CommonName, utf8(""))], Some("")),
            (vec![(DnType::CommonName, utf8("a\0b"))], Some("a\0b")),
            (vec![organization.clone()], None),
            (vec![], None),
            (vec![(DnType::CommonName, utf8("one")), (second, utf8("two"))], None),
        ] {
            assert_eq!(common_name(names.clone()).as_deref(), expected, "{names:?}");
        }
        assert!(ClientCertificate::of_chain(None).is_none());
        assert!(ClientCertificate::of_chain(Some(&[])).is_none());
        let garbage = ClientCertificate::of_chain(Some(&[CertificateDer::from(&b"\x30\x03abc"[..])]));
        assert_eq!(garbage.expect("a certificate").common_name(), None);
    }
}
