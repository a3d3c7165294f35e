//! The URL of a STUN or TURN server (RFC 7064, RFC 7065), checked because a browser refuses a whole call for one that is wrong.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A valid URL, in the form that browsers take: everything but the host's labels in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceUrl(String);

impl IceUrl {
    /// Parses `stun:` or `stuns:`, a host and perhaps a port.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn stun(text: &str) -> Result<Self, String> {
        let (scheme, rest) = scheme(text.trim(), ["stun", "stuns"], "a STUN URL such as stun:stun.example.org:3478")?;
        if rest.contains('?') {
            return Err("a STUN URL has no query: leave out what begins with `?`".to_owned());
        }
        Ok(Self(format!("{scheme}:{}", authority(rest)?)))
    }

    /// Parses `turn:` or `turns:`, a host, perhaps a port, and perhaps `?transport=udp` or `?transport=tcp`.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn turn(text: &str) -> Result<Self, String> {
        let example = "a TURN URL such as turn:turn.example.org:3478?transport=udp";
        let (scheme, rest) = scheme(text.trim(), ["turn", "turns"], example)?;
        let (server, query) = rest.split_once('?').unzip();
        let transport = match query.map(str::to_ascii_lowercase).as_deref() {
            None => "",
            Some("transport=udp") => "?transport=udp",
            Some("transport=tcp") => "?transport=tcp",
            Some(_) => return Err("the query must be ?transport=udp or ?transport=tcp".to_owned()),
        };
        Ok(Self(format!("{scheme}:{}{transport}", authority(server.unwrap_or(rest))?)))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The scheme and what follows its colon.
fn scheme<'a>(text: &'a str, schemes: [&'static str; 2], example: &str) -> Result<(&'static str, &'a str), String> {
    let (given, rest) = text.split_once(':').ok_or_else(|| format!("not {example}"))?;
    let scheme = schemes.into_iter().find(|scheme| given.eq_ignore_ascii_case(scheme));
    let scheme = scheme.ok_or_else(|| match given.to_ascii_lowercase().as_str() {
        "stun" | "stuns" => "a STUN URL belongs to --stun".to_owned(),
        "turn" | "turns" => "a TURN URL belongs to --turn".to_owned(),
        _ => format!("not {example}"),
    })?;
    if rest.starts_with('/') {
        return Err(format!("such a URL has no slashes: {scheme}:HOST:PORT"));
    }
    Ok((scheme, rest))
}

/// A host and perhaps a port, checked.
fn authority(text: &str) -> Result<String, String> {
    if text.contains('@') {
        return Err("a user name does not belong here: the daemon makes credentials from --turn-secret-file".to_owned());
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("an IPv6 address needs brackets: [{text}]"));
    }
    let end_of_host = text.rfind(']').map_or(0, |bracket| bracket + 1);
    let colon = text[end_of_host..].find(':').map(|colon| end_of_host + colon);
    let (host, port) = colon.map_or((text, None), |colon| (&text[..colon], Some(&text[colon + 1..])));
    let host = host_of(host)?;
    let Some(port) = port else { return Ok(host) };
    let number =
        port.parse::<u16>().ok().filter(|number| *number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()));
    number
        .map(|number| format!("{host}:{number}"))
        .ok_or_else(|| "the port must be a number from 1 to 65535".to_owned())
}

fn host_of(host: &str) -> Result<String, String> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Ok(format!("[{address}]")),
            Err(_) => Err(format!("{host} is not an IPv6 address")),
        };
    }
    if !host.is_ascii() {
        return Err("write the host in ASCII (xn--...)".to_owned());
    }
    let mut labels = host.strip_suffix('.').unwrap_or(host).split('.');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !labels.clone().all(is_label) || host.len() > LONGEST_HOST {
        return Err("the URL has no valid host name or address".to_owned());
    }
    // A browser takes a host with a number at its end for an IPv4 address.
    let last = labels.next_back().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("{host} is not an IPv4 address with four decimal numbers"));
    }
    Ok(host.to_owned())
}

