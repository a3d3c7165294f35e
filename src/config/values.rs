//! How the values of options are parsed. A value that can have no effect is refused, and the others get one canonical form.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::{IntErrorKind, ParseIntError},
    str::FromStr,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use super::Jwks;
use crate::hub::REPLAY_MS;

/// A number of seconds, such as 10 or 0.5, or a time with its unit, such as 500ms or 2m.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|_| "not a time such as 10 (seconds), 500ms, 30s or 2m")?,
    };
    if duration < SHORTEST || duration > LONGEST {
        return Err(format!("must be between {} and {} seconds", SHORTEST.as_secs_f64(), LONGEST.as_secs()));
    }
    Ok(duration)
}

/// A number of bytes, such as 65536, 64k, 512M or 1GiB. Not by a crate: they take 64k for 64,000, and round a fraction.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let end_of_number = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end_of_number);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(NO_BYTES.to_owned()),
    };
    if number.is_empty() {
        return Err(NO_BYTES.to_owned());
    }
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "more bytes than this machine can address".to_owned())
}

/// The bytes of the largest body. A larger one would not fit into an empty mailbox.
pub(super) fn body_limit(text: &str) -> Result<u32, String> {
    let bytes = bytes(text)?;
    let limit = u32::try_from(bytes).ok().filter(|bytes| (1..=crate::hub::WAITING_BYTES).contains(&(*bytes as usize)));
    limit.ok_or_else(|| format!("must be between 1 and {} bytes", crate::hub::WAITING_BYTES))
}

/// `--stall-timeout`: [`seconds`], at most [`LONGEST_STALL`].
pub(super) fn stall_timeout(text: &str) -> Result<Duration, String> {
    let duration = seconds(text)?;
    if duration > LONGEST_STALL {
        return Err(format!("must be at most {}", LONGEST_STALL.as_secs()));
    }
    Ok(duration)
}

/// `--turn-ttl`: whole [`seconds`], because the time in a username of TURN has no fraction.
pub(super) fn turn_ttl(text: &str) -> Result<Duration, String> {
    let whole = seconds(text).ok().filter(|duration| duration.subsec_nanos() == 0);
    whole.ok_or_else(|| format!("must be a whole number of seconds between 1 and {}", LONGEST.as_secs()))
}

/// A whole number, zero or more.
pub(super) fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "too large a number",
        _ => "not a whole number, zero or more",
    })
}

/// A whole number above 0.
pub(super) fn count<T: FromStr + PartialOrd + Default>(text: &str) -> Result<T, &'static str> {
    text.parse().ok().filter(|count| *count > T::default()).ok_or("not a whole number above 0")
}

/// A port.
pub(super) fn port(text: &str) -> Result<u16, &'static str> {
    text.parse().map_err(|_| "not a whole number from 0 to 65535")
}

/// The number of worker threads. More than this many help no machine, and the system may refuse to start them.
pub(super) fn threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|threads| (1..=MOST_THREADS).contains(threads));
    threads.ok_or_else(|| format!("not a whole number from 1 to {MOST_THREADS}"))
}

/// An element of a list, such as an audience. Space around it does not belong to it.
pub(super) fn element(text: &str) -> Result<String, &'static str> {
    trimmed(text).map(str::to_owned)
}

/// An element of a list without the space around it. An empty one is a mistake: a comma too many, or a variable that is not set.
fn trimmed(text: &str) -> Result<&str, &'static str> {
    Some(text.trim()).filter(|text| !text.is_empty()).ok_or("an element of the list is empty")
}

/// The name of a claim. Space around it is a mistake: no claim would have the name.
pub(super) fn claim(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.trim() != text {
        return Err("not the name of a claim: it is empty, or begins or ends with a space");
    }
    Ok(text.to_owned())
}

/// The claim in `listed:CLAIM`.
pub(super) fn listed(text: &str) -> Result<String, &'static str> {
    claim(text.strip_prefix("listed:").ok_or("not listed:CLAIM")?)
}

/// The name of a cookie (RFC 6265, section 4.1.1).
pub(super) fn cookie_name(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err("not the name of a cookie".to_owned());
    }
    Ok(text.to_owned())
}

/// A file, or an https URL, with a key set.
pub(super) fn jwks(text: &str) -> Result<Jwks, String> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        None => Ok(Jwks::File(text.into())),
        Some("https") => {
            let url: http::Uri = text.parse().map_err(|_| "not an https URL")?;
            if url.host().is_none_or(str::is_empty) || text.contains('@') {
                return Err("not an https URL with a host and without a user name".to_owned());
            }
            Ok(Jwks::Url(url))
        }
        Some(_) => {
            Err("must be a file or an https URL: over plain http, anybody on the way could add a key".to_owned())
        }
    }
}

