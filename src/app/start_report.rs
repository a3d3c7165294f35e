//! What an operator should know before the daemon serves: how it is set up, and who could misuse it.

use std::{fmt, net::SocketAddr};

use crate::{
    cluster::redis_engine::RedisUrl,
    config::{AuthMode, Jwks, RedisOptions, ServeOptions, TokenOptions},
};

/// What decides who can use the daemon. No secret, and of a key set only the host that it is fetched from.
pub(super) struct SetUp {
    identity: &'static str,
    tokens: Option<TokenSetUp>,
    trusted_proxies: String,
    tls: &'static str,
    ice: &'static str,
    /// Where other nodes are met. `None`: there is one node.
    nodes: Option<String>,
    console: &'static str,
}

/// Which tokens are accepted.
struct TokenSetUp {
    keys: String,
    audience: String,
    issuer: String,
}

impl SetUp {
    pub(super) fn of(options: &ServeOptions) -> Self {
        let proxies: Vec<_> = options.trusted_proxies.iter().map(ToString::to_string).collect();
        Self {
            identity: identity(options),
            tokens: (options.auth == AuthMode::Jwt).then(|| TokenSetUp::of(&options.tokens)),
            trusted_proxies: list(&proxies, "none named"),
            tls: if options.endpoint.tls_cert.is_some() { "on" } else { "off" },
            ice: ice(options),
            nodes: nodes(options),
            console: if options.console { "on" } else { "off" },
        }
    }

    /// Logs it in one line.
    pub(super) fn log(&self) {
        let Self { identity, tokens, trusted_proxies, tls, ice, nodes, console } = self;
        let keys = tokens.as_ref().map(|tokens| tokens.keys.as_str());
        let audience = tokens.as_ref().map(|tokens| tokens.audience.as_str());
        let issuer = tokens.as_ref().map(|tokens| tokens.issuer.as_str());
        tracing::info!(
            version = VERSION,
            identity,
            keys,
            audience,
            issuer,
            trusted_proxies,
            tls,
            ice,
            nodes,
            console,
            "starting"
        );
    }
}

/// The fields as the log has them.
impl fmt::Display for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, tokens, trusted_proxies, tls, ice, nodes, console } = self;
        write!(f, "version={VERSION:?} identity={identity:?}")?;
        if let Some(TokenSetUp { keys, audience, issuer }) = tokens {
            write!(f, " keys={keys:?} audience={audience:?} issuer={issuer:?}")?;
        }
        write!(f, " trusted_proxies={trusted_proxies:?} tls={tls:?} ice={ice:?}")?;
        if let Some(nodes) = nodes {
            write!(f, " nodes={nodes:?}")?;
        }
        write!(f, " console={console:?}")
    }
}

impl TokenSetUp {
    fn of(options: &TokenOptions) -> Self {
        let keys = match (&options.jwks, &options.jwt_public_key) {
            (Some(Jwks::Url(url)), _) => format!("key set of {}", url.host().unwrap_or_default()),
            (Some(Jwks::File(_)), _) => "key set in a file".to_owned(),
            (None, Some(_)) => "public key in a file".to_owned(),
            (None, None) => "secret in a file".to_owned(),
        };
        Self { keys, audience: list(&options.jwt_audience, "none"), issuer: list(&options.jwt_issuer, "any") }
    }
}

fn list(elements: &[String], instead: &str) -> String {
    if elements.is_empty() { instead.to_owned() } else { elements.join(",") }
}

/// Also on a loopback address: the browser of this machine asks for whatever page is open in it.
const RELAY_FOR_ANYBODY: &str = "anybody who can pose as anybody gets credentials for the servers of --turn, also any page that is open \
    in a browser on this machine; give the daemon an identity to check (--auth jwt, or --trusted-proxies)";

const TICKETS_OF_ONE_NODE: &str = "without --ticket-key-file a ticket opens a stream only on the node that gave it, and a load balancer \
    may send the client to another one; give all nodes the same key";

const PASSWORD_FOR_EVERYBODY: &str = "everybody on this machine can read the password in --redis on the command line; use the variable \
    SIGNAL_REDIS or --redis-password-file";

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The value of `--auth`.
pub(super) fn identity(options: &ServeOptions) -> &'static str {
    match options.auth {
        AuthMode::Claim => "claim",
        AuthMode::Jwt => "jwt",
        AuthMode::None => "none",
    }
}

/// Which servers for a call are named.
fn ice(options: &ServeOptions) -> &'static str {
    match (options.ice.stun.is_empty(), options.ice.turn.is_empty()) {
        (true, true) => "none",
        (false, true) => "stun",
        (true, false) => "turn",
        (false, false) => "stun and turn",
    }
}

/// Where this node meets others, without a user and a password.
fn nodes(options: &ServeOptions) -> Option<String> {
    let RedisOptions { redis, redis_prefix, .. } = &options.nodes;
    let redis = redis.as_ref()?;
    Some(format!("by {redis}, keys {redis_prefix}:*{}", if redis.is_tls() { ", TLS" } else { "" }))
}

