//! The engine on Redis or Valkey: one connection, with the directory in scripts and the wire in channels.

mod commands;
mod dial;
mod examination;
mod key_names;
mod lua;
mod redis_directory;
mod redis_server;
#[cfg(test)]
mod redis_tests;
mod redis_url;
mod redis_wire;
mod replies;
mod sentinels;
mod server_info;

use std::sync::{Arc, atomic::AtomicU64};

use tokio::sync::mpsc;

pub use self::{
    key_names::{RedisPrefix, RedisPrefixFault},
    redis_server::{RedisServer, RedisSettings},
    redis_url::{RedisUrl, RedisUrlFault},
};
use self::{
    redis_directory::RedisDirectory,
    redis_server::OpenFault,
    redis_wire::{RedisWire, receiver},
};
use super::{
    Surroundings,
    directory::{Answer, Fault, NodeId},
    lost::Lost,
    wire::{Channel, Connection, Engine, Published},
};

/// Connects to a server of Redis or Valkey.
pub struct RedisEngine {
    server: RedisServer,
    surroundings: Arc<dyn Surroundings>,
}

impl RedisEngine {
    /// Connects to nothing yet. The tasks of connections run in `surroundings`.
    #[must_use]
    pub fn new(server: RedisServer, surroundings: Arc<dyn Surroundings>) -> Self {
        Self { server, surroundings }
    }

    async fn open(&self, node: NodeId, inbox: mpsc::Sender<Published>) -> Result<Connection, OpenFault> {
        let (server, lost, prefix) = (&self.server, Lost::default(), self.server.prefix.clone());
        let opened = server.open(receiver(prefix.clone(), inbox, lost.clone())).await?;
        let (commands, task) = opened.commands(lost.clone());
        self.surroundings.spawn(Box::pin(task));
        let commands = Arc::new(commands);
        let channels = [Channel::Requests(node), Channel::Answers(node)].map(|channel| prefix.channel(&channel));
        let (prepared, subscribed) = tokio::join!(server.prepare(&commands), commands.subscribe(&channels));
        let (info, scripts) = prepared?;
        subscribed.map_err(|fault| server.fault(&fault))?;
        let directory = RedisDirectory {
            commands: commands.clone(),
            prefix: prefix.clone(),
            scripts,
            node,
            run: info.run().to_owned(),
            generation: AtomicU64::new(0),
        };
        let wire = RedisWire { commands, prefix };
        Ok(Connection { directory: Arc::new(directory), wire: Arc::new(wire), lost })
    }
}

impl Engine for RedisEngine {
    fn connect(&self, node: NodeId, inbox: mpsc::Sender<Published>) -> Answer<'_, Connection> {
        Box::pin(async move { self.open(node, inbox).await.map_err(|fault| Fault::Down(fault.into_reason())) })
    }
}