/// A host name or an address. An IPv6 address may stand in brackets, as in a URL.
pub(super) fn host(text: &str) -> Result<String, String> {
    let in_brackets = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    // A zone such as `%eth0` may follow the address.
    let is_ipv6 = |host: &&str| host.split('%').next().is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    let host = in_brackets.filter(is_ipv6).unwrap_or(text);
    if host.is_empty() || host.contains(['[', ']', '/']) {
        return Err("not an address or a host name; the port is the value of --port".to_owned());
    }
    Ok(host.to_owned())
}

/// A network, or one address. An IPv4-mapped IPv6 network becomes the IPv4 network, because peers' addresses do, too. A
/// wider network that is written as an IPv4-mapped one, or has only such addresses, is refused: it would match no IPv4 peer.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = trimmed(text)?;
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse().or(address).map_err(|_| "not a network such as 10.0.0.0/8")?;
    let mapped = |network: ipnet::Ipv6Net| {
        let prefix = network.prefix_len().checked_sub(MAPPED_PREFIX)?;
        Ipv4Net::new(network.addr().to_ipv4_mapped()?, prefix).ok()
    };
    if let IpNet::V6(wide) = network
        && wide.prefix_len() < MAPPED_PREFIX
        && wide.contains(&MAPPED)
        && (wide.addr().to_ipv4_mapped().is_some() || wide.prefix_len() >= ONLY_MAPPED_PREFIX)
    {
        return Err("would match no IPv4 client; write 0.0.0.0/0 for all of IPv4".to_owned());
    }
    let network = match network {
        IpNet::V6(network) => mapped(network).map_or(IpNet::V6(network), IpNet::V4),
        IpNet::V4(_) => network,
    };
    Ok(network.trunc())
}

/// An origin as a browser sends it in `Origin`: scheme, host and perhaps a port (RFC 6454).
pub(super) fn origin(text: &str) -> Result<http::HeaderValue, String> {
    let canonical = canonical_origin(trimmed(text)?)?;
    http::HeaderValue::from_str(&canonical).map_err(|_| NO_ORIGIN.to_owned())
}

/// Browsers compare and send origins in this form, so any other form would match nothing.
fn canonical_origin(text: &str) -> Result<String, String> {
    let (scheme, authority) = text.split_once("://").ok_or(NO_ORIGIN)?;
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || ['+', '-', '.'].contains(&c));
    if !is_scheme || authority.contains(['/', '?', '#']) {
        return Err(NO_ORIGIN.to_owned());
    }
    let default_port = match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        "ws" | "wss" => {
            return Err("a browser sends the http or https origin of the page, also for a WebSocket".to_owned());
        }
        // The origin of a page from these is `null`.
        "file" | "data" | "blob" | "about" | "javascript" => {
            return Err(format!("no page has an origin with {scheme}:"));
        }
        // An app or an extension, such as capacitor://localhost.
        _ => None,
    };
    if authority.contains('@') {
        return Err("an origin has no user name".to_owned());
    }
    let (host, port) = split_port(authority)?;
    let port = port.filter(|port| Some(*port) != default_port);
    let host = canonical_host(host, default_port.is_some())?;
    Ok(port.map_or_else(|| format!("{scheme}://{host}"), |port| format!("{scheme}://{host}:{port}")))
}

/// The host of an authority, and its port if it has one.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority[end_of_host..].find(':') else { return Ok((authority, None)) };
    let (host, port) = (&authority[..end_of_host + colon], &authority[end_of_host + colon + 1..]);
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|_| digits).ok_or_else(|| format!("{port} is not a port"))?;
    Ok((host, Some(number)))
}

/// `is_web`: the scheme is http or https. For other schemes browsers keep the case of the host.
fn canonical_host(host: &str, is_web: bool) -> Result<String, String> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| format!("{host} is not an IPv6 address"))?;
        return Ok(match address.to_ipv4_mapped() {
            // The standard library writes the last 32 bits as an IPv4 address; browsers do not.
            Some(_) => format!("[::ffff:{:x}:{:x}]", address.segments()[6], address.segments()[7]),
            None => format!("[{address}]"),
        });
    }
    if host.contains('*') {
        return Err("an origin cannot have a wildcard; list every origin".to_owned());
    }
    if !host.is_ascii() {
        return Err("write the host as a browser sends it, in ASCII (xn--...)".to_owned());
    }
    let labels = host.strip_suffix('.').unwrap_or(host).split('.');
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = labels.clone().next_back().unwrap_or_default();
    if !labels.clone().all(is_label) {
        return Err(NO_ORIGIN.to_owned());
    }
    if !is_web {
        return Ok(host.to_owned());
    }
    // A browser takes a host with a number at its end for an IPv4 address, and writes it as four decimal numbers.
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x");
    if is_number && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("{host} is not an IPv4 address with four decimal numbers"));
    }
    Ok(host.to_ascii_lowercase())
}

