//! One line that says why a command line or a variable is refused.

use std::ffi::OsString;

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue},
};

use super::environment::variable;

/// clap writes several paragraphs; this line has what is wrong, clap's tips, and the variable that the value came from.
pub(super) fn one_line(error: &Error, definition: &Command, args: &[OsString]) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(str::trim);
    let what = paragraphs.next().unwrap_or_default().trim_start_matches("error: ");
    let mut line = what.split_whitespace().collect::<Vec<_>>().join(" ");
    for tip in paragraphs.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("tip: ")) {
        line.push_str("; ");
        line.push_str(tip);
    }
    match source(error, definition, args) {
        Some(name) => format!("{line} (from the variable {name})"),
        None => line,
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
