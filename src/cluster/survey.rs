//! What an operator sees of an engine's server, without a node: `check-config`, the start, and `backend-signal cluster` ask.

use super::directory::{Member, NodeId};

/// What the examination of a server found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// It can be used.
    Fit {
        /// What it is, such as `Redis 7.0.15`.
        server: String,
        /// A line for each thing that an operator should look into.
        warnings: Vec<String>,
    },
    /// It was reached, and cannot be used. The line says why.
    Unfit(String),
    /// It was not reached. The line says why. It may come later, so a node starts all the same.
    Unreachable(String),
}

/// The directory, as an operator looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The generation. 0: no node has ever said hello.
    pub generation: u64,
    /// All nodes, also dead ones.
    pub members: Vec<Member>,
    /// The nodes that owe.
    pub debtors: Vec<NodeId>,
}
