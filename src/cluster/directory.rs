//! The directory: which node has which device. One trait; its scripts are the referee of the cluster.
//!
//! An *entry* says `(node, term)` for a device. Terms only rise. A *generation* numbers the directories: a server that came back
//! empty or older is a new one, and every call of an older generation is answered [`Fault::Reborn`]. A node *owes* while it may hold
//! mailboxes that this directory does not know. The directory is *sure* when no node owes: only then does "no entry" mean that no
//! node has the device.

use std::{fmt, pin::Pin};

use crate::{
    auth::{TenantAddress, TenantUser},
    hub::Term,
    model::DeviceId,
};

/// The id of a node: random for each process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// The future of a call, with its answer or why there is none.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Why a call of the directory or the wire has no answer. Each of them means that the link is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call had no effect: it was not sent, or the server refused it.
    Down(String),
    /// The call was sent, or may have been. Nobody knows whether it had an effect.
    Late(String),
    /// The directory is of another generation: the call had no effect.
    Reborn,
}

/// Where a device's mailbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node.
    pub node: NodeId,
    /// The term of the mailbox there.
    pub term: Term,
}

/// How far a node is in its life. A later phase is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Said hello, and no beat yet.
    Joining,
    /// At work.
    Up,
    /// Stopping: gives its mailboxes to others.
    Leaving,
}

/// What a node says of itself with each beat, for operators. The row of a node has it as text after beat and phase; a row without it
/// (a node that has only said hello, or of another release) is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The version of the daemon.
    pub version: String,
    /// Its live streams.
    pub streams: u64,
    /// Its mailboxes.
    pub mailboxes: u64,
}

/// A node, as its last beat left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its phase.
    pub phase: Phase,
    /// How old its last beat is by the clock of the directory, in milliseconds.
    pub age_ms: u64,
    /// What it says of itself.
    pub about: About,
}

impl Member {
    /// Whether the node counts as dead.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.age_ms >= DEAD_MS
    }
}

/// A node whose last beat is older is dead, in milliseconds.
pub const DEAD_MS: u64 = 6_000;

/// The answer of [`Directory::hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The generation of the directory.
    pub generation: u64,
    /// The number of this node's debt. `None`: it owes nothing.
    pub debt: Option<u64>,
    /// How long ago this directory was made, in milliseconds.
    pub age_ms: u64,
}

/// The answer of [`Directory::beat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// All nodes, this one too.
    pub members: Vec<Member>,
    /// The time of the directory, in milliseconds since 1970.
    pub time_ms: u64,
    /// The number of this node's debt.
    pub debt: Option<u64>,
}

/// The answer of [`Directory::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody had it; it is this node's. `sure`: nobody can have had it.
    New {
        /// The term granted.
        term: Term,
        /// Whether the directory was sure.
        sure: bool,
    },
    /// The entry was this node's already.
    Mine(Term),
    /// A dead node had it; it is this node's.
    Over(Term),
    /// Another node has it.
    Held(Entry),
    /// The user has too many devices.
    Full,
}

/// The answer of [`Directory::tell`] for one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The entry is this node's, with this term, which the mailbox takes. (`Won` and `ok` of the protocol.)
    Mine(Term),
    /// Another node has a newer mailbox.
    Lost(Entry),
}

/// The answer of [`Directory::find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is an entry. `dead`: its node is dead.
    At(Entry, bool),
    /// There is none, and no node owes.
    Nobody,
    /// There is none, but a node owes.
    Unsure,
}

/// The answer of [`Directory::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The entries of the user's devices; true: its node is dead.
    pub entries: Vec<(DeviceId, Entry, bool)>,
    /// Whether the directory is sure.
    pub sure: bool,
}

