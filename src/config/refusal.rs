//! One line that says why a command line or a variable is refused.

use std::{borrow::Cow, ffi::OsString};

use clap::{
    Arg, Command, Error,
    error::{ContextKind, ContextValue},
};

use super::environment::variable;

/// clap writes several paragraphs; this line has what is wrong, clap's tips, and the variable that the value came from. It shows no
/// value of an option whose values are secret, and of a URL no login, wherever it stands.
pub(super) fn one_line(error: &Error, definition: &Command, args: &[OsString]) -> String {
    let text = without_secret(error, definition);
    let mut paragraphs = text.split("\n\n").map(str::trim);
    let what = paragraphs.next().unwrap_or_default().trim_start_matches("error: ");
    let mut line = what.split_whitespace().map(without_login).collect::<Vec<_>>().join(" ");
    for tip in paragraphs.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("tip: ")) {
        line.push_str("; ");
        line.push_str(tip);
    }
    match source(error, definition, args) {
        Some(name) => format!("{line} (from the variable {name})"),
        None => line,
    }
}

/// The text of an error, without the refused value if that may hold a password.
fn without_secret(error: &Error, definition: &Command) -> String {
    let text = error.render().to_string();
    let (Some(ContextValue::String(option)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return text;
    };
    let flag = option.split_whitespace().next().and_then(|flag| flag.strip_prefix("--"));
    let is_secret = |option: &Arg| option.get_long() == flag && option.is_hide_env_values_set();
    let options = definition.get_subcommands().chain([definition]).flat_map(Command::get_arguments);
    if value.is_empty() || !options.into_iter().any(is_secret) {
        text
    } else {
        text.replace(&format!("'{value}'"), "'...'")
    }
}

/// A word without the login of a URL in it.
fn without_login(word: &str) -> Cow<'_, str> {
    match word.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://...@{rest}").into(),
        None => word.into(),
    }
}

/// The variable that a refused value came from; `None` when it came from a flag.
fn source(error: &Error, definition: &Command, args: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = option.split_whitespace().next()?;
    let is_given = args.iter().any(|arg| {
        arg.to_str().and_then(|arg| arg.strip_prefix(flag)).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    if is_given {
        return None;
    }
    let names = |name: &str| args.iter().skip(1).any(|arg| arg == name);
    let subcommand = definition.get_subcommands().find(|subcommand| names(subcommand.get_name()));
    let mut options = subcommand.into_iter().chain([definition]).flat_map(Command::get_arguments);
    let option = options.find(|option| option.get_long() == flag.strip_prefix("--"))?;
    variable(option).filter(|value| !value.is_empty())?;
    option.get_env()?.to_str().map(str::to_owned)
}
