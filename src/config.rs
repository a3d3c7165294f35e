//! Every flag and variable, parsed into types; the only room that reads the environment.

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use clap::{ArgAction, Parser, Subcommand, ValueEnum, error::ErrorKind};
use ipnet::IpNet;

use crate::telemetry::{LogFormat, LogLevel};

/// The daemon through which two devices find each other before a WebRTC call: server-sent events and gRPC on one port.
///
/// Every option is a flag and an environment variable. SIGTERM and SIGINT drain: streams end over the drain window, then the
/// daemon exits with 0; a second signal exits at once. A bad option, a taken port or an unreadable file exits with 2.
#[derive(Clone, Debug, Parser)]
#[command(name = "backend-signal", version, max_term_width = 120)]
pub struct Config {
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Port to listen on, for HTTP and gRPC alike; 0 picks a free one
    #[arg(long, env = "PORT", default_value_t = 1837, global = true)]
    pub port: u16,

    /// Address or host name to listen on
    #[arg(long, env = "SIGNAL_HOST", default_value = "0.0.0.0", global = true)]
    pub host: String,

    /// Where an identity comes from
    #[arg(long, env = "SIGNAL_AUTH", value_enum, default_value = "claim")]
    pub auth: AuthMode,

    /// Which routes require a claim: subscribing, or all but health and metrics
    #[arg(long, env = "SIGNAL_REQUIRE_CLAIM", value_enum, default_value = "subscribe")]
    pub require_claim: RequireClaim,

    /// Networks of the proxies that set the claim; requests from anywhere else are refused. Empty: everybody is believed
    #[arg(long, env = "SIGNAL_TRUSTED_PROXIES", value_name = "CIDR,...", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Origins whose pages may call with credentials. Empty: any origin, without credentials
    #[arg(long, env = "SIGNAL_CORS_ORIGINS", value_name = "ORIGIN,...", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<http::HeaderValue>,

    /// Largest request body or gRPC message, at most 262144
    #[arg(long, env = "SIGNAL_BODY_LIMIT", value_name = "BYTES", default_value_t = 102_400,
          value_parser = clap::value_parser!(u32).range(1..=MAX_BODY))]
    pub body_limit: u32,

    /// How long a request body may take to arrive
    #[arg(long, env = "SIGNAL_BODY_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub body_timeout: Duration,

    /// How long a connection may take for its first bytes and a request's head, and idle between two requests of HTTP/1.1;
    /// longer than the idle time of a proxy's pool
    #[arg(long, env = "SIGNAL_HEADER_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub header_timeout: Duration,

    /// Silence after which a stream gets a ping, give or take 10 %
    #[arg(long, env = "SIGNAL_HEARTBEAT", value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub heartbeat: Duration,

    /// A stream whose oldest unsent message is older than this is cut
    #[arg(long, env = "SIGNAL_STALL_TIMEOUT", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub stall_timeout: Duration,

    /// How long a device that left may come back and resume
    #[arg(long, env = "SIGNAL_RESUME_WINDOW", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub resume_window: Duration,

    /// How long a message is held for a device that is not connected, at most, if its sender asks for it
    #[arg(long, env = "SIGNAL_HOLD_LIMIT", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub hold_limit: Duration,

    /// Bytes of memory that the messages in all mailboxes may take together
    #[arg(long, env = "SIGNAL_MEMORY_BUDGET", value_name = "BYTES", default_value_t = 1 << 30)]
    pub memory_budget: usize,

    /// Bytes of memory that held messages may take together; 0: any number [default: a quarter of --memory-budget]
    #[arg(long, env = "SIGNAL_HOLD_BUDGET", value_name = "BYTES")]
    pub hold_budget: Option<usize>,

    /// Devices of one user, with and without a stream; 0: any number
    #[arg(long, env = "SIGNAL_USER_DEVICES", value_name = "COUNT", default_value_t = 256)]
    pub user_devices: usize,

    /// Of these, such as only hold messages; 0: any number
    #[arg(long, env = "SIGNAL_USER_HELD_DEVICES", value_name = "COUNT", default_value_t = 64)]
    pub user_held_devices: usize,

    /// Watches of one user's devices; 0: any number
    #[arg(long, env = "SIGNAL_USER_WATCHERS", value_name = "COUNT", default_value_t = 1_000)]
    pub user_watchers: usize,

    /// Watches of one caller that has an identity; 0: any number
    #[arg(long, env = "SIGNAL_CALLER_WATCHES", value_name = "COUNT", default_value_t = 64)]
    pub caller_watches: usize,

    /// Open connections, at most [default: the limit of descriptors less a quarter of them, at most 512]
    #[arg(long, env = "SIGNAL_MAX_CONNECTIONS", value_name = "COUNT", value_parser = count)]
    pub max_connections: Option<usize>,

    /// Concurrent streams of one HTTP/2 connection
    #[arg(long, env = "SIGNAL_MAX_STREAMS", value_name = "COUNT", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,

    /// Write event streams of HTTP/1.1 past the HTTP library, whose buffers are twenty times as large as all else of an idle
    /// stream; false lets the library write them
    #[arg(long, env = "SIGNAL_HTTP1_TAKEOVER", value_name = "BOOL", default_value_t = true,
          action = ArgAction::Set)]
    pub http1_takeover: bool,

    /// Threads that serve [default: one for each processor]
    #[arg(long, env = "SIGNAL_WORKER_THREADS", value_name = "COUNT", value_parser = count)]
    pub worker_threads: Option<usize>,

    /// How long streams may take to end after SIGTERM or SIGINT
    #[arg(long, env = "SIGNAL_DRAIN_WINDOW", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub drain_window: Duration,

    /// Certificate chain to speak TLS with, PEM; with --tls-key
    #[arg(long, env = "SIGNAL_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(long, env = "SIGNAL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// How much is logged
    #[arg(long, env = "SIGNAL_LOG", value_name = "LEVEL", value_enum, default_value = "info")]
    pub log: LogLevel,

    /// How a log line looks
    #[arg(long, env = "SIGNAL_LOG_FORMAT", value_enum, default_value = "human")]
    pub log_format: LogFormat,
}

