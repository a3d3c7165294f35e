//! The servers in memory, the cables from the nodes to them, and what a test does to both.

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
    wire::{Channel, Pushed},
};

/// The server that all nodes of a test share, with the network in between. A cheap handle.
///
/// There are two primaries only while a test has split the network.
#[derive(Clone)]
pub(crate) struct MemoryServer(pub(super) Arc<Mutex<Network>>);

/// Everything that the handles share.
pub(super) struct Network {
    began: Instant,
    random: fastrand::Rng,
    /// The processes of servers, by their run ids.
    servers: BTreeMap<u64, Server>,
    pub(super) primary: u64,
    /// The primary on the far side of a split, once it is promoted.
    promoted: Option<u64>,
    cables: BTreeMap<NodeId, Cable>,
    /// The latency of each way.
    latency: Duration,
    /// How many of a hundred requests and answers are lost, and of packets are late.
    lossy: u8,
    numbers: u64,
}

#[derive(Default)]
struct Server {
    tables: Tables,
    lines: Vec<Arc<Line>>,
    /// By how many microseconds its clock is ahead.
    ahead_us: u64,
    /// What it answers to every command, instead of running it.
    refuses: Option<String>,
    /// No node reaches it.
    away: bool,
}

/// The way of one node to its server.
#[derive(Clone, Copy, Default)]
struct Cable {
    /// It ends on the far side of a split.
    far: bool,
    cut: bool,
    /// Until when nothing moves.
    stalled: Option<Instant>,
}

/// The data of a server at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot(Tables);

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

    /// Sets the latency of each way. Some packets take up to 3 ms more, or an eighth.
    pub(crate) fn set_latency(&self, latency: Duration) {
        self.0.lock().latency = latency;
    }

    /// Of a hundred requests and answers so many are lost, and of a hundred packets so many are up to half a second late.
    pub(crate) fn set_lossy(&self, percent: u8) {
        self.0.lock().lossy = percent;
    }

    /// Sets the clock of the primary: so much ahead of the time of the test.
    pub(crate) fn set_ahead(&self, ahead: Duration) {
        self.change_primary(|server| server.ahead_us = micros(ahead));
    }

    /// The primary answers every command with an error, or no longer.
    pub(crate) fn set_refusing(&self, error: Option<&str>) {
        self.change_primary(|server| server.refuses = error.map(str::to_owned));
    }

    /// Nobody reaches the primary: connections break, and no new ones come up. Its process and its data stay.
    pub(crate) fn go_away(&self) {
        self.change_primary(|server| server.away = true);
        let primary = self.0.lock().primary;
        self.lose("connection reset", |line| line.run == primary);
    }

    /// It is back.
    pub(crate) fn come_back(&self) {
        self.change_primary(|server| server.away = false);
    }

    /// The primary is a new process with these data, or with none. Connections break.
    pub(crate) fn restart(&self, data: Option<&Snapshot>) {
        let old = {
            let mut network = self.0.lock();
            let run = network.start(data);
            let old = std::mem::replace(&mut network.primary, run);
            network.servers.remove(&old)
        };
        close(old.map(|server| server.lines).unwrap_or_default(), "the server was started again");
    }

    /// `FLUSHALL`: the data are gone, and nothing else happens.
    pub(crate) fn flush(&self) {
        self.change_primary(|server| server.tables = Tables::default());
    }

    /// The data of the primary.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let network = self.0.lock();
        Snapshot(network.servers[&network.primary].tables.clone())
    }

    /// Cuts these nodes off from the primary. They have no server until [`MemoryServer::promote`].
    pub(crate) fn split(&self, far: &[NodeId]) {
        for node in far {
            self.0.lock().cables.entry(*node).or_default().far = true;
        }
        self.lose("cut off", |line| far.contains(&line.node));
    }

    /// A second primary begins on the far side of the split, with these data.
    pub(crate) fn promote(&self, data: &Snapshot) {
        let old = {
            let mut network = self.0.lock();
            let run = network.start(Some(data));
            network.promoted.replace(run).and_then(|old| network.servers.remove(&old))
        };
        close(old.map(|server| server.lines).unwrap_or_default(), "another one was promoted");
    }

    /// The split is over. A promoted server is the primary for all, and what the old one accepted meanwhile is lost.
    pub(crate) fn heal(&self) {
        let old = {
            let mut network = self.0.lock();
            for cable in network.cables.values_mut() {
                cable.far = false;
            }
            network.promoted.take().and_then(|promoted| {
                let old = std::mem::replace(&mut network.primary, promoted);
                network.servers.remove(&old)
            })
        };
        close(old.map(|server| server.lines).unwrap_or_default(), "the primary is a replica now");
    }

    /// Breaks the connection of a node with a reset. New ones fail until [`MemoryServer::mend`].
    pub(crate) fn cut(&self, node: NodeId) {
        self.0.lock().cables.entry(node).or_default().cut = true;
        self.lose("connection reset", |line| line.node == node);
    }

    /// A node can connect again.
    pub(crate) fn mend(&self, node: NodeId) {
        self.0.lock().cables.entry(node).or_default().cut = false;
    }

    /// Nothing moves between a node and its server for a time, and nobody is told.
    pub(crate) fn stall(&self, node: NodeId, time: Duration) {
        self.0.lock().cables.entry(node).or_default().stalled = Some(Instant::now() + time);
    }

    /// Whether two nodes reach the same server.
    pub(crate) fn joins(&self, one: NodeId, other: NodeId) -> bool {
        let network = self.0.lock();
        network.reach(one).is_some_and(|run| network.reach(other) == Some(run))
    }

    fn change_primary(&self, change: impl FnOnce(&mut Server)) {
        let mut network = self.0.lock();
        let primary = network.primary;
        network.servers.get_mut(&primary).map(change);
    }

    fn lose(&self, why: &str, is_meant: impl Fn(&Line) -> bool) {
        let lines = self.0.lock().servers.values().flat_map(|server| server.lines.clone()).collect::<Vec<_>>();
        close(lines.into_iter().filter(|line| is_meant(line)).collect(), why);
    }
}

impl Network {
    /// The run id of the server that a node reaches now.
    pub(super) fn reach(&self, node: NodeId) -> Option<u64> {
        let cable = self.cables.get(&node).copied().unwrap_or_default();
        let run = if cable.far { self.promoted? } else { self.primary };
        (!cable.cut && !self.servers.get(&run)?.away).then_some(run)
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
                line.push(self, Pushed { channel: channel.clone(), bytes: bytes.clone() });
            }
        }
        receivers
    }

    fn start(&mut self, data: Option<&Snapshot>) -> u64 {
        let run = self.number();
        let tables = data.map(|data| data.0.clone()).unwrap_or_default();
        self.servers.insert(run, Server { tables, ..Server::default() });
        run
    }
}

/// Tells the nodes that their lines are lost. Without the lock.
fn close(lines: Vec<Arc<Line>>, why: &str) {
    for line in lines {
        line.lose(why);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The time of the servers when a test begins, in microseconds since 1970.
pub(crate) const BEGAN_US: u64 = 1_800_000_000_000_000;
