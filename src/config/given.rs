//! Which options were given, and which of them by a variable.

use clap::{ArgMatches, Command, parser::ValueSource};

/// The options that were given by a flag or a variable. All others have their defaults.
#[derive(Clone, Debug, Default)]
pub struct Given(Vec<(Flag, Option<Variable>)>);

/// With its two hyphens.
type Flag = String;

/// The name of the variable that a value came from.
type Variable = String;

impl Given {
    /// `matches` are those of the subcommand, if there is one.
    pub(super) fn of(matches: &ArgMatches, definition: &Command) -> Self {
        let options = definition.get_arguments().filter_map(|option| Some((option, option.get_env()?.to_str()?)));
        let given = options.filter_map(|(option, variable)| {
            let variable = match matches.value_source(option.get_id().as_str())? {
                ValueSource::CommandLine => None,
                ValueSource::EnvVariable => Some(variable.to_owned()),
                _ => return None,
            };
            Some((format!("--{}", option.get_long()?), variable))
        });
        Self(given.collect())
    }

    /// Whether the option was given.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|(given, _)| given == flag)
    }

    /// Whether the option was given on the command line, where everybody on the machine can read it.
    #[must_use]
    pub fn is_on_command_line(&self, flag: &str) -> bool {
        self.0.iter().any(|(given, variable)| given == flag && variable.is_none())
    }

    /// A line about options, with the variables that their values came from: the reader looks for them on the command line first.
    #[must_use]
    pub fn with_variables(&self, line: &str) -> String {
        let flags: Vec<_> = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
        let named = self.0.iter().filter(|(flag, _)| flags.contains(&flag.as_str()));
        let variables: Vec<_> = named.filter_map(|(_, variable)| variable.as_deref()).collect();
        match &variables[..] {
            [] => line.to_owned(),
            [one] => format!("{line} (from the variable {one})"),
            several => format!("{line} (from the variables {})", several.join(" and ")),
        }
    }
}
