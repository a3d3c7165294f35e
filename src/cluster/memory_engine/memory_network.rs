//! The servers in memory, and the cables from the nodes to them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    memory_line::Line,
    memory_tables::{Script, Tables},
};
use crate::cluster::{
    directory::NodeId,
    wire::{Channel, Published},
};

/// The server that all nodes of a test share, with the network in between. A cheap handle.
///
/// There are two primaries only while a test has split the network.
#[derive(Clone)]
pub(crate) struct MemoryServer(pub(super) Arc<Mutex<Network>>);

/// Everything that the handles share.
pub(super) struct Network {
    pub(super) began: Instant,
    pub(super) random: fastrand::Rng,
    /// The processes of servers, by their run ids.
    pub(super) servers: BTreeMap<u64, Server>,
    pub(super) primary: u64,
    /// The primary on the far side of a split, once it is promoted.
    pub(super) promoted: Option<u64>,
    pub(super) cables: BTreeMap<NodeId, Cable>,
    /// The latency of each way.
    pub(super) latency: Duration,
    /// How many of a hundred requests and answers are lost, and of packets are late.
    pub(super) lossy: u8,
    pub(super) numbers: u64,
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) tables: Tables,
    pub(super) lines: Vec<Arc<Line>>,
    /// By how many microseconds its clock is ahead.
    pub(super) ahead_us: u64,
    /// What it answers to every command, instead of running it.
    pub(super) refuses: Option<String>,
    /// No node reaches it.
    pub(super) away: bool,
}

/// The way of one node to its server.
#[derive(Clone, Copy, Default)]
pub(super) struct Cable {
    /// It ends on the far side of a split.
    pub(super) far: bool,
    pub(super) cut: bool,
    /// Until when nothing moves.
    pub(super) stalled: Option<Instant>,
}

/// The data of a server at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot(pub(super) Tables);

impl MemoryServer {
    /// An empty server.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Network {
            began: Instant::now(),
            random: fastrand::Rng::with_seed(seed),
            servers: BTreeMap::from([(1, Server::default())]),
            primary: 1,
            promoted: None,
            cables: BTreeMap::new(),
            latency: Duration::from_millis(1),
            lossy: 0,
            numbers: 1,
        })))
    }
}

impl Network {
    /// The run id of the server that a node reaches now.
    pub(super) fn reach(&self, node: NodeId) -> Option<u64> {
        let cable = self.cables.get(&node).copied().unwrap_or_default();
        let run = if cable.far { self.promoted? } else { self.primary };
        (!cable.cut && !self.servers.get(&run)?.away).then_some(run)
    }

    /// Whether some nodes are cut off from the primary of the others.
    pub(super) fn is_split(&self) -> bool {
        self.cables.values().any(|cable| cable.far)
    }

    /// Until when nothing moves on the cable of a node, if it is stalled.
    pub(super) fn stalled(&self, node: NodeId) -> Option<Instant> {
        self.cables.get(&node)?.stalled.filter(|until| *until > Instant::now())
    }

    /// How long a packet that is sent now is on its way.
    pub(super) fn way(&mut self) -> Duration {
        let spread = 3 + u64::try_from(self.latency.as_millis()).unwrap_or(0) / 8;
        let late = if self.chance(self.lossy) { 50 + self.random.u64(0..450) } else { self.random.u64(0..spread) };
        self.latency + Duration::from_millis(late)
    }

    pub(super) fn chance(&mut self, percent: u8) -> bool {
        percent > 0 && self.random.u8(0..100) < percent
    }

    /// A new number, for a line or a run.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Opens a line to a server. `false`: it is gone.
    pub(super) fn open(&mut self, line: &Arc<Line>) -> bool {
        let Some(server) = self.servers.get_mut(&line.run) else { return false };
        server.lines.push(line.clone());
        true
    }

    /// A server has noticed that a line is closed.
    pub(super) fn forget(&mut self, line: &Line) {
        if let Some(server) = self.servers.get_mut(&line.run) {
            server.lines.retain(|other| other.number != line.number);
        }
    }

    /// The error with which a server answers every command.
    pub(super) fn refuses(&self, run: u64) -> Option<String> {
        self.servers.get(&run)?.refuses.clone()
    }

    /// Begins a script on a server. `None`: the server is gone.
    pub(super) fn script(&mut self, run: u64, node: NodeId) -> Option<Script<'_>> {
        let server = self.servers.get_mut(&run)?;
        let time_us = BEGAN_US + micros(self.began.elapsed()) + server.ahead_us;
        Some(Script { tables: &mut server.tables, node, time_us, notices: Vec::new() })
    }

    /// Publishes on a server. Gives the number of receivers.
    pub(super) fn publish(&mut self, run: u64, channel: &Channel, bytes: &Bytes, may_get_lost: bool) -> usize {
        let lines = self.servers.get(&run).map(|server| server.lines.clone()).unwrap_or_default();
        let mut receivers = 0;
        for line in lines.iter().filter(|line| line.receives(channel)) {
            receivers += 1;
            if !(may_get_lost && self.chance(self.lossy)) {
                line.send_published(self, Published { channel: channel.clone(), bytes: bytes.clone() });
            }
        }
        receivers
    }

    pub(super) fn start(&mut self, data: Option<&Snapshot>) -> u64 {
        let run = self.number();
        let tables = data.map(|data| data.0.clone()).unwrap_or_default();
        self.servers.insert(run, Server { tables, ..Server::default() });
        run
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The time of the servers when a test begins, in microseconds since 1970.
pub(crate) const BEGAN_US: u64 = 1_800_000_000_000_000;