/// What the binary can do besides serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Ask the daemon on this machine whether it is alive; exits with 0 or 1
    Healthcheck,
}

/// Where an identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// The header X-User-Claim, set by a forward-auth proxy
    Claim,
    /// A token that the daemon verifies itself; not there yet
    Jwt,
    /// Development: the path of a subscribe names the caller
    None,
}

/// Which routes require an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RequireClaim {
    /// Subscribing
    Subscribe,
    /// Every route but health and metrics
    All,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Refused {
    /// Somebody asked for help or the version: the text is the answer.
    Answered(String),
    /// One line that says what is wrong.
    Wrong(String),
}

impl Config {
    /// Reads the command line and the environment of this process.
    ///
    /// # Errors
    /// When an option is unknown or its value wrong, or help was asked for.
    pub fn from_process() -> Result<Self, Refused> {
        Self::try_parse().map_err(Refused::from)?.checked()
    }

    /// Reads a command line without the program's name, and the environment.
    ///
    /// # Errors
    /// As [`Config::from_process`].
    pub fn parse_args<A: Into<OsString> + Clone>(args: impl IntoIterator<Item = A>) -> Result<Self, Refused> {
        let name = OsString::from("backend-signal");
        let args = std::iter::once(name).chain(args.into_iter().map(Into::into));
        Self::try_parse_from(args).map_err(Refused::from)?.checked()
    }

    fn checked(self) -> Result<Self, Refused> {
        if self.auth == AuthMode::Jwt {
            return Err(Refused::Wrong(
                "--auth jwt is not there yet; use claim behind a forward-auth proxy".to_owned(),
            ));
        }
        Ok(self)
    }
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return Self::Answered(text);
        }
        // clap's first paragraph says what is wrong; usage and tips come after an empty line.
        let reason = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        Self::Wrong(reason.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(text) | Self::Wrong(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Refused {}

/// Seconds, with a fraction if need be, longer than nothing.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(1) || duration > LONGEST {
        return Err("must be between 0.001 and 86400".to_owned());
    }
    Ok(duration)
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "not a whole number above 0".to_owned())
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse().or(address).map_err(|_| "not a network such as 10.0.0.0/8".to_owned())
}

/// An origin as a browser sends it: scheme, host and port, nothing behind.
fn origin(text: &str) -> Result<http::HeaderValue, String> {
    let text = text.trim();
    let host = text.split_once("://").map(|(_, host)| host).filter(|host| !host.is_empty() && !host.contains('/'));
    let valid = host.is_some().then(|| http::HeaderValue::from_str(text).ok()).flatten();
    valid.ok_or_else(|| "not an origin such as https://example.org".to_owned())
}

/// A message never is larger than what may wait in a mailbox.
#[expect(clippy::cast_possible_wrap, reason = "a quarter of a mebibyte fits")]
const MAX_BODY: i64 = crate::hub::WAITING_BYTES as i64;

/// A day; nothing here makes sense beyond.
const LONGEST: Duration = Duration::from_secs(86_400);