const NO_BYTES: &str = "not a whole number of bytes such as 65536, 64k, 512M or 1G";

const NO_ORIGIN: &str = "not an origin such as https://example.org";

/// How many bits precede the IPv4 address in an IPv4-mapped IPv6 address.
const MAPPED_PREFIX: u8 = 96;
/// The first IPv4-mapped address.
const MAPPED: Ipv6Addr = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
/// From this prefix length on, a network around the IPv4-mapped addresses has no other address that a peer can have.
const ONLY_MAPPED_PREFIX: u8 = 81;

/// More than any machine has processors.
const MOST_THREADS: usize = 1_024;

const SHORTEST: Duration = Duration::from_millis(1);
/// One day: a longer time is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The hub counts a message as read after [`REPLAY_MS`]. The watchdog must cut the peer before that: 10 s of margin.
const LONGEST_STALL: Duration = Duration::from_millis(REPLAY_MS - 10_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_bytes_may_have_a_unit_of_1024() {
        for (given, expected) in [
            ("0", 0),
            ("65536", 65_536),
            ("64k", 65_536),
            ("64K", 65_536),
            ("64KiB", 65_536),
            ("512M", 536_870_912),
            ("512m", 536_870_912),
            ("1G", 1 << 30),
            ("1gib", 1 << 30),
            ("007", 7),
        ] {
            assert_eq!(bytes(given), Ok(expected), "{given}");
        }
        for given in ["", "k", "1.5G", "1,5G", "-1", "+1", "1 G", " 1", "1T", "1kb", "1kk", "0x10", "1e3", "64 ", "٣"]
        {
            assert_eq!(bytes(given), Err(NO_BYTES.to_owned()), "{given}");
        }
        for given in ["18446744073709551616", "17179869184G", "99999999999999999999k"] {
            assert!(bytes(given).is_err_and(|error| error.contains("more bytes")), "{given}");
        }
        assert_eq!((body_limit("256k"), body_limit("1")), (Ok(262_144), Ok(1)));
        for given in ["0", "257k", "262145", "4G", "5G"] {
            assert!(body_limit(given).is_err_and(|error| error.contains("between 1 and 262144")), "{given}");
        }
    }

    #[test]
    fn a_time_is_a_number_of_seconds_or_has_a_unit() {
        for (given, milliseconds) in [
            ("10", 10_000),
            ("0.5", 500),
            ("30s", 30_000),
            ("2m", 120_000),
            ("2min", 120_000),
            ("500ms", 500),
            ("1h", 3_600_000),
            ("1m 30s", 90_000),
            ("1.5s", 1_500),
            ("24h", 86_400_000),
        ] {
            assert_eq!(seconds(given), Ok(Duration::from_millis(milliseconds)), "{given}");
        }
        for given in [
            "",
            "s",
            "soon",
            "-1",
            "-1s",
            "-30m",
            "10 x",
            "10S",
            "1,5s",
            "0",
            "0s",
            "500us",
            "86401",
            "25h",
            "1M",
            "NaN",
            "inf",
            "1e30",
            "18446744073709551616s",
            "99999999999999999999m",
        ] {
            assert!(seconds(given).is_err(), "{given}: {:?}", seconds(given));
        }
        for (given, expected) in
            [("1", Some(1)), ("2m", Some(120)), ("24h", Some(86_400)), ("0.5", None), ("1500ms", None)]
        {
            assert_eq!(turn_ttl(given).ok(), expected.map(Duration::from_secs), "{given}");
        }
    }

    #[test]
    fn an_element_of_a_list_has_no_space_around_it_and_is_not_empty() {
        for (given, element) in [("signal", "signal"), (" https://id.example ", "https://id.example"), ("a b", "a b")] {
            assert_eq!(super::element(given).as_deref(), Ok(element), "{given:?}");
        }
        for empty in ["", " ", "\t"] {
            let reason = "an element of the list is empty";
            assert_eq!(element(empty), Err(reason), "{empty:?}");
            assert_eq!(network(empty), Err(reason.to_owned()), "{empty:?}");
            assert_eq!(origin(empty), Err(reason.to_owned()), "{empty:?}");
        }
    }

    #[test]
    fn the_name_of_a_claim_is_not_empty_and_has_no_space_around_it() {
        for name in ["org", "https://x.example/org", "two words"] {
            assert_eq!((claim(name), listed(&format!("listed:{name}"))), (Ok(name.to_owned()), Ok(name.to_owned())));
        }
        for name in ["", " ", " org", "org ", "org\n"] {
            assert!(claim(name).is_err() && listed(&format!("listed:{name}")).is_err(), "{name:?}");
        }
        for text in ["org", "list:org", "Listed:org", " listed:org"] {
            assert!(listed(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn worker_threads_are_1_to_1024() {
        assert_eq!(["1", "1024"].map(threads), [Ok(1), Ok(1_024)]);
        for given in ["0", "1025", "1000000000", "99999999999999999999", "-1", "two", ""] {
            assert!(threads(given).is_err_and(|error| error.contains("from 1 to 1024")), "{given}");
        }
    }

    #[test]
    fn an_origin_gets_the_form_in_which_a_browser_sends_it() {
        for (given, sent) in [
            ("https://example.org", "https://example.org"),
            ("https://Example.org", "https://example.org"),
            ("HTTPS://EXAMPLE.ORG:443", "https://example.org"),
            ("http://example.org:80", "http://example.org"),
            ("http://example.org:443", "http://example.org:443"),
            ("https://example.org:08443", "https://example.org:8443"),
            ("https://example.org:", "https://example.org"),
            (" https://example.org ", "https://example.org"),
            ("https://example.org.", "https://example.org."),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("http://[2001:DB8::1]:80", "http://[2001:db8::1]"),
            ("http://[::ffff:192.0.2.1]", "http://[::ffff:c000:201]"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("https://my_host.example", "https://my_host.example"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("Chrome-Extension://abcdef", "chrome-extension://abcdef"),
            ("app://Host:80", "app://Host:80"),
        ] {
            assert_eq!(origin(given).as_ref().map(http::HeaderValue::as_bytes), Ok(sent.as_bytes()), "{given}");
        }
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_refused() {
        for given in [
            "",
            "null",
            "*",
            "example.org",
            "https://",
            "https:///",
            "://example.org",
            "1https://example.org",
            "https://*.example.org",
            "https://*",
            "https://user@example.org",
            "https://user:password@example.org",
            "https://example.org/",
            "https://example.org/path",
            "https://example.org?query",
            "https://example.org#part",
            "https://example.org:65536",
            "https://example.org:+443",
            "https://example.org:x",
            "https://a..b",
            "https://.example.org",
            "https://exa mple.org",
            "https://example.org,https://example.com",
            "https://bücher.example",
            "https://127.1",
            "https://0x7f.0.0.1",
            "https://1.2.3.4.5",
            "https://[::1",
            "https://[::g]",
            "https://[::1]x",
            "https://::1",
            "wss://example.org",
            "ws://example.org",
            "file:///",
            "file://host",
            "data://x",
            "https://example.org:443:443",
        ] {
            assert!(origin(given).is_err(), "{given}: {:?}", origin(given));
        }
    }

    #[test]
    fn a_network_gets_the_form_in_which_an_address_is_compared_with_it() {
        for (given, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            ("::ffff:127.0.0.0/104", "127.0.0.0/8"),
            ("::ffff:127.0.0.1", "127.0.0.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:7f00:1/128", "127.0.0.1/32"),
            ("::/80", "::/80"),
            ("2001:db8::ffff:0:0/95", "2001:db8::fffe:0:0/95"),
        ] {
            assert_eq!(network(given).map(|network| network.to_string()), Ok(canonical.to_owned()), "{given}");
        }
        for given in ["", "10.0.0.0/33", "10.0.0", "::1/129", "localhost", "[::1]", "10.0.0.0/8/8"] {
            assert!(network(given).is_err(), "{given}");
        }
        for prefix in 80..96 {
            let given = format!("::ffff:0:0/{prefix}");
            assert!(network(&given).is_err(), "{given} would match no IPv4 address");
        }
        assert!(network("::fffe:0:0/95").is_err() && network("::ffff:10.0.0.0/64").is_err());
    }

    #[test]
    fn a_stall_is_noticed_before_a_message_counts_as_read() {
        assert_eq!(stall_timeout("50"), Ok(Duration::from_secs(50)));
        for given in ["50.1", "60", "86400", "0", "x"] {
            assert!(stall_timeout(given).is_err(), "{given}");
        }
    }

    #[test]
    fn a_host_may_be_an_ipv6_address_in_brackets() {
        for (given, host_name) in
            [("[::1]", "::1"), ("::1", "::1"), ("[fe80::1%eth0]", "fe80::1%eth0"), ("localhost", "localhost")]
        {
            assert_eq!(host(given), Ok(host_name.to_owned()), "{given}");
        }
        for given in ["", "[]", "[::1", "::1]", "[localhost]", "[127.0.0.1]", "[::1]:80", "http://localhost"] {
            assert!(host(given).is_err(), "{given}");
        }
    }
}
