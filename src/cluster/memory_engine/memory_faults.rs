//! What a test does to the servers in memory and to the cables, and what it reads from them.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    memory_line::Line,
    memory_network::{MemoryServer, Server, Snapshot, micros},
    memory_tables::{Script, Tables},
};
use crate::{
    auth::TenantAddress,
    cluster::directory::{Entry, NodeId},
};

impl MemoryServer {
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

    /// Whether a node cannot tell anybody anything that lasts: it does not reach its server, or there are two of them.
    pub(crate) fn is_apart(&self, node: NodeId) -> bool {
        let network = self.0.lock();
        network.reach(node).is_none() || network.stalled(node).is_some() || network.is_split()
    }

    /// What the primary says of a device.
    pub(crate) fn entry(&self, address: &TenantAddress) -> Option<Entry> {
        self.read(|script| script.entry(address))
    }

    /// Whether nobody owes to the primary.
    pub(crate) fn is_sure(&self) -> bool {
        self.read(|script| script.is_sure())
    }

    fn read<T: Default>(&self, read: impl FnOnce(&mut Script<'_>) -> T) -> T {
        let mut network = self.0.lock();
        let primary = network.primary;
        network.script(primary, NodeId(0)).map(|mut script| read(&mut script)).unwrap_or_default()
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

/// Tells the nodes that their lines are lost. Without the lock.
fn close(lines: Vec<Arc<Line>>, why: &str) {
    for line in lines {
        line.lost.set(why);
    }
}