/// Where a browser on this machine finds the console, if there is one.
pub(super) fn console(options: &ServeOptions, addresses: &[SocketAddr]) -> Option<String> {
    let address = addresses.first().filter(|_| options.console)?;
    let scheme = if options.endpoint.tls_cert.is_some() { "https" } else { "http" };
    // A browser cannot open 0.0.0.0. It gives a page the camera at localhost, and elsewhere only over https.
    let local = address.ip().is_unspecified().then(|| format!("localhost:{}", address.port()));
    Some(format!("{scheme}://{}/", local.unwrap_or_else(|| address.to_string())))
}

/// A line for each danger. `addresses` are those of the host.
pub(super) fn warnings(options: &ServeOptions, addresses: &[SocketAddr]) -> Vec<String> {
    let mut warnings = options.unknown_variables.clone();
    let trusts_everybody =
        options.trusted_proxies.is_empty() || options.trusted_proxies.iter().any(|network| network.prefix_len() == 0);
    let anybody = options.auth == AuthMode::None || (options.auth == AuthMode::Claim && trusts_everybody);
    if anybody && !options.ice.turn.is_empty() {
        warnings.push(RELAY_FOR_ANYBODY.to_owned());
    }
    let (redis, has_nodes) = (options.nodes.redis.as_ref(), options.nodes.redis.is_some());
    if redis.is_some_and(RedisUrl::has_password) && options.given.is_on_command_line("--redis") {
        warnings.push(PASSWORD_FOR_EVERYBODY.to_owned());
    }
    if has_nodes && options.auth == AuthMode::Jwt && options.tokens.ticket_key_file.is_none() {
        warnings.push(TICKETS_OF_ONE_NODE.to_owned());
    }
    // `::ffff:127.0.0.1` is a loopback address, too.
    let Some(open) = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback()) else {
        return warnings;
    };
    let open = open.ip();
    match options.auth {
        AuthMode::None => warnings.push(format!(
            "anybody who reaches {open} can pose as anybody, because of --auth none; it is for development on a loopback address"
        )),
        AuthMode::Claim if trusts_everybody => warnings.push(format!(
            "anybody who reaches {open} can pose as anybody: the header X-User-Claim is believed from every address. Name the \
             proxies that set it with --trusted-proxies"
        )),
        AuthMode::Claim | AuthMode::Jwt => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Arguments, Command};

    fn warnings_of(arguments: &[&str], addresses: &[SocketAddr]) -> Vec<String> {
        let Ok(Command::Serve(options)) = Arguments::parse_args(arguments) else { panic!("options of serving") };
        warnings(&options, addresses)
    }

    #[test]
    fn a_relay_for_anybody_is_a_warning_also_on_a_loopback_address() {
        let loopback = [SocketAddr::from(([127, 0, 0, 1], 1837))];
        let turn = ["--turn", "turn:turn.example.org", "--turn-secret-file", "secret"];
        for (arguments, count) in [
            (&["--dev"][..], 1),
            (&["--auth", "none"], 1),
            (&[], 1),
            (&["--trusted-proxies", "127.0.0.1"], 0),
            (&["--auth", "jwt", "--jwt-secret-file", "x"], 0),
        ] {
            let found = warnings_of(&[arguments, &turn].concat(), &loopback);
            assert_eq!(found.iter().filter(|line| line.contains("--turn")).count(), count, "{arguments:?}: {found:?}");
            assert!(warnings_of(arguments, &loopback).is_empty(), "{arguments:?}");
        }
    }

    #[test]
    fn a_daemon_on_which_anybody_could_pose_as_anybody_warns_in_one_line() {
        for (arguments, address, warned_about) in [
            (&[][..], "0.0.0.0", Some("--trusted-proxies")),
            (&[], "192.0.2.1", Some("--trusted-proxies")),
            (&[], "::", Some("--trusted-proxies")),
            (&[], "127.0.0.1", None),
            (&[], "127.9.9.9", None),
            (&[], "::1", None),
            (&[], "::ffff:127.0.0.1", None),
            (&["--trusted-proxies", "10.0.0.0/8"], "0.0.0.0", None),
            (&["--trusted-proxies", "10.0.0.0/8,0.0.0.0/0"], "0.0.0.0", Some("--trusted-proxies")),
            (&["--trusted-proxies", "::/0"], "0.0.0.0", Some("--trusted-proxies")),
            (&["--auth", "none"], "0.0.0.0", Some("--auth none")),
            (&["--auth", "none", "--trusted-proxies", "10.0.0.0/8"], "0.0.0.0", Some("--auth none")),
            (&["--auth", "none"], "127.0.0.1", None),
            (&["--dev"], "127.0.0.1", None),
        ] {
            let addresses = ["127.0.0.1", address].map(|ip| SocketAddr::new(ip.parse().unwrap(), 1837));
            let warnings = warnings_of(arguments, &addresses);
            assert_eq!(warnings.len(), usize::from(warned_about.is_some()), "{arguments:?} {address}: {warnings:?}");
            if let Some(option) = warned_about {
                assert!(warnings[0].contains(address) && warnings[0].contains(option), "{warnings:?}");
            }
        }
    }
}