/// The scripts. Each is atomic. Notices (`Moved`, `Yield`) are published inside them.
pub trait Directory: Send + Sync + 'static {
    /// The generation that this connection knows. 0 before the first [`Directory::hello`].
    fn generation(&self) -> u64;

    /// Joins. `known`: the generation that this node knew, or 0. `owes`: it may hold mailboxes that the directory does not know. A
    /// directory of another server run, or of a generation below `known`, becomes a new generation, and everybody owes. The
    /// number of a new one is the server's time in microseconds, or more, so that no node knows it.
    fn hello(&self, known: u64, owes: bool) -> Answer<'_, Hello>;

    /// Says that this node is alive. A node that was dead owes.
    fn beat<'a>(&'a self, phase: Phase, about: &'a About) -> Answer<'a, Beat>;

    /// Clears this node's debt, if it still has this number.
    fn told(&self, debt: u64) -> Answer<'_, ()>;

    /// Makes this node owe. Answers the number of its debt.
    fn owe(&self) -> Answer<'_, u64>;

    /// Takes a device that nobody has. `limit`: how many devices the user may have; 0: any number.
    fn claim<'a>(&'a self, address: &'a TenantAddress, limit: usize) -> Answer<'a, Claim>;

    /// Takes the entry from the node that has it, if it is still the same. Tells that node `Moved`, or `Yield` when forced. The new
    /// term, or `None`: the entry has changed. An entry that is this node's with a newer term is the answer of a repeated call.
    fn take_over<'a>(&'a self, address: &'a TenantAddress, from: Entry, forced: bool) -> Answer<'a, Option<Term>>;

    /// Renews this node's own entry of a term. The new term, or `None`: the entry has changed.
    fn revive<'a>(&'a self, address: &'a TenantAddress, term: Term) -> Answer<'a, Option<Term>>;

    /// Deletes this node's entry of a term.
    fn release<'a>(&'a self, address: &'a TenantAddress, term: Term) -> Answer<'a, ()>;

    /// Deletes an entry whose node is dead.
    fn bury<'a>(&'a self, address: &'a TenantAddress, entry: Entry) -> Answer<'a, ()>;

    /// Tells which mailboxes this node has: at most [`TELL`] at a time.
    fn tell<'a>(&'a self, mailboxes: &'a [(TenantAddress, Term)]) -> Answer<'a, Vec<Told>>;

    /// Looks a device up.
    fn find<'a>(&'a self, address: &'a TenantAddress) -> Answer<'a, Found>;

    /// As [`Directory::find`], for a caller that has asked the node of `entry`, which does not have the device: this entry counts as
    /// none.
    fn absent<'a>(&'a self, address: &'a TenantAddress, entry: Entry) -> Answer<'a, Found>;

    /// The entries of a user.
    fn list<'a>(&'a self, user: &'a TenantUser) -> Answer<'a, Listed>;

    /// Removes this node's row.
    fn bye(&self) -> Answer<'_, ()>;

    /// Marks a ticket as used. `false`: it was used already.
    fn use_ticket<'a>(&'a self, ticket: &'a [u8]) -> Answer<'a, bool>;
}

/// How many mailboxes one [`Directory::tell`] may name.
pub const TELL: usize = 64;

impl About {
    /// Reads the text of its `Display`. What is not there, or not readable, is left at its default.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let version = words.next().unwrap_or_default().to_owned();
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
        Self { version, streams: number(), mailboxes: number() }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, streams, mailboxes } = self;
        write!(f, "{version} {streams} {mailboxes}")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(why) | Self::Late(why) => f.write_str(why),
            Self::Reborn => f.write_str("the directory is another one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_of_itself_is_read_back_and_what_is_missing_is_left_out() {
        let about = About { version: "0.1.0".to_owned(), streams: 7, mailboxes: 9 };
        assert_eq!(About::read(&about.to_string()), about);
        assert_eq!(About::read(""), About::default());
        assert_eq!(About::read("0.2.0 x"), About { version: "0.2.0".to_owned(), ..About::default() });
        assert_eq!(About::read("0.1.0 7 9 and more"), about);
    }
}
