//! The command line and the environment, parsed into types; the only room that reads the environment.

mod contradictions;
mod documents;
mod environment;
mod given;
mod ice_options;
mod permission_options;
mod redis_options;
mod refusal;
mod serve_options;
mod token_options;
mod values;

use std::{ffi::OsString, fmt, path::PathBuf};

use clap::{
    ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable,
    error::ErrorKind, parser::ValueSource,
};
use clap_complete::Shell;

use self::environment::{token, unknown_variables, without_empty_variables};
pub use self::{
    given::Given,
    ice_options::IceOptions,
    permission_options::PermissionOptions,
    redis_options::{ClusterView, RedisOptions},
    serve_options::{AuthMode, RequireClaim, ServeOptions},
    token_options::{Jwks, TokenOptions},
};
use crate::cli::ClientCommand;

/// The daemon through which two devices find each other before a WebRTC call: server-sent events and gRPC on one port.
///
/// Every option is a flag and an environment variable; the flag wins, and an empty variable counts as absent. BYTES may have a unit:
/// 64k, 512M or 1G, where k is 1024. SECONDS may have one, too: 500ms, 30s or 2m. SIGTERM and SIGINT drain: the daemon ends its
/// streams over the drain window, then exits with 0. A second signal makes it exit at once with 1. A bad option, a taken port or an
/// unreadable file is one line on standard error and exit code 2.
#[derive(Clone, Debug, Parser)]
#[command(name = "backend-signal", version, max_term_width = 120)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Request>,
    #[command(flatten)]
    serve: ServeOptions,
}

/// What the process is asked for.
#[derive(Clone, Debug, Subcommand)]
enum Request {
    #[command(flatten)]
    Run(Command),
    /// Write completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man page, or that of a subcommand: backend-signal man send | man -l -
    Man {
        /// The subcommand
        subcommand: Option<String>,
    },
}

/// What the process does, with the options for it.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the daemon; this is also what happens without a subcommand
    Serve(Box<ServeOptions>),
    /// Check options, variables and files as `serve` does, but do not serve: exit code 0, or 2 and a line that says what is wrong
    CheckConfig(Box<ServeOptions>),
    /// Ask a daemon that runs with the same options whether it is alive: exit code 0, or 1 and a line that says why not
    Healthcheck(Endpoint),
    /// Show the nodes that share a Redis, as their last beats left them: exit code 0, or 1 and a line that says why it cannot be read
    Cluster(Box<ClusterView>),
    /// A command of the client.
    #[command(flatten)]
    Client(Box<ClientCommand>),
}

/// Where the daemon listens. `serve` and `healthcheck` both need this, so its options may stand before or after the subcommand.
#[derive(Args, Clone, Debug)]
pub struct Endpoint {
    /// Port to listen on, for HTTP and gRPC; 0 picks a free one
    #[arg(long, env = "PORT", default_value_t = 1837, value_parser = values::port, global = true)]
    pub port: u16,

    /// Address or host name to listen on; of a host name, all addresses
    #[arg(long, env = "SIGNAL_HOST", default_value = "0.0.0.0", value_parser = values::host, global = true)]
    pub host: String,

    /// Certificate chain in PEM; with --tls-key, the daemon speaks TLS
    #[arg(long, env = "SIGNAL_TLS_CERT", value_name = "FILE", global = true)]
    pub tls_cert: Option<PathBuf>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why the process exits without running a command.
#[derive(Debug)]
pub enum EarlyExit {
    /// `--help` or `--version` was given; this is the text.
    Print(String),
    /// The command line is wrong; one line says why.
    Fail(String),
}

impl Arguments {
    /// Reads the command line and the environment of this process.
    ///
    /// # Errors
    /// When an option is unknown or its value wrong, or help was asked for.
    pub fn from_process() -> Result<Command, EarlyExit> {
        Self::parse_args(std::env::args_os().skip(1))
    }

