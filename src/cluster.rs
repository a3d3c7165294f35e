//! More than one node: the same answers on every node, over Redis or Valkey. The design is in `docs/cluster-design.md`.

mod answering;
mod arrival;
mod asking;
mod cluster_backplane;
pub mod directory;
mod directory_clock;
mod follow;
mod followed;
mod holes;
mod lanes;
mod leaving;
mod link;
mod link_task;
mod lost;
#[cfg(test)]
pub(crate) mod memory_engine;
mod no_hub;
mod node;
#[cfg(test)]
mod node_gate;
#[cfg(test)]
mod node_tests;
mod peer_messages;
mod pins;
pub mod redis_engine;
mod remote_send;
#[cfg(test)]
mod rule_tests;
mod rules;
#[cfg(test)]
mod running_node;
#[cfg(test)]
mod simulation;
mod stubs;
pub mod survey;
mod sweep;
mod turns;
mod unpublished;
mod user_lists;
mod watched_nodes;
pub mod wire;

use std::{pin::Pin, sync::Arc, time::Duration};

use self::{
    directory::{About, Member, NodeId},
    no_hub::NoHub,
    node::{Node, directory},
    wire::Engine,
};
use crate::hub::Inbound;

/// What the node code needs from outside, so that a model can run it on virtual time.
pub trait Surroundings: Send + Sync + 'static {
    /// Starts a task.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>);

    /// The clock of this machine, in milliseconds since 1970.
    fn wall_clock_ms(&self) -> u64;

    /// What the next beat says of this node, for operators.
    fn about(&self) -> About;

    /// What happened, for metrics and the log. Called with no lock held; returns at once.
    fn observe(&self, happened: Happened<'_>);
}

/// One thing that happened in the node code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened<'a> {
    /// The link came up.
    LinkUp {
        /// The generation of the directory.
        generation: u64,
    },
    /// The link went down, or could not come up.
    LinkDown {
        /// Why.
        reason: &'a str,
    },
    /// A beat was answered.
    Beat {
        /// All nodes, this one too.
        members: &'a [Member],
        /// The link came back a moment ago, so that others may not be back yet.
        young: bool,
    },
    /// A mailbox came to this node: how.
    Moved(Move),
    /// A request to another node ended, after a time.
    Asked(RequestKind, RequestOutcome, Duration),
    /// A mailbox was given up, because another node has a newer one.
    GaveUp,
    /// A hole was put into a mailbox of this node.
    Hole,
    /// A parcel of which nobody said that it was opened is mourned.
    Mourned,
    /// Mailboxes were told to the directory.
    Told(usize),
}

/// How a mailbox came to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// Nobody had it, or this node had it only in name.
    New,
    /// Another node gave it.
    Parcel,
    /// It was taken from a node that did not answer or was dead.
    Forced,
    /// The link was down: it was made without asking.
    Alone,
    /// Its parcel was not opened by others and is this node's again.
    Revived,
    /// A node that stops gave it.
    Adopted,
}

/// A request between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// A message.
    Push,
    /// A mailbox.
    Take,
    /// A hole.
    Hole,
    /// Mailboxes of a node that stops.
    Adopt,
    /// A list.
    Live,
    /// A broadcast.
    Broadcast,
}

/// How a request between nodes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestOutcome {
    /// It was answered.
    Answered,
    /// It was not answered in time.
    Silent,
    /// No node listened.
    NoLink,
    /// The link was down or went down.
    Down,
}

/// What an operator sees of the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Why the link is down. `None`: it is up.
    pub down: Option<String>,
    /// The generation of the directory.
    pub generation: u64,
    /// The nodes of the last beat.
    pub members: Vec<Member>,
    /// Whether this node owes.
    pub owes: bool,
}

/// This node of the cluster: the [`Backplane`](crate::hub::Backplane) of its hub. A cheap handle.
#[derive(Clone)]
pub struct Cluster(Arc<Node>);

impl Cluster {
    /// A node that is not linked yet.
    #[must_use]
    pub fn new(id: NodeId, engine: Arc<dyn Engine>, surroundings: Arc<dyn Surroundings>) -> Self {
        Self(Node::new(id, engine, surroundings, Arc::new(NoHub)))
    }

    /// Gives the node its hub, once, before [`Cluster::run`].
    pub fn join(&self, hub: Arc<dyn Inbound>) {
        self.0.set_hub(hub);
    }

    /// Keeps the link and everything that depends on time. Never returns.
    pub async fn run(self) {
        let node = self.0;
        tokio::join!(node.keep_linked(), node.keep_told(), node.keep_following(), node.keep_time());
    }

    /// Says that this node takes no new mailboxes, before the hub drains.
    pub async fn begin_leaving(&self) {
        self.0.begin_leaving().await;
    }

    /// Gives all mailboxes to other nodes, for at most `limit`, and leaves the cluster. The hub has drained.
    pub async fn leave(&self, limit: Duration) {
        self.0.leave(limit).await;
    }

    /// Breaks the circle of hub and node, after [`Cluster::leave`] or in a test.
    pub fn forget_hub(&self) {
        self.0.set_hub(Arc::new(NoHub));
    }

    /// What an operator sees of the link.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        let link = &self.0.link;
        LinkStatus {
            down: link.down().map(|down| down.reason),
            generation: link.generation(),
            members: link.members(),
            owes: link.debt().is_some(),
        }
    }

    /// Marks a ticket as used, on all nodes. `None`: the link is down.
    pub async fn use_ticket(&self, ticket: &[u8]) -> Option<bool> {
        directory!(self.0, use_ticket(ticket)).ok()
    }
}
