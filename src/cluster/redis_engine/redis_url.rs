//! The address of a Redis server, as `--redis` names it: `redis://`, `rediss://`, `unix://`, and `redis+sentinel://`.

use std::{fmt, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;

/// Where the server is, and who we are there. It shows no user and no password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Where to connect.
    pub(super) place: Place,
    /// Whether connections are TLS.
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// The number of the database.
    pub(super) database: u16,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(HostPort),
    Unix(PathBuf),
    /// Sentinels know where the primary of this name is.
    Sentinels {
        sentinels: Vec<HostPort>,
        name: String,
    },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    /// A name or an address. IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a text is no URL of a Redis server. Shows nothing of the text: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisUrlFault(&'static str);

impl FromStr for RedisUrl {
    type Err = RedisUrlFault;

    fn from_str(text: &str) -> Result<Self, RedisUrlFault> {
        let (scheme, rest) = text.split_once("://").ok_or(SCHEME)?;
        // A password with a raw `@` still ends at the last one.
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        if rest.contains(['?', '#']) && scheme != "unix" {
            return Err(RedisUrlFault("it takes no parameters"));
        }
        let (user, password) = read_login(login)?;
        let (place, database) = match scheme {
            "redis" | "rediss" => {
                let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
                (Place::Tcp(HostPort::read(host, REDIS_PORT)?), database)
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let (hosts, tail) = rest.split_once('/').unwrap_or((rest, ""));
                let (name, database) = tail.split_once('/').unwrap_or((tail, ""));
                let sentinels = hosts.split(',').map(|host| HostPort::read(host, SENTINEL_PORT));
                let (sentinels, name) = (sentinels.collect::<Result<_, _>>()?, decoded(name)?);
                if name.is_empty() {
                    return Err(RedisUrlFault("after the sentinels it needs the name of the primary: /NAME"));
                }
                (Place::Sentinels { sentinels, name }, database)
            }
            "unix" if rest.starts_with('/') => {
                let (path, database) = rest.split_once("?db=").unwrap_or((rest, ""));
                (Place::Unix(decoded(path)?.into()), database)
            }
            "unix" => return Err(RedisUrlFault("unix:// needs an absolute path: unix:///PATH")),
            _ => return Err(SCHEME),
        };
        let database = match database {
            "" => 0,
            number => number.parse().map_err(|_| RedisUrlFault("the database must be a number"))?,
        };
        Ok(Self { place, tls: scheme.starts_with("rediss"), user, password, database })
    }
}

impl RedisUrl {
    /// Whether connections are TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether it has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Whether everything stays on this machine.
    pub(super) fn is_local(&self) -> bool {
        match &self.place {
            Place::Unix(_) => true,
            Place::Tcp(address) => address.is_loopback(),
            Place::Sentinels { sentinels, .. } => sentinels.iter().all(HostPort::is_loopback),
        }
    }
}

impl HostPort {
    fn read(text: &str, default_port: u16) -> Result<Self, RedisUrlFault> {
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) => (host, Some(rest.strip_prefix(':').ok_or(HOST)?)),
            Some(None) => return Err(HOST),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| HOST))?;
        let host = decoded(host)?;
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
        if host.is_empty() || port == 0 || !host.chars().all(is_host) {
            return Err(HOST);
        }
        Ok(Self { host, port })
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }
}

/// `USER:PASSWORD`, `:PASSWORD` or `USER`.
fn read_login(login: Option<&str>) -> Result<(Option<String>, Option<String>), RedisUrlFault> {
    let Some(login) = login else { return Ok((None, None)) };
    let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok((given(decoded(user)?), given(password.map(decoded).transpose()?.unwrap_or_default())))
}

fn decoded(text: &str) -> Result<String, RedisUrlFault> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| RedisUrlFault("it is not UTF-8"))?;
    Ok(text.into_owned())
}

const REDIS_PORT: u16 = 6_379;
const SENTINEL_PORT: u16 = 26_379;

const SCHEME: RedisUrlFault = RedisUrlFault(
    "it must begin with redis://, rediss:// (TLS), unix://, redis+sentinel:// or rediss+sentinel:// (TLS)",
);
const HOST: RedisUrlFault = RedisUrlFault("it needs a HOST or HOST:PORT");

impl fmt::Display for RedisUrlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for RedisUrlFault {}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(address) => fmt::Display::fmt(address, f),
            Place::Unix(path) => fmt::Display::fmt(&path.display(), f),
            Place::Sentinels { sentinels, name } => {
                write!(f, "{name} of ")?;
                for (index, sentinel) in sentinels.iter().enumerate() {
                    write!(f, "{}{sentinel}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RedisUrl {
        text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    #[test]
    fn each_form_is_read_and_shown_without_its_login() {
        for (text, shown, tls, database) in [
            ("redis://h", "h:6379", false, 0),
            ("redis://h:7000/", "h:7000", false, 0),
            ("rediss://ana:p%40%2f%3a@h.example:7000/3", "h.example:7000", true, 3),
            ("redis://[::1]:7000/15", "[::1]:7000", false, 15),
            ("redis://[::1]", "[::1]:6379", false, 0),
            ("redis://:pass@10.0.0.1", "10.0.0.1:6379", false, 0),
            ("unix:///run/redis/redis.sock", "/run/redis/redis.sock", false, 0),
            ("unix://ana:pass@/run/redis.sock?db=2", "/run/redis.sock", false, 2),
            ("redis+sentinel://a,b:7000,[::1]:7001/main", "main of a:26379,b:7000,[::1]:7001", false, 0),
            ("rediss+sentinel://ana:pass@a/main/4", "main of a:26379", true, 4),
        ] {
            let url = read(text);
            assert_eq!((url.to_string().as_str(), url.tls, url.database), (shown, tls, database), "{text}");
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn user_and_password_are_decoded_and_an_empty_one_is_none() {
        for (text, user, password) in [
            ("redis://h", None, None),
            ("redis://ana@h", Some("ana"), None),
            ("redis://:p%40s%3As@h", None, Some("p@s:s")),
            ("redis://ana:a@b:c@h", Some("ana"), Some("a@b:c")),
            ("redis://ana:@h", Some("ana"), None),
            ("redis+sentinel://ana:x%2fy@a:1,b:2/n", Some("ana"), Some("x/y")),
        ] {
            let url = read(text);
            assert_eq!((url.user.as_deref(), url.password.as_deref()), (user, password), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_words_that_show_nothing_of_it() {
        for (text, reason) in [
            ("", "must begin with"),
            ("h:6379", "must begin with"),
            ("http://secret@h", "must begin with"),
            ("redis://", "HOST"),
            ("redis://secret@", "HOST"),
            ("redis://a b", "HOST"),
            ("redis://h:0", "HOST"),
            ("redis://h:70000", "HOST"),
            ("redis://[::1", "HOST"),
            ("redis://[::1]secret", "HOST"),
            ("redis://h/secret", "database"),
            ("redis://h/1/2", "database"),
            ("redis://h/70000", "database"),
            ("redis://h?password=secret", "parameters"),
            ("redis://h/0#secret", "parameters"),
            ("redis://ana:%ff@h", "UTF-8"),
            ("unix://run/redis.sock", "absolute"),
            ("unix:///run/redis.sock?db=secret", "database"),
            ("redis+sentinel://a,b", "NAME"),
            ("redis+sentinel://a,,b/main", "HOST"),
            ("redis+sentinel://a/main/secret", "database"),
        ] {
            let fault = text.parse::<RedisUrl>().expect_err(text).to_string();
            assert!(fault.contains(reason) && !fault.contains("secret"), "{text}: {fault}");
        }
    }
}
