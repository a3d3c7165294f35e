//! The variables of the process.

use std::ffi::OsString;

use clap::{Arg, Command, builder::Resettable};

/// The value of an option's variable, also if it is empty.
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the environment")]
pub(super) fn variable(option: &Arg) -> Option<OsString> {
    std::env::var_os(option.get_env()?)
}

/// The token of the client commands, if it is UTF-8 and not empty.
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the environment")]
pub(super) fn token() -> Option<String> {
    std::env::var(TOKEN).ok().filter(|token| !token.is_empty())
}

/// Without the variables that are empty: clap would parse the empty text.
pub(super) fn without_empty_variables(definition: Command) -> Command {
    let unless_empty = |option: Arg| {
        if variable(&option).is_some_and(|value| value.is_empty()) { option.env(Resettable::Reset) } else { option }
    };
    definition.mut_args(unless_empty).mut_subcommands(without_empty_variables)
}

/// A line for each variable that looks like one of the daemon's but is none: its value would be ignored without a word.
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the environment")]
pub(super) fn unknown_variables(definition: &Command) -> Vec<String> {
    let known = variables_of(definition);
    let of_clients: Vec<_> = definition.get_subcommands().flat_map(variables_of).chain([TOKEN]).collect();
    let variables = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let texts = variables.map(|(name, value)| (text(&name), text(&value)));
    let mut lines: Vec<_> = texts
        .filter(|(name, value)| {
            ![&known[..], &of_clients[..]].concat().contains(&name.as_str()) && !is_service_link(name, value)
        })
        .filter_map(|(name, _)| warning(&name, &known))
        .collect();
    lines.sort();
    lines
}

fn variables_of(definition: &Command) -> Vec<&str> {
    definition.get_arguments().filter_map(|option| option.get_env()?.to_str()).collect()
}

fn text(text: &std::ffi::OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// `None` for the variable of another program.
fn warning(name: &str, known: &[&str]) -> Option<String> {
    let option = name.strip_prefix(PREFIX)?;
    // Only the part that differs: the prefix alone would make all names similar.
    let similarity = |known: &str| strsim::jaro(option, known.strip_prefix(PREFIX).unwrap_or(known));
    let closest = known.iter().map(|known| (similarity(known), known)).max_by(|(a, _), (b, _)| a.total_cmp(b));
    let name = name.escape_debug();
    Some(match closest {
        Some((similarity, closest)) if similarity > SIMILAR => {
            format!("the variable {name} is unknown and ignored; did you mean {closest}?")
        }
        _ => format!("the variable {name} is unknown and ignored"),
    })
}

/// Kubernetes and Docker describe a service to every container next to it: one that is called `signal` as `SIGNAL_SERVICE_HOST`,
/// `SIGNAL_PORT_1837_TCP_ADDR` and `SIGNAL_PORT=tcp://10.0.0.1:1837`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let after_port = name.split_once("_PORT_").map_or("", |(_, rest)| rest);
    is_url
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || after_port.starts_with(|first: char| first.is_ascii_digit())
}

const PREFIX: &str = "SIGNAL_";

/// Not the variable of an option: a token in a flag could be seen by everybody on the machine.
const TOKEN: &str = "SIGNAL_TOKEN";

/// clap's own bound for the tips about mistyped flags.
const SIMILAR: f64 = 0.7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_variable_is_named_with_the_one_that_was_probably_meant() {
        let known = ["PORT", "SIGNAL_AUTH", "SIGNAL_HOST", "SIGNAL_TRUSTED_PROXIES"];
        for (name, meant) in [
            ("SIGNAL_TRUSTED_PROXY", Some("SIGNAL_TRUSTED_PROXIES")),
            ("SIGNAL_PORT", Some("PORT")),
            ("SIGNAL_AUHT", Some("SIGNAL_AUTH")),
            ("SIGNAL_XYZ", None),
        ] {
            let line = warning(name, &known).unwrap();
            assert!(line.starts_with(&format!("the variable {name} is unknown")), "{line}");
            assert_eq!(line.split("did you mean ").nth(1), meant.map(|meant| format!("{meant}?")).as_deref(), "{line}");
        }
        assert_eq!(warning("SIGNALS", &known), None);
        assert_eq!(warning("MY_SIGNAL_AUTH", &known), None);
    }

    #[test]
    fn what_an_orchestrator_says_about_a_service_named_signal_is_no_mistyped_option() {
        for (name, value, is_link) in [
            ("SIGNAL_SERVICE_HOST", "10.0.0.1", true),
            ("SIGNAL_SERVICE_PORT", "1837", true),
            ("SIGNAL_SERVICE_PORT_HTTP", "1837", true),
            ("SIGNAL_PORT", "tcp://10.0.0.1:1837", true),
            ("SIGNAL_PORT_1837_TCP", "tcp://10.0.0.1:1837", true),
            ("SIGNAL_PORT_1837_TCP_PROTO", "tcp", true),
            ("SIGNAL_REDIS_SERVICE_HOST", "10.0.0.2", true),
            ("SIGNAL_PORT", "1837", false),
            ("SIGNAL_PORTS", "1837", false),
            ("SIGNAL_SERVICE_CLAIM", "service", false),
        ] {
            assert_eq!(is_service_link(name, value), is_link, "{name}={value}");
        }
    }
}
