//! Finds the token or the ticket of a request: header, query, cookie. The first place that has one decides.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header};

use super::Credentials;
use crate::{
    error::IdentityFault,
    form::{self, Parameter},
};

/// The credential of a request.
pub(super) enum Bearer<'a> {
    /// A token, whose issuer is not this daemon.
    Token(Cow<'a, [u8]>),
    /// A ticket that this daemon issued.
    Ticket(Cow<'a, [u8]>),
}

/// Finds the token or the ticket. An empty parameter or cookie counts as absent.
pub(super) fn find<'a>(
    credentials: &Credentials<'a>,
    cookie: Option<&str>,
) -> Result<Option<Bearer<'a>>, IdentityFault> {
    if let Some(explicit) = before_cookies(credentials)? {
        return Ok(Some(explicit));
    }
    let Some(name) = cookie else { return Ok(None) };
    let value = only(cookies(credentials.headers, name.as_bytes()))?;
    Ok(value.filter(|value| !value.is_empty()).map(|value| Bearer::Token(value.into())))
}

/// Whether nothing comes before a cookie, so that a cookie decides who the caller is, if there is one.
pub(super) fn is_cookie_next(credentials: &Credentials<'_>) -> bool {
    matches!(before_cookies(credentials), Ok(None))
}

/// Whether a request has a cookie of this name.
pub(super) fn has_cookie(credentials: &Credentials<'_>, name: &str) -> bool {
    cookies(credentials.headers, name.as_bytes()).next().is_some()
}

/// The token or ticket in a place that a browser does not fill by itself: the header or the query.
fn before_cookies<'a>(credentials: &Credentials<'a>) -> Result<Option<Bearer<'a>>, IdentityFault> {
    if let Some(token) = only(bearers(credentials.headers))? {
        return Ok(Some(Bearer::Token(token.into())));
    }
    if credentials.is_stream_request {
        return in_query(credentials.uri.query().unwrap_or_default().as_bytes());
    }
    Ok(None)
}

/// The token of each `Authorization` line with the scheme `Bearer` (RFC 6750, section 2.1).
fn bearers(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    lines.filter_map(|line| {
        let (scheme, token) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
        scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
    })
}

/// `?ticket=`, else `?token=`: an `EventSource` cannot send a header of its own.
fn in_query(query: &[u8]) -> Result<Option<Bearer<'_>>, IdentityFault> {
    let [ticket, token] = form::parameters(query, ["ticket", "token"]);
    Ok(match value(ticket)? {
        Some(ticket) => Some(Bearer::Ticket(ticket)),
        None => value(token)?.map(Bearer::Token),
    })
}

fn value(parameter: Parameter<'_>) -> Result<Option<Cow<'_, [u8]>>, IdentityFault> {
    match parameter {
        Parameter::Absent => Ok(None),
        Parameter::Unreadable => Err(IdentityFault::AmbiguousToken),
        Parameter::Value(text) if text.is_empty() => Ok(None),
        Parameter::Value(Cow::Borrowed(text)) => Ok(Some(text.as_bytes().into())),
        Parameter::Value(Cow::Owned(text)) => Ok(Some(text.into_bytes().into())),
    }
}

/// The values of all cookies of a name, without quotation marks (RFC 6265, section 4.1.1).
fn cookies<'a>(headers: &'a HeaderMap, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// The only element, if any. Two are an error: one may be an attacker's, because a page of a neighbouring host can add a cookie.
fn only<'a>(mut found: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, IdentityFault> {
    let first = found.next();
    if found.next().is_some() { Err(IdentityFault::AmbiguousToken) } else { Ok(first) }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::Uri;

    use super::*;

    /// What is found in a request with these headers, as text: the kind and the value.
    fn found(uri: &'static str, lines: &[(&'static str, &'static str)], stream: bool) -> Result<String, IdentityFault> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let (uri, peer) = (Uri::from_static(uri), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (headers, uri, certificate) = (&headers, &uri, None);
        let credentials =
            Credentials { headers, uri, peer, client: peer, is_stream_request: stream, lasts: stream, certificate };
        Ok(match find(&credentials, Some("session"))? {
            None => String::new(),
            Some(Bearer::Token(token)) => format!("token {}", token.escape_ascii()),
            Some(Bearer::Ticket(ticket)) => format!("ticket {}", ticket.escape_ascii()),
        })
    }

    #[test]
    fn the_first_place_that_has_a_token_decides() {
        const ALL: &str = "/subscribe?token=b&x=1&ticket=c";
        const COOKIE: (&str, &str) = ("cookie", "a=1; session=d; sessions=e");
        let ask = |uri, lines: &[_]| found(uri, lines, true).unwrap();
        assert_eq!(ask(ALL, &[("authorization", "bearer  a"), COOKIE]), "token a");
        assert_eq!(ask(ALL, &[COOKIE]), "ticket c");
        assert_eq!(ask("/subscribe?token=b&ticket=", &[COOKIE]), "token b");
        assert_eq!(ask("/subscribe?token=", &[COOKIE]), "token d");
        assert_eq!(ask("/subscribe?Token=b", &[("cookie", "Session=d"), ("cookie", "session=\"f\"")]), "token f");
        assert_eq!(ask("/subscribe", &[("cookie", "session="), ("authorization", "Basic YTpi")]), "");
        assert_eq!(ask("/subscribe", &[("authorization", "Bearer"), COOKIE]), "token ");
        assert_eq!(ask("/subscribe?%74oken=a%2Eb", &[]), "token a.b");
        assert_eq!(
            found(ALL, &[COOKIE], false).unwrap(),
            "token d",
            "only a request for a stream may have it in the query"
        );
    }

    #[test]
    fn two_tokens_in_the_same_place_are_refused() {
        for (uri, lines) in [
            ("/", &[("authorization", "Bearer a"), ("authorization", "Bearer a")][..]),
            ("/?token=a&token=a", &[]),
            ("/?ticket=a&ticket=b&token=c", &[]),
            ("/?token=%ff", &[]),
            ("/", &[("cookie", "session=a; session=a")]),
            ("/", &[("cookie", "session=a"), ("cookie", "x=1;session=")]),
        ] {
            assert_eq!(found(uri, lines, true), Err(IdentityFault::AmbiguousToken), "{uri} {lines:?}");
        }
        let both = [("authorization", "Basic YTpi"), ("authorization", "Bearer a")];
        assert_eq!(found("/", &both, true).unwrap(), "token a");
    }
}
