//! What an operator should know before the daemon serves: how it is set up, and who could misuse it.

use std::net::SocketAddr;

use crate::config::{AuthMode, ServeOptions};

/// Logs in one line what decides who can use the daemon.
pub(super) fn log(options: &ServeOptions) {
    let identity = identity(options);
    let proxies: Vec<_> = options.trusted_proxies.iter().map(ToString::to_string).collect();
    let trusted_proxies = if proxies.is_empty() { "none named".to_owned() } else { proxies.join(",") };
    let tls = if options.endpoint.tls_cert.is_some() { "on" } else { "off" };
    let ice = match (options.ice.stun.is_empty(), options.ice.turn.is_empty()) {
        (true, true) => "none",
        (false, true) => "stun",
        (true, false) => "turn",
        (false, false) => "stun and turn",
    };
    let console = if options.console { "on" } else { "off" };
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, identity, trusted_proxies, tls, ice, console, "starting");
}

/// The value of `--auth`.
pub(super) fn identity(options: &ServeOptions) -> &'static str {
    match options.auth {
        AuthMode::Claim => "claim",
        AuthMode::Jwt => "jwt",
        AuthMode::None => "none",
    }
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
    // `::ffff:127.0.0.1` is a loopback address, too.
    let Some(open) = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback()) else {
        return warnings;
    };
    let open = open.ip();
    let trusts_everybody =
        options.trusted_proxies.is_empty() || options.trusted_proxies.iter().any(|network| network.prefix_len() == 0);
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
            let Ok(Command::Serve(options)) = Arguments::parse_args(arguments) else { panic!("options of serving") };
            let addresses = ["127.0.0.1", address].map(|ip| SocketAddr::new(ip.parse().unwrap(), 1837));
            let warnings = warnings(&options, &addresses);
            assert_eq!(warnings.len(), usize::from(warned_about.is_some()), "{arguments:?} {address}: {warnings:?}");
            if let Some(option) = warned_about {
                assert!(warnings[0].contains(address) && warnings[0].contains(option), "{warnings:?}");
            }
        }
    }
}
