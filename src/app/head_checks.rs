//! Refuses heads that hyper accepts but that a proxy could read differently (request smuggling), and `Expect: 100-continue` over
//! HTTP/2, which hyper cannot meet.

use axum::{
    body::HttpBody,
    http::{HeaderMap, Request, Uri, Version, header},
};

use crate::{
    error::{Error, Invalid},
    serve,
};

/// The error for an ambiguous head. HTTP/2 frames the body itself, so its heads are never ambiguous.
///
/// hyper itself refuses a request whose last transfer coding is not `chunked`, and a request in HTTP/1.0 with any transfer coding.
pub(super) fn error<B>(request: &Request<B>) -> Option<Error> {
    let (version, headers) = (request.version(), request.headers());
    if version > Version::HTTP_11 {
        return None;
    }
    if !has_one_host(headers, version) || has_userinfo(request.uri()) {
        return Some(Invalid::Host.into());
    }
    // A proxy may apply only one of two codings.
    (codings(headers) > 1).then_some(Error::UnsupportedCoding)
}

/// The error for an HTTP/2 head. The caller answers it as a problem or as a gRPC status.
///
/// * `Host` must not name another host than `:authority` (RFC 9113, section 8.3.1).
/// * A client must not wait for `100 Continue` before it sends its body. hyper cannot send it over HTTP/2: the client would wait
///   until the body timeout. After a 417 it repeats the request without the expectation (RFC 9110, section 10.1.1).
pub(super) fn http2_error<B: HttpBody>(request: &Request<B>) -> Option<Error> {
    if request.version() <= Version::HTTP_11 {
        return None;
    }
    if !host_matches_authority(request) {
        return Some(Invalid::Host.into());
    }
    let waits = !request.body().is_end_stream() && serve::expects_continue(request.headers());
    waits.then_some(Error::ExpectationFailed)
}

/// Whether every `Host` is the same as the URI's authority. If the URI has none, there may be one valid `Host`.
fn host_matches_authority<B>(request: &Request<B>) -> bool {
    let hosts = request.headers().get_all(header::HOST);
    let Some(authority) = request.uri().authority() else {
        return hosts.iter().next().is_none() || has_one_host(request.headers(), Version::HTTP_2);
    };
    !has_userinfo(request.uri())
        && hosts.iter().all(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()))
}

/// Whether the URI has a user name before its host (RFC 9110, section 4.2.4): it could make another host look like this one.
fn has_userinfo(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
}

/// RFC 9112, section 3.2: exactly one valid `Host`. In HTTP/1.0 it may be absent.
fn has_one_host(headers: &HeaderMap, version: Version) -> bool {
    let mut lines = headers.get_all(header::HOST).iter();
    match (lines.next(), lines.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// A host and an optional port (RFC 3986, section 3.2). Empty is valid: clients send it when the URI has no authority.
fn is_host(value: &[u8]) -> bool {
    let (name, port) = match value.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            if end == 0 || !rest[..end].iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte)) {
                return false;
            }
            (&b""[..], &rest[end + 1..])
        }
        None => value.split_at(value.iter().position(|byte| *byte == b':').unwrap_or(value.len())),
    };
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    let is_port = |port: &[u8]| port.strip_prefix(b":").is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    name.iter().all(in_name) && (port.is_empty() || is_port(port))
}

/// The number of transfer codings in all lines. A comma inside a quoted parameter counts as a separator too: that only refuses
/// a request which this server does not support anyway, because it knows no coding with parameters.
fn codings(headers: &HeaderMap) -> usize {
    let lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter(|coding| !coding.trim_ascii().is_empty())
        .count()
}
