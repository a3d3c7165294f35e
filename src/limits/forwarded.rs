//! The addresses in `X-Forwarded-For` and `Forwarded` (RFC 7239), from the right: the last proxy has appended the last one.
//!
//! Only the part that trusted proxies appended can be trusted to be well-formed, so nothing is read from the left: an open quote
//! of the client would hide everything after it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The entries of all lines of `X-Forwarded-For`. `None`: an entry that is no address.
pub(super) fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    elements(headers, X_FORWARDED_FOR).map(|entry| address(entry?))
}

/// The `for` parameters of all lines of `Forwarded`. `None`: an element without an address, such as `for=unknown`.
pub(super) fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    elements(headers, header::FORWARDED).map(|element| forwarded_for(element?))
}

/// The elements of a list in all lines, from the right, without empty ones. `None`: a line that is not ASCII.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Option<&str>> {
    let elements = |text| from_right(text, ',').map(str::trim).filter(|element| !element.is_empty());
    headers.get_all(name).iter().rev().flat_map(move |line| {
        let text = line.to_str().ok();
        text.into_iter().flat_map(elements).map(Some).chain(text.is_none().then_some(None))
    })
}

/// The parts of a text between separators, from the right. A separator in quotes separates nothing.
fn from_right(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let at = text.bytes().enumerate().rev().find_map(|(at, byte)| {
            // In quotes, a backslash makes the next character an ordinary one.
            let escaped = || text.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
            quoted ^= byte == b'"' && !escaped();
            (!quoted && byte == separator as u8).then_some(at)
        });
        rest = at.map(|at| &text[..at]);
        Some(at.map_or(text, |at| &text[at + 1..]))
    })
}

/// The address in the `for` parameter of an element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = from_right(element, ';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    address(node.strip_prefix('"').and_then(|node| node.strip_suffix('"')).unwrap_or(node))
}

/// An address, perhaps with a port, and IPv6 perhaps in brackets.
fn address(entry: &str) -> Option<IpAddr> {
    if let Some(rest) = entry.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        return address.parse().ok().filter(|_: &IpAddr| port.is_empty() || is_port(port));
    }
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address);
    }
    let (address, _) = entry.split_at(entry.rfind(':').filter(|at| is_port(&entry[*at..]))?);
    address.parse().ok().filter(IpAddr::is_ipv4)
}

/// A colon and a port, or a hidden port of RFC 7239.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn lines(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect()
    }

    fn text(addresses: impl Iterator<Item = Option<IpAddr>>) -> String {
        let text = |address: Option<IpAddr>| address.map_or("?".to_owned(), |address| address.to_string());
        addresses.map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right_over_all_its_lines() {
        for (values, expected) in [
            (&[][..], ""),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, 198.51.100.2"], "198.51.100.2 192.0.2.1"),
            (&["192.0.2.1,198.51.100.2", "203.0.113.3"], "203.0.113.3 198.51.100.2 192.0.2.1"),
            (
                &["192.0.2.1:4711, [2001:db8::1]:80, 2001:db8::2, [2001:db8::3]"],
                "2001:db8::3 2001:db8::2 2001:db8::1 192.0.2.1",
            ),
            (&["192.0.2.1, unknown, 198.51.100.2"], "198.51.100.2 ? 192.0.2.1"),
            (&["192.0.2.1,, 198.51.100.2 ,"], "198.51.100.2 192.0.2.1"),
            (&["192.0.2.1", "ü"], "? 192.0.2.1"),
            (&["192.0.2.1:, 192.0.2.1:x y, [::1, ::1], 192.0.2.256, 192.0.2"], "? ? ? ? ? ?"),
        ] {
            assert_eq!(text(x_forwarded_for(&lines(&X_FORWARDED_FOR, values))), expected, "{values:?}");
        }
    }

    #[test]
    fn forwarded_is_read_from_the_right_and_the_quotes_of_a_client_hide_nothing() {
        for (values, expected) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (&["For=192.0.2.1;proto=http;by=203.0.113.43"], "192.0.2.1"),
            (&["by=203.0.113.43; for=192.0.2.1"], "192.0.2.1"),
            (&[r#"for=192.0.2.43, for="[2001:db8:cafe::17]:4711""#], "2001:db8:cafe::17 192.0.2.43"),
            (&[r#"for="192.0.2.1:80", for=198.51.100.2"#, "for=203.0.113.3"], "203.0.113.3 198.51.100.2 192.0.2.1"),
            (&["for=unknown, for=_hidden, proto=https"], "? ? ?"),
            (&[r#"for=192.0.2.1;host="a,for=198.51.100.2""#], "192.0.2.1"),
            (&[r#"for=192.0.2.1;host="a;for=198.51.100.2""#], "192.0.2.1"),
            (&[r#"for=192.0.2.1;x="a\",for=198.51.100.2""#], "192.0.2.1"),
            (&[r#"for="x, for=192.0.2.1"#], "192.0.2.1 ?"),
            (&[r#"for="198.51.100.2, for=192.0.2.1"#, "for=192.0.2.1"], "192.0.2.1 192.0.2.1 ?"),
        ] {
            assert_eq!(text(forwarded(&lines(&header::FORWARDED, values))), expected, "{values:?}");
        }
    }
}
