//! The server that the options name: opens connections to it and checks that it can be used.

use std::{pin::Pin, sync::Arc, time::Duration};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, Value};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use super::{
    commands::{Commands, words},
    dial,
    key_names::RedisPrefix,
    lua::{Loaded, SCRIPTS},
    redis_url::{Place, RedisUrl},
    sentinels::LastSentinel,
    server_info::ServerInfo,
};
use crate::cluster::{directory::Fault, lost::Lost};

/// What the options say of the server.
pub struct RedisSettings {
    /// Where it is, and who we are there.
    pub url: RedisUrl,
    /// The password, if it is not in the URL.
    pub password: Option<Vec<u8>>,
    /// PEM with the authorities that may vouch for it. `None`: those of the system.
    pub ca: Option<Vec<u8>>,
    /// What the names of all keys and channels begin with.
    pub prefix: RedisPrefix,
}

/// A server of Redis or Valkey.
pub struct RedisServer {
    pub(super) url: RedisUrl,
    pub(super) prefix: RedisPrefix,
    pub(super) tls: Option<Arc<ClientConfig>>,
    password: Option<String>,
    pub(super) last_sentinel: LastSentinel,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum OpenFault {
    /// It may be there later.
    Unreachable(String),
    /// It answers, and cannot be used.
    Unfit(String),
}

/// A connection with a task that must run for it.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl RedisServer {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the authorities are no certificates, or the password is not text. Shows nothing of either.
    pub fn new(settings: RedisSettings) -> Result<Self, String> {
        let RedisSettings { url, password, ca, prefix } = settings;
        let password = password.map(String::from_utf8).transpose().map_err(|_| "the password is not UTF-8")?;
        let password = password.or_else(|| url.password.clone());
        let tls = if url.tls { Some(dial::tls(ca.as_deref())?) } else { None };
        let prefix = prefix.in_database(url.database);
        Ok(Self { url, prefix, tls, password, last_sentinel: LastSentinel::default() })
    }

    /// Connects and logs in. `receive` gets the pushes.
    pub(super) async fn open(
        &self,
        receive: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> Result<Opened, OpenFault> {
        let socket = match &self.url.place {
            Place::Unix(path) => dial::unix(path).await,
            Place::Tcp(address) => dial::tcp(address, self.tls.as_ref()).await,
            Place::Sentinels { sentinels, name } => {
                let primary = self.ask_sentinels(sentinels, name).await?;
                dial::tcp(&primary, self.tls.as_ref()).await
            }
        };
        let socket = socket.map_err(OpenFault::Unreachable)?;
        let config = AsyncConnectionConfig::new()
            // `Commands` has a time-out of its own, which ends the connection.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WAITING)
            .set_push_sender(receive);
        let info = self.login().set_protocol(ProtocolVersion::RESP3);
        let opened = in_time(MultiplexedConnection::new_with_config(&info, socket, config)).await;
        let (connection, driver) =
            opened.map_err(|why| self.unreachable(&why))?.map_err(|error| self.refused(&error))?;
        Ok(Opened { connection, driver: Box::pin(driver) })
    }

    /// Checks a new connection and loads the scripts.
    pub(super) async fn prepare(&self, commands: &Commands) -> Result<(ServerInfo, Loaded), OpenFault> {
        let load = async {
            let mut names = Vec::with_capacity(SCRIPTS.len());
            for value in commands.load(&SCRIPTS).await? {
                names.push(redis::from_redis_value(value).map_err(|_| commands.not_understood())?);
            }
            Ok(Loaded(names))
        };
        let info = redis::cmd("INFO");
        let (info, loaded) = tokio::join!(commands.call(&info), load);
        let info = match info.map_err(|fault| self.fault(&fault))? {
            Value::VerbatimString { text, .. } => text,
            value => redis::from_redis_value(value).map_err(|_| self.fault(&commands.not_understood()))?,
        };
        let info = ServerInfo::read(&info);
        if let Some(why) = info.unfit() {
            // Sentinels name the old primary for a while when it is no longer one.
            let passes = !info.is_primary() && matches!(self.url.place, Place::Sentinels { .. });
            return Err(if passes { self.unreachable(&why) } else { OpenFault::Unfit(format!("{}: {why}", self.url)) });
        }
        Ok((info, loaded.map_err(|fault| self.fault(&fault))?))
    }

    pub(super) fn login(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(self.url.database.into());
        if let Some(user) = &self.url.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password);
        }
        info
    }

    pub(super) fn unreachable(&self, why: &str) -> OpenFault {
        OpenFault::Unreachable(format!("{}: {why}", self.url))
    }

    /// The answer to the login was an error.
    fn refused(&self, error: &RedisError) -> OpenFault {
        let passes = error.kind() == ErrorKind::Io || matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "BUSY"));
        let fault = if passes { OpenFault::Unreachable } else { OpenFault::Unfit };
        fault(format!("{}: {}", self.url, words(error)))
    }

    /// A command failed.
    pub(super) fn fault(&self, fault: &Fault) -> OpenFault {
        let why = fault.to_string();
        // The user lacks a right, and will lack it the next time.
        let kind = if why.starts_with("NOPERM") { OpenFault::Unfit } else { OpenFault::Unreachable };
        kind(format!("{}: {why}", self.url))
    }
}

impl OpenFault {
    /// Puts a name before the reason.
    pub(super) fn of(self, name: &str) -> Self {
        match self {
            Self::Unreachable(why) => Self::Unreachable(format!("{name}: {why}")),
            Self::Unfit(why) => Self::Unfit(format!("{name}: {why}")),
        }
    }

    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Unreachable(why) | Self::Unfit(why) => why,
        }
    }
}

impl Opened {
    /// What sends commands, and the task that reads and writes until the connection is lost.
    pub(super) fn commands(self, lost: Lost) -> (Commands, impl Future<Output = ()> + Send + 'static) {
        let Self { connection, driver } = self;
        let over = lost.clone();
        let task = async move {
            tokio::select! {
                () = driver => {}
                _ = over.wait() => {}
            }
        };
        (Commands::new(connection, lost), task)
    }
}

/// Runs `work`, and the task of its connection for as long as that takes.
pub(super) async fn alongside<T>(driver: impl Future<Output = ()>, work: impl Future<Output = T>) -> T {
    let driver = async {
        driver.await;
        // The work notices by itself that the connection is over.
        std::future::pending().await
    };
    tokio::select! {
        result = work => result,
        result = driver => result,
    }
}

/// Waits for a part of connecting.
pub(super) async fn in_time<T>(part: impl Future<Output = T>) -> Result<T, String> {
    timeout(PATIENCE, part).await.map_err(|_| "no answer within 500 ms".to_owned())
}

/// How long the login may take, or the answer of a Sentinel.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many commands wait to be written. They are lost after [`Commands`]'s time-out, so this is no limit in practice; with a
/// lower one, a command that waits for its turn could not be told from one that went out.
const WAITING: usize = 65_536;
