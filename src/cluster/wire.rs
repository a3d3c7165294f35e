//! The wire: carries bytes between nodes. One trait, and the engine that makes a connection with a directory and a wire.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    directory::{Answer, Directory, NodeId},
    lost::Lost,
};
use crate::auth::TenantUser;

/// Where bytes are published.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// The requests and notices to a node (`i:NODE`).
    Requests(NodeId),
    /// The answers to a node (`r:NODE`).
    Answers(NodeId),
    /// The presence of a user's devices (`w:USER`).
    Presence(TenantUser),
}

/// Bytes that somebody published, as they come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The channel on which they came.
    pub channel: Channel,
    /// The bytes.
    pub bytes: Bytes,
}

/// Publishes to channels, and chooses which presence channels come in. The channels of the node itself always come in.
pub trait Wire: Send + Sync + 'static {
    /// Publishes. Answers how many nodes received it: 0 means that nobody listens.
    fn publish(&self, channel: Channel, bytes: Bytes) -> Answer<'_, usize>;

    /// Begins to receive a user's presence. Completes when everything that is published from now on comes in.
    fn subscribe<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, ()>;

    /// Receives a user's presence no more.
    fn unsubscribe<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, ()>;
}

/// A connection to the engine.
pub struct Connection {
    /// The directory.
    pub directory: Arc<dyn Directory>,
    /// The wire.
    pub wire: Arc<dyn Wire>,
    /// The end of the connection: nothing more comes in. An engine sets it when the connection breaks, when any command fails or is
    /// late, and when the inbox is full.
    pub lost: Lost,
}

/// Makes connections: Redis, or a server in memory.
pub trait Engine: Send + Sync + 'static {
    /// Connects, checks the server, loads the scripts, and subscribes the channels of the node. What comes in is put into `inbox`
    /// in order. Takes at most about a second.
    fn connect(&self, node: NodeId, inbox: mpsc::Sender<Published>) -> Answer<'_, Connection>;
}

/// How much of what was published waits for this node. Full: the link is down, because what does not fit is lost.
pub const INBOX: usize = 65_536;
