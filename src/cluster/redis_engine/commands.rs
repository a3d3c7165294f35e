//! The commands of one connection to the server: with a time-out, and with what breaks it. Nothing is queued or sent again.

use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use crate::cluster::{directory::Fault, lost::Lost};

/// Sends commands over a connection that ends with the first error.
pub(super) struct Commands {
    connection: MultiplexedConnection,
    lost: Lost,
}

impl Commands {
    pub(super) fn new(connection: MultiplexedConnection, lost: Lost) -> Self {
        Self { connection, lost }
    }

    /// Sends a command and gives its answer.
    pub(super) async fn call(&self, command: &Cmd) -> Result<Value, Fault> {
        let mut connection = self.connection.clone();
        self.run(async move { connection.send_packed_command(command).await?.extract_error() }).await
    }

    /// Loads scripts, all in one round trip. Gives their names.
    pub(super) async fn load(&self, scripts: &[&str]) -> Result<Vec<Value>, Fault> {
        let mut pipeline = redis::pipe();
        for script in scripts {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(*script);
        }
        let mut connection = self.connection.clone();
        self.run(async move { pipeline.query_async::<Vec<Value>>(&mut connection).await }).await
    }

    pub(super) async fn subscribe(&self, channels: &[String]) -> Result<(), Fault> {
        let mut connection = self.connection.clone();
        self.run(async move { connection.subscribe(channels).await }).await
    }

    pub(super) async fn unsubscribe(&self, channels: &[String]) -> Result<(), Fault> {
        let mut connection = self.connection.clone();
        self.run(async move { connection.unsubscribe(channels).await }).await
    }

    /// Ends the connection because of an answer that is no answer.
    pub(super) fn not_understood(&self) -> Fault {
        self.fault("the server gave an answer that is not understood", Fault::Late)
    }

    /// Ends the connection because the directory is another one.
    pub(super) fn reborn(&self) -> Fault {
        self.lost.set(&Fault::Reborn.to_string());
        Fault::Reborn
    }

    async fn run<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, Fault> {
        if let Some(why) = self.lost.reason() {
            return Err(Fault::Down(why));
        }
        match timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let refused = error.code().is_some_and(|code| WITHOUT_EFFECT.contains(&code));
                Err(self.fault(&words(&error), if refused { Fault::Down } else { Fault::Late }))
            }
            Err(_) => Err(self.fault("the server did not answer within 1 s", Fault::Late)),
        }
    }

    /// Ends the connection. When it was lost before, that reason is the fault's.
    fn fault(&self, why: &str, kind: fn(String) -> Fault) -> Fault {
        self.lost.set(why);
        kind(self.lost.reason().unwrap_or_default())
    }
}

impl Drop for Commands {
    /// Ends the task that reads and writes, also while commands are unanswered.
    fn drop(&mut self) {
        self.lost.set("the connection was closed");
    }
}

/// An error in words, on one line: `NOREPLICAS Not enough good replicas to write.`
pub(super) fn words(error: &RedisError) -> String {
    let answers = error.clone().into_server_errors();
    match answers.as_ref().and_then(|answers| answers.first()) {
        Some((_, answer)) if answer.code() == "NOAUTH" => {
            "NOAUTH it wants a password: give it in the URL or by --redis-password-file".to_owned()
        }
        Some((_, answer)) => [answer.code(), " ", answer.details().unwrap_or_default()].concat(),
        None if error.kind() == ErrorKind::Parse => "this is no answer of a Redis".to_owned(),
        None => error.to_string(),
    }
}

/// How long a command waits for its answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The errors with which a server refuses a command before it has any effect.
const WITHOUT_EFFECT: &[&str] = &[
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOPERM",
    "NOREPLICAS",
    "NOSCRIPT",
    "READONLY",
];
