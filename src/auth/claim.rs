//! The claim header that a forward-auth proxy sets: one line with a JSON object. `claims.rs` reads the object.

use http::{HeaderMap, HeaderName};

use super::{
    certificate,
    claims::{ClaimNames, Claims},
};
use crate::error::IdentityFault;

/// The header's name. The 2019 server used the same one.
pub(super) const NAME: HeaderName = HeaderName::from_static("x-user-claim");

/// The length of the longest valid claim, in bytes.
const MAX_LENGTH: usize = 4 * 1024;

/// Reads the claim header, if the headers have one.
///
/// Refuses more than one claim line, and any line with a look-alike name: the proxy removes only the exact name, so such a line may
/// be the client's own.
pub(super) fn read(headers: &HeaderMap, names: &ClaimNames) -> Result<Option<Claims>, IdentityFault> {
    let mut lines = headers.iter().filter(|(name, _)| is_look_alike(name));
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some((name, line)), None) if *name == NAME => {
            let claims =
                Some(line.as_bytes()).filter(|line| line.len() <= MAX_LENGTH).and_then(|line| names.read(line));
            let claims = claims.ok_or(IdentityFault::Malformed)?;
            certificate::check_not_reserved(&claims.user)?;
            Ok(Some(claims))
        }
        _ => Err(IdentityFault::Ambiguous),
    }
}

/// Whether the headers have no claim, not even one that [`read`] refuses.
pub(super) fn is_absent(headers: &HeaderMap) -> bool {
    !headers.keys().any(is_look_alike)
}

/// Whether a header has the claim's name, or would get it from a proxy that replaces `_` and `.` with `-`.
fn is_look_alike(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    name.len() == NAME.as_str().len()
        && name
            .iter()
            .zip(NAME.as_str().bytes())
            .all(|(&found, known)| found == known || (known == b'-' && b"_.".contains(&found)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::model::{DeviceId, UserId};

    fn read(headers: &HeaderMap) -> Result<Option<Claims>, IdentityFault> {
        super::read(headers, &ClaimNames::default())
    }

    fn read_line(line: &str) -> Result<Option<Claims>, IdentityFault> {
        let mut headers = HeaderMap::new();
        headers.insert(NAME, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        read(&headers)
    }

    #[test]
    fn an_id_is_a_string_or_a_number() {
        let address = |user, device| {
            let (user, device) = (UserId::new(user).unwrap(), Some(DeviceId::new(device).unwrap()));
            Ok(Some(Claims { user, device, tenant: None, listed: None, service: false }))
        };
        assert_eq!(read_line(r#"{"userid":"bob","clientid":"phone"}"#), address("bob", "phone"));
        assert_eq!(
            read_line(r#" {"clientid":7,"x":[1],"userid":12345678901234567890123} "#),
            address("12345678901234567890123", "7")
        );
        assert_eq!(read_line(r#"{"userid":"☎","clientid":"\u00e9"}"#), address("☎", "é"));
    }

    #[test]
    fn a_claim_of_another_shape_is_malformed() {
        for line in [
            "",
            "bob",
            "null",
            "7",
            r#"["bob","phone"]"#,
            r#"{"clientid":"phone"}"#,
            r#"{"userid":"bob","clientid":"phone""#,
            r#"{"userid":"bob","clientid":"phone"}x"#,
            r#"{"userid":"bob","userid":"bob","clientid":"phone"}"#,
            r#"{"userid":"bob","clientid":""}"#,
            r#"{"userid":"bob","clientid":null}"#,
            r#"{"userid":true,"clientid":"phone"}"#,
            r#"{"userid":{},"clientid":"phone"}"#,
            r#"{"userid":"..","clientid":"phone"}"#,
            r#"{"userid":"a\nb","clientid":"phone"}"#,
            r#"{"userid":"\ud800","clientid":"phone"}"#,
        ] {
            assert_eq!(read_line(line), Err(IdentityFault::Malformed), "{line}");
        }
        let long = format!(r#"{{"userid":"bob","clientid":"phone","x":"{}"}}"#, "x".repeat(MAX_LENGTH));
        assert_eq!(read_line(&long), Err(IdentityFault::Malformed));
        let mut headers = HeaderMap::new();
        headers.insert(NAME, HeaderValue::from_bytes(b"{\"userid\":\"\xff\",\"clientid\":\"a\"}").unwrap());
        assert_eq!(read(&headers), Err(IdentityFault::Malformed));
    }

    #[test]
    fn a_look_alike_line_is_refused_alone_and_after_the_claim() {
        let claim = HeaderValue::from_static(r#"{"userid":"bob","clientid":"phone"}"#);
        for name in ["x_user_claim", "x.user.claim", "x-user_claim"] {
            let mut headers = HeaderMap::new();
            headers.append(HeaderName::from_static(name), claim.clone());
            assert_eq!(read(&headers), Err(IdentityFault::Ambiguous), "{name} alone");
            headers.append(NAME, claim.clone());
            assert_eq!(read(&headers), Err(IdentityFault::Ambiguous), "{name}");
        }
        let headers = HeaderMap::from_iter([(NAME, claim.clone()), (NAME, claim)]);
        assert_eq!(read(&headers), Err(IdentityFault::Ambiguous));
    }
}