    /// Reads a command line without the program's name, and the environment.
    ///
    /// # Errors
    /// As [`Arguments::from_process`].
    pub fn parse_args<A: Into<OsString> + Clone>(args: impl IntoIterator<Item = A>) -> Result<Command, EarlyExit> {
        let args: Vec<OsString> =
            [OsString::from("backend-signal")].into_iter().chain(args.into_iter().map(Into::into)).collect();
        let whole = if is_without_daemon(&args) { without_daemon(Self::command()) } else { Self::command() };
        let mut definition = without_empty_variables(whole.clone());
        let matches = definition.try_get_matches_from_mut(&args).map_err(|error| match error.kind() {
            // Help names all variables, also the empty ones.
            ErrorKind::DisplayHelp => whole.clone().try_get_matches_from(&args).err().unwrap_or(error),
            _ => error,
        });
        let matches = matches.map_err(|error| EarlyExit::of(&error, &definition, &args))?;
        let (subcommand, inner) = matches.subcommand().unwrap_or(("", &matches));
        if let Some(line) = misplaced(&definition, &matches, subcommand) {
            return Err(EarlyExit::Fail(line));
        }
        let parsed = Self::from_arg_matches(&matches).map_err(|error| EarlyExit::of(&error, &definition, &args));
        let Self { command, serve } = parsed?;
        let mut command = match command {
            None => Command::Serve(Box::new(serve)),
            Some(Request::Run(command)) => command,
            Some(Request::Completions { shell }) => {
                return Err(EarlyExit::Print(documents::completions(Self::command(), shell)));
            }
            Some(Request::Man { subcommand }) => {
                let page = documents::man_page(Self::command(), subcommand.as_deref());
                return Err(page.map_or_else(EarlyExit::Fail, EarlyExit::Print));
            }
        };
        match &mut command {
            Command::Serve(options) | Command::CheckConfig(options) => {
                options.unknown_variables = unknown_variables(&Self::command());
                options.complete(Given::of(inner, &definition)).map_err(EarlyExit::Fail)?;
            }
            Command::Cluster(view) => {
                let contradiction = view
                    .redis
                    .contradiction(&Given::of(inner, definition.find_subcommand(subcommand).unwrap_or(&definition)));
                let fault = contradiction.or(view.redis.redis.is_none().then_some(NO_REDIS));
                fault.map_or(Ok(()), |line| Err(EarlyExit::Fail(line.to_owned())))?;
            }
            Command::Client(client) => client.complete(token()).map_err(EarlyExit::Fail)?,
            Command::Healthcheck(_) => {}
        }
        Ok(command)
    }
}

/// Whether the first word, or the first after `help`, is a subcommand without the options of the daemon.
fn is_without_daemon(args: &[OsString]) -> bool {
    let mut words = args.iter().skip(1).filter_map(|word| word.to_str()).skip_while(|word| *word == "help");
    words.next().is_some_and(has_no_daemon_options)
}

fn has_no_daemon_options(subcommand: &str) -> bool {
    ClientCommand::has_subcommand(subcommand) || ["cluster", "completions", "man"].contains(&subcommand)
}

/// Without the options of the daemon, for a subcommand that has none of them and must not fail because of their variables.
fn without_daemon(definition: clap::Command) -> clap::Command {
    definition.mut_args(|option| option.global(false).env(Resettable::Reset).hide(true))
}

/// Options before the subcommand that it does not take from there. clap accepts them, but the subcommand has its own options, or
/// others: the value would be lost without a word.
fn misplaced(definition: &clap::Command, matches: &ArgMatches, subcommand: &str) -> Option<String> {
    let takes_none = has_no_daemon_options(subcommand);
    if !takes_none && !["serve", "check-config"].contains(&subcommand) {
        return None;
    }
    let explicit = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let options = definition.get_arguments().filter(|option| takes_none || !option.is_global_set());
    let flag = options.filter(|option| explicit(option.get_id().as_str())).find_map(clap::Arg::get_long)?;
    let has_it = definition
        .find_subcommand(subcommand)
        .is_some_and(|inner| inner.get_arguments().any(|option| option.get_long() == Some(flag)));
    Some(if takes_none && !has_it {
        format!("--{flag} is an option of the daemon; `{subcommand}` does not have it")
    } else {
        format!("--{flag} must stand after `{subcommand}`")
    })
}

const NO_REDIS: &str = "`cluster` needs --redis: give it the options of the nodes";

impl EarlyExit {
    fn of(error: &clap::Error, definition: &clap::Command, args: &[OsString]) -> Self {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return Self::Print(error.render().to_string());
        }
        Self::Fail(refusal::one_line(error, definition, args))
    }
}