/// With a dot at its end (RFC 1035, section 2.3.4).
const LONGEST_HOST: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_the_form_that_browsers_take() {
        for (given, expected) in [
            ("stun:stun.example.org", "stun:stun.example.org"),
            ("stun:stun.example.org:3478", "stun:stun.example.org:3478"),
            ("STUNS:stun.example.org:05349", "stuns:stun.example.org:5349"),
            (" stun:192.0.2.1:3478 ", "stun:192.0.2.1:3478"),
            ("stun:[2001:DB8:0::1]:3478", "stun:[2001:db8::1]:3478"),
            ("stun:[::1]", "stun:[::1]"),
            ("stun:localhost", "stun:localhost"),
            ("stun:my_stun.example.", "stun:my_stun.example."),
        ] {
            assert_eq!(IceUrl::stun(given).as_ref().map(IceUrl::as_str), Ok(expected), "{given}");
        }
        for (given, expected) in [
            ("turn:turn.example.org", "turn:turn.example.org"),
            ("turn:turn.example.org:3478?transport=udp", "turn:turn.example.org:3478?transport=udp"),
            ("turn:turn.example.org?transport=TCP", "turn:turn.example.org?transport=tcp"),
            ("TURNS:[::1]:5349?TRANSPORT=tcp", "turns:[::1]:5349?transport=tcp"),
            ("turns:turn.example.org:65535", "turns:turn.example.org:65535"),
        ] {
            assert_eq!(IceUrl::turn(given).as_ref().map(IceUrl::as_str), Ok(expected), "{given}");
        }
    }

    #[test]
    fn a_url_that_a_browser_would_refuse_is_refused_and_the_reason_says_what_to_write() {
        for (given, reason) in [
            ("", "stun:stun.example.org:3478"),
            ("stun.example.org", "stun:stun.example.org:3478"),
            ("stun.example.org:3478", "stun:stun.example.org:3478"),
            ("https://stun.example.org", "stun:stun.example.org:3478"),
            ("turn:turn.example.org", "belongs to --turn"),
            ("stun://stun.example.org", "no slashes: stun:HOST:PORT"),
            ("stun:stun.example.org?transport=udp", "no query"),
            ("stun:bob@stun.example.org", "--turn-secret-file"),
            ("stun:", "no valid host"),
            ("stun::3478", "no valid host"),
            ("stun:a..b", "no valid host"),
            ("stun:a b", "no valid host"),
            ("stun:a/b", "no valid host"),
            ("stun:a#b", "no valid host"),
            ("stun:%61", "no valid host"),
            ("stun:*.example.org", "no valid host"),
            ("stun:büro.example", "ASCII"),
            ("stun:::1", "needs brackets: [::1]"),
            ("stun:2001:db8::1", "needs brackets: [2001:db8::1]"),
            ("stun:[::1", "no valid host"),
            ("stun:[::g]", "not an IPv6 address"),
            ("stun:[fe80::1%eth0]", "not an IPv6 address"),
            ("stun:[::1]x:1", "no valid host"),
            ("stun:192.0.2", "not an IPv4 address"),
            ("stun:192.0.2.256:1", "not an IPv4 address"),
            ("stun:a:", "from 1 to 65535"),
            ("stun:a:0", "from 1 to 65535"),
            ("stun:a:+1", "from 1 to 65535"),
            ("stun:a:65536", "from 1 to 65535"),
            ("stun:a:1:2", "from 1 to 65535"),
        ] {
            assert!(
                IceUrl::stun(given).is_err_and(|found| found.contains(reason)),
                "{given}: {:?}",
                IceUrl::stun(given)
            );
        }
        for (given, reason) in [
            ("turn.example.org", "turn:turn.example.org:3478?transport=udp"),
            ("stuns:stun.example.org", "belongs to --stun"),
            ("turn:bob:secret@turn.example.org", "--turn-secret-file"),
            ("turn:turn.example.org?transport=tls", "?transport=udp or ?transport=tcp"),
            ("turn:turn.example.org?transport=", "?transport=udp or ?transport=tcp"),
            ("turn:turn.example.org?", "?transport=udp or ?transport=tcp"),
            ("turn:turn.example.org?transport=udp&x=y", "?transport=udp or ?transport=tcp"),
        ] {
            assert!(
                IceUrl::turn(given).is_err_and(|found| found.contains(reason)),
                "{given}: {:?}",
                IceUrl::turn(given)
            );
        }
    }
}
