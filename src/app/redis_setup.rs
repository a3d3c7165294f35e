//! From the options: what reaches the Redis where nodes meet, and a look at that server.

use std::io;

use super::inputs::about;
use crate::{
    cluster::{
        redis_engine::{RedisServer, RedisSettings},
        survey::Examined,
    },
    config::RedisOptions,
    secret_file::{read, read_secret},
};

/// The server where nodes meet.
pub(super) struct Redis {
    pub(super) server: RedisServer,
    /// What it is, such as `Redis 7.0.15`. `None`: it was not reached.
    pub(super) name: Option<String>,
    pub(super) warnings: Vec<String>,
}

impl Redis {
    /// `None` without `--redis`. A server that cannot be reached is a warning: it may come later, and until then the node serves its
    /// own devices.
    pub(super) async fn read(options: &RedisOptions) -> io::Result<Option<Self>> {
        let Some(server) = server(options)? else { return Ok(None) };
        let (name, warnings) = match server.examine().await {
            Examined::Fit { server, warnings } => (Some(server), warnings),
            Examined::Unfit(reason) => return Err(about(REDIS, &reason)),
            Examined::Unreachable(reason) => (None, vec![format!("{reason}; {ALONE}")]),
        };
        let warnings = warnings.iter().map(|warning| format!("{REDIS}: {warning}")).collect();
        Ok(Some(Self { server, name, warnings }))
    }
}

/// What reaches the server of these options. `None` without `--redis`.
pub(super) fn server(options: &RedisOptions) -> io::Result<Option<RedisServer>> {
    let RedisOptions { redis: Some(url), redis_password_file, redis_ca, redis_prefix } = options.clone() else {
        return Ok(None);
    };
    let password = redis_password_file.as_deref().map(read_secret).transpose();
    let password = password.map_err(|error| about("--redis-password-file", &error))?;
    let ca = redis_ca.as_deref().map(read).transpose().map_err(|error| about("--redis-ca", &error))?;
    let server = RedisServer::new(RedisSettings { url, password, ca, prefix: redis_prefix });
    server.map(Some).map_err(|reason| about(REDIS, &reason))
}

const REDIS: &str = "--redis";

const ALONE: &str = "until it can be used, this node serves only its own devices";
