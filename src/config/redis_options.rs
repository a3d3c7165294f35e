//! The options of more than one node: the Redis or Valkey that the nodes share.

use std::path::PathBuf;

use clap::Args;

use super::Given;
use crate::cluster::redis_engine::{RedisPrefix, RedisUrl};

/// Where the nodes meet. Without a URL there is one node.
#[derive(Args, Clone, Debug)]
pub struct RedisOptions {
    /// The Redis or Valkey through which this node works together with others: `redis://HOST`, `rediss://HOST` (TLS), `unix:///PATH`, or
    /// `redis+sentinel://HOST,HOST,.../NAME`; with user, password, port and database as usual. Everybody on this machine can read
    /// the command line, so give a password in the variable or in --redis-password-file. Without this option there is one node
    #[arg(long, env = "SIGNAL_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<RedisUrl>,

    /// Password for --redis. One line end at the end of the file is not part of it
    #[arg(long, env = "SIGNAL_REDIS_PASSWORD_FILE", value_name = "FILE")]
    pub redis_password_file: Option<PathBuf>,

    /// Certificates of the authorities that the certificate of a rediss:// server must come from, PEM. Without this option: those
    /// of the system
    #[arg(long, env = "SIGNAL_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,

    /// What the names of all keys and channels in Redis begin with: the same on all nodes, another one for another cluster
    #[arg(long, env = "SIGNAL_REDIS_PREFIX", value_name = "TEXT", default_value = "bs")]
    pub redis_prefix: RedisPrefix,
}

/// The options of `backend-signal cluster`.
#[derive(Args, Clone, Debug)]
pub struct ClusterView {
    /// Where the nodes meet.
    #[command(flatten)]
    pub redis: RedisOptions,

    /// Write one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

impl RedisOptions {
    /// Says which options do not go together.
    pub(super) fn contradiction(&self, given: &Given) -> Option<&'static str> {
        let Self { redis, redis_password_file: password_file, redis_ca: ca, .. } = self;
        let Some(url) = redis else {
            return match (password_file, ca) {
                (Some(_), _) => Some("--redis-password-file needs --redis"),
                (None, Some(_)) => Some("--redis-ca needs --redis"),
                (None, None) => given.has("--redis-prefix").then_some("--redis-prefix needs --redis"),
            };
        };
        if password_file.is_some() && url.has_password() {
            return Some("--redis-password-file and a password in the URL of --redis; leave one of them out");
        }
        (ca.is_some() && !url.is_tls()).then_some("--redis-ca needs TLS: a URL of --redis that begins with rediss")
    }
}
