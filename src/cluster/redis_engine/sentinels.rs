//! Asks Sentinels where the primary is.

use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{Cmd, ErrorKind, RedisConnectionInfo, RedisError, Value, aio::MultiplexedConnection};

use super::{
    commands::words,
    dial,
    redis_server::{OpenFault, RedisServer, alongside, in_time},
    redis_url::HostPort,
};

/// Which Sentinel answered last: it is asked first.
#[derive(Default)]
pub(super) struct LastSentinel(AtomicUsize);

impl RedisServer {
    /// Asks one Sentinel after the other.
    pub(super) async fn ask_sentinels(&self, sentinels: &[HostPort], name: &str) -> Result<HostPort, OpenFault> {
        let first = self.last_sentinel.0.load(Ordering::Relaxed);
        let mut last = OpenFault::Unreachable("no Sentinel".to_owned());
        for step in 0..sentinels.len() {
            let index = (first + step) % sentinels.len();
            match self.ask_sentinel(&sentinels[index], name).await {
                Ok(primary) => {
                    self.last_sentinel.0.store(index, Ordering::Relaxed);
                    return Ok(primary);
                }
                Err(fault) => last = fault.of(&format!("Sentinel {}", sentinels[index])),
            }
        }
        Err(last)
    }

    /// Asks with the login of the server only if the Sentinel wants one: most have none.
    async fn ask_sentinel(&self, sentinel: &HostPort, name: &str) -> Result<HostPort, OpenFault> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let value = match self.query(sentinel, RedisConnectionInfo::default(), &command).await {
            Err(QueryFault::Answer(error)) if error.code() == Some("NOAUTH") => {
                self.query(sentinel, self.login(), &command).await
            }
            value => value,
        };
        match value {
            Ok(value) => {
                read_primary(value).ok_or_else(|| OpenFault::Unfit(format!("it knows no primary of the name {name}")))
            }
            Err(QueryFault::Answer(error)) if error.kind() == ErrorKind::Io => {
                Err(OpenFault::Unreachable(words(&error)))
            }
            Err(QueryFault::Answer(error)) => Err(OpenFault::Unfit(words(&error))),
            Err(QueryFault::Silent(why)) => Err(OpenFault::Unreachable(why)),
        }
    }

    async fn query(&self, at: &HostPort, login: RedisConnectionInfo, command: &Cmd) -> Result<Value, QueryFault> {
        let socket = dial::tcp(at, self.tls.as_ref()).await.map_err(QueryFault::Silent)?;
        let asked = in_time(async {
            let (mut connection, driver) = MultiplexedConnection::new(&login, socket).await?;
            alongside(driver, async move { connection.send_packed_command(command).await?.extract_error() }).await
        });
        asked.await.map_err(QueryFault::Silent)?.map_err(QueryFault::Answer)
    }
}

enum QueryFault {
    Silent(String),
    Answer(RedisError),
}

/// The host and the port of the primary. `None`: the Sentinel knows none.
fn read_primary(value: Value) -> Option<HostPort> {
    let Value::Array(items) = value else { return None };
    let mut texts = items.into_iter().map(|item| redis::from_redis_value::<String>(item).ok());
    Some(HostPort { host: texts.next()??, port: texts.next()??.parse().ok()? })
}
