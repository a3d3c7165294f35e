//! The options of serving.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum, builder::BoolishValueParser};
use ipnet::IpNet;

use super::{
    Endpoint, Given, IceOptions, PermissionOptions, RedisOptions, TokenOptions, contradictions,
    values::{body_limit, bytes, count, network, origin, seconds, stall_timeout, threads, whole},
};
use crate::{
    limits::{AddressScope, AddressSource},
    telemetry::{LogFormat, LogLevel},
};

/// Every option of the daemon while it serves.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Where it listens.
    #[command(flatten)]
    pub endpoint: Endpoint,

    /// For development on one machine: --auth none, --console, and 127.0.0.1 as the default of --host. An address that other machines
    /// can reach is refused
    #[arg(long, env = "SIGNAL_DEV", value_parser = BoolishValueParser::new())]
    pub dev: bool,

    /// Serve a page for people at /console, to which / leads: two tabs call each other, streams are shown live. It needs no identity
    /// itself, and whoever opens it can do only what they may do without it
    #[arg(long, env = "SIGNAL_CONSOLE", value_parser = BoolishValueParser::new())]
    pub console: bool,

    /// Where an identity comes from
    #[arg(long, env = "SIGNAL_AUTH", value_enum, default_value = "claim")]
    pub auth: AuthMode,

    /// Which routes require an identity: subscribing, or all but health, metrics, reflection and the files for browsers
    #[arg(long, env = "SIGNAL_REQUIRE_CLAIM", value_enum, default_value = "subscribe")]
    pub require_claim: RequireClaim,

    /// Which tokens are accepted with --auth jwt.
    #[command(flatten)]
    pub tokens: TokenOptions,

    /// Networks of the proxies whose claims and client addresses are believed; with --auth claim, a request from any other address
    /// is refused, except for health, metrics, reflection and the files for browsers. Empty: every claim is believed, and no client address
    #[arg(long, env = "SIGNAL_TRUSTED_PROXIES", value_name = "CIDR,...", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Where a trusted proxy names the address of its client
    #[arg(long, env = "SIGNAL_CLIENT_ADDRESS", value_name = "WHERE", value_enum, default_value = "x-forwarded-for")]
    pub client_address: AddressSource,

    /// Which addresses count against limits
    #[arg(long, env = "SIGNAL_ADDRESS_LIMITS", value_name = "WHICH", value_enum, default_value = "public")]
    pub address_limits: AddressScope,

    /// Who may signal whom.
    #[command(flatten)]
    pub permissions: PermissionOptions,

    /// Which servers clients are told of for their calls.
    #[command(flatten)]
    pub ice: IceOptions,

    /// Where this node meets others.
    #[command(flatten)]
    pub nodes: RedisOptions,

    /// Origins whose pages may call with credentials. Empty: any origin, without credentials; set this if a session is a cookie
    #[arg(long, env = "SIGNAL_CORS_ORIGINS", value_name = "ORIGIN,...", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<http::HeaderValue>,

    /// Largest request body or gRPC message
    #[arg(long, env = "SIGNAL_BODY_LIMIT", value_name = "BYTES", default_value = "102400", value_parser = body_limit)]
    pub body_limit: u32,

    /// How long a request body may take to arrive; a gRPC call has 10 s until its response begins
    #[arg(long, env = "SIGNAL_BODY_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub body_timeout: Duration,

    /// Longest time for the first bytes of a connection and for the head of a request, and longest idle time of an HTTP/1.1
    /// connection between two requests. Set it longer than the idle time of the proxy's connection pool
    #[arg(long, env = "SIGNAL_HEADER_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub header_timeout: Duration,

    /// A stream gets a ping after this time without traffic, or up to 10 % earlier, unless its client asked for another time
    #[arg(long, env = "SIGNAL_HEARTBEAT", value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub heartbeat: Duration,

    /// Longest time that a client may take to read 16 KiB of a response, or its last bytes; then the client is cut. At most 50,
    /// because a message counts as read, which is a guess, when its stream is still open after 60 s
    #[arg(long, env = "SIGNAL_STALL_TIMEOUT", value_name = "SECONDS", default_value = "5", value_parser = stall_timeout)]
    pub stall_timeout: Duration,

    /// How long after its last stream a device may come back and resume
    #[arg(long, env = "SIGNAL_RESUME_WINDOW", value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub resume_window: Duration,

    /// Longest time that a message waits for a device that is not connected; only if the sender asks for it with a TTL
    #[arg(long, env = "SIGNAL_HOLD_LIMIT", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub hold_limit: Duration,

    /// Bytes of memory for the messages in all mailboxes and the responses that clients have not read yet
    #[arg(long, env = "SIGNAL_MEMORY_BUDGET", value_name = "BYTES", default_value = "1073741824",
          value_parser = bytes)]
    pub memory_budget: usize,

    /// Bytes of memory for held messages; 0: no limit [default: a quarter of --memory-budget]
    #[arg(long, env = "SIGNAL_HOLD_BUDGET", value_name = "BYTES", value_parser = bytes)]
    pub hold_budget: Option<usize>,

    /// Most devices of one user, with and without a stream; 0: no limit
    #[arg(long, env = "SIGNAL_USER_DEVICES", value_name = "COUNT", default_value_t = 256,
          value_parser = whole::<usize>)]
    pub user_devices: usize,

    /// Most devices of one user that have no stream and only hold messages; 0: no limit
    #[arg(long, env = "SIGNAL_USER_HELD_DEVICES", value_name = "COUNT", default_value_t = 64,
          value_parser = whole::<usize>)]
    pub user_held_devices: usize,

    /// Most watches (streams of online and offline changes) of one user's devices; 0: no limit
    #[arg(long, env = "SIGNAL_USER_WATCHERS", value_name = "COUNT", default_value_t = 1_000,
          value_parser = whole::<usize>)]
    pub user_watchers: usize,

    /// Most watches of one caller that has an identity; 0: no limit
    #[arg(long, env = "SIGNAL_CALLER_WATCHES", value_name = "COUNT", default_value_t = 64,
          value_parser = whole::<usize>)]
    pub caller_watches: usize,

    /// Most messages a second of one user's device, or of all devices of a user whose identity names none, four times as many at once; 0: no limit
    #[arg(long, env = "SIGNAL_SEND_RATE", value_name = "COUNT", default_value_t = 100, value_parser = whole::<u32>)]
    pub send_rate: u32,

    /// Most messages a second of one address without an identity, five times as many at once; 0: no limit
    #[arg(long, env = "SIGNAL_ANONYMOUS_SEND_RATE", value_name = "COUNT", default_value_t = 20,
          value_parser = whole::<u32>)]
    pub anonymous_send_rate: u32,

    /// Identities of one address that are not valid, in a minute, before each 401 comes a second later than the one before; 0: no
    /// limit
    #[arg(long, env = "SIGNAL_IDENTITY_FAILURES", value_name = "COUNT", default_value_t = 10,
          value_parser = whole::<u32>)]
    pub identity_failures: u32,

    /// Most open connections [default and upper bound: the limit of file descriptors minus a reserve: a quarter, at most 512]
    #[arg(long, env = "SIGNAL_MAX_CONNECTIONS", value_name = "COUNT", value_parser = count::<usize>)]
    pub max_connections: Option<usize>,

    /// Most open connections of one address; more are closed; 0: no limit [default: a quarter of all connections]
    #[arg(long, env = "SIGNAL_ADDRESS_CONNECTIONS", value_name = "COUNT", value_parser = whole::<usize>)]
    pub address_connections: Option<usize>,

    /// Most concurrent streams of one HTTP/2 connection
    #[arg(long, env = "SIGNAL_MAX_STREAMS", value_name = "COUNT", default_value_t = 1_000,
          value_parser = count::<u32>)]
    pub max_streams: u32,

    /// Write HTTP/1.1 event streams without the HTTP library, whose buffers would make an idle stream take 9 KiB of memory instead
    /// of 1 KiB
    #[arg(long, env = "SIGNAL_HTTP1_TAKEOVER", value_name = "BOOL", default_value_t = true,
          action = ArgAction::Set)]
    pub http1_takeover: bool,

    /// Worker threads of the runtime, at most 1024 [default: one for each processor]
    #[arg(long, env = "SIGNAL_WORKER_THREADS", value_name = "COUNT", value_parser = threads)]
    pub worker_threads: Option<usize>,

    /// How long streams and requests in hand may take to end after SIGTERM or SIGINT; connections get 1 s more for their last bytes
    #[arg(long, env = "SIGNAL_DRAIN_WINDOW", value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub drain_window: Duration,

    /// Private key of the certificate, PEM
    #[arg(long, env = "SIGNAL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Certificates of the authorities that sign client certificates, PEM; a client with such a certificate and no other identity is
    /// the user `cert:` and its common name
    #[arg(long, env = "SIGNAL_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// How much is logged
    #[arg(long, env = "SIGNAL_LOG", value_name = "LEVEL", value_enum, default_value = "info")]
    pub log: LogLevel,

    /// How a log line looks
    #[arg(long, env = "SIGNAL_LOG_FORMAT", value_enum, default_value = "human")]
    pub log_format: LogFormat,

    /// Which of these options were given.
    #[arg(skip)]
    pub given: Given,

    /// A warning for each variable that is none of these but looks like one.
    #[arg(skip)]
    pub unknown_variables: Vec<String>,
}

/// Where an identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    /// The header X-User-Claim, set by a forward-auth proxy
    Claim,
    /// A token that the daemon verifies itself
    Jwt,
    /// Development: the path of a subscribe, or the query, names the caller
    None,
}

/// Which routes require an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RequireClaim {
    /// Subscribing
    Subscribe,
    /// Every route but health, metrics, reflection and the files for browsers
    All,
}

impl ServeOptions {
    /// The number of worker threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.worker_threads.or(std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1)
    }

    /// Sets the defaults that depend on other options. Says in one line which options do not go together.
    pub(super) fn complete(&mut self, given: Given) -> Result<(), String> {
        if self.dev && !given.has("--auth") {
            self.auth = AuthMode::None;
        }
        if self.dev && !given.has("--console") {
            self.console = true;
        }
        if self.dev && !given.has("--host") {
            "127.0.0.1".clone_into(&mut self.endpoint.host);
        }
        self.given = given;
        contradictions::find(self).map_or(Ok(()), |line| Err(self.given.with_variables(line)))
    }
}
