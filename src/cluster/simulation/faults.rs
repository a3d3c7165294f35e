//! The faults: one after the other, with a long calm now and then.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{
    simulated_node::{SimulatedNode, spawn},
    world::World,
};
use crate::cluster::memory_engine::Snapshot;

/// The data of the server in the last seconds, newest last.
type Past = Arc<Mutex<VecDeque<Snapshot>>>;

impl World {
    pub(super) fn begin_faults(self: &Arc<Self>) {
        let past = Past::default();
        spawn(self.clone().keep_past(past.clone()));
        for _ in 0..=usize::from(self.fails_twice) {
            spawn(self.clone().keep_failing(past.clone()));
        }
    }

    async fn keep_past(self: Arc<Self>, past: Past) {
        while !self.is_quiet() {
            sleep(Duration::from_millis(500)).await;
            let mut past = past.lock();
            past.push_back(self.server.snapshot());
            if past.len() > 6 {
                past.pop_front();
            }
        }
    }

    async fn keep_failing(self: Arc<Self>, past: Past) {
        loop {
            sleep(self.random_ms(2_000, 11_000)).await;
            if self.is_quiet() {
                return;
            }
            self.fault_began();
            self.fail(&past).await;
            self.fault_ended();
            if self.chance(15) {
                sleep(Duration::from_secs(70)).await;
            }
        }
    }

    /// One fault, from its beginning to its end.
    async fn fail(self: &Arc<Self>, past: &Past) {
        let Some(node) = self.one_of(&self.nodes()) else { return };
        let kind = self.random(9);
        self.log_all(|| format!("FAULT {kind} at {}, or at all", node.id));
        match kind {
            0 => self.kill_and_start(&node).await,
            1 => self.freeze(&node).await,
            2 => self.fail_server(past).await,
            3 => self.cut_link(&node).await,
            4 => self.split(past).await,
            5 => self.replace(&node).await,
            6 => {
                self.count("fault: lossy");
                self.server.set_lossy(5);
                sleep(self.random_ms(0, 8_000)).await;
                self.server.set_lossy(0);
            }
            7 => {
                self.count("fault: stalled link");
                let time = self.random_ms(300, 4_300);
                self.server.stall(node.id, time);
                sleep(time).await;
            }
            _ => {
                self.count("fault: slow server");
                self.server.set_latency(Duration::from_millis(100));
                sleep(self.random_ms(2_000, 15_000)).await;
                self.server.set_latency(Duration::from_millis(1));
            }
        }
        self.log_all(|| "FAULT is over".to_owned());
    }

    async fn kill_and_start(self: &Arc<Self>, node: &SimulatedNode) {
        self.count("fault: kill -9");
        self.kill(node);
        sleep(self.random_ms(0, 4_000)).await;
        self.start_node();
    }

    async fn freeze(&self, node: &SimulatedNode) {
        self.count("fault: freeze");
        node.gate.freeze();
        let most = if self.chance(30) { 45_000 } else { 9_000 };
        sleep(self.random_ms(300, 300 + most)).await;
        node.gate.thaw();
    }

    async fn fail_server(self: &Arc<Self>, past: &Past) {
        let how = self.random(4);
        self.count(
            ["fault: server away", "fault: server restarted empty", "fault: failover", "fault: FLUSHALL"]
                [usize::try_from(how).expect("small")],
        );
        if how == 3 {
            self.server.flush();
            past.lock().clear();
            return;
        }
        self.server.go_away();
        sleep(self.random_ms(100, 12_000)).await;
        self.spread_reconnects();
        match how {
            1 => self.server.restart(None),
            2 => {
                let data = self.older(past, 5);
                self.server.restart(data.as_ref());
                if self.chance(50) {
                    self.server.set_ahead(self.random_ms(0, 1_000));
                }
            }
            _ => self.server.come_back(),
        }
        past.lock().clear();
    }

    async fn cut_link(self: &Arc<Self>, node: &SimulatedNode) {
        let time = self.random_ms(100, 15_100);
        if self.chance(50) {
            self.count("fault: link reset");
            self.server.cut(node.id);
            sleep(time).await;
            self.server.mend(node.id);
        } else {
            // Nobody is told: only time-outs show it.
            self.count("fault: link silent");
            self.server.stall(node.id, time);
            sleep(time).await;
        }
    }

    /// The network is in two parts, each with a primary. What one of them accepted is lost.
    async fn split(self: &Arc<Self>, past: &Past) {
        self.count("fault: two primaries");
        let began = Instant::now();
        let far: Vec<_> = self.nodes().iter().map(|node| node.id).filter(|_| self.chance(50)).collect();
        let data = self.older(past, 3);
        self.server.split(&far);
        sleep(Duration::from_secs(5)).await;
        self.server.promote(&data.unwrap_or_else(|| self.server.snapshot()));
        let most = if self.chance(40) { 50_000 } else { 12_000 };
        sleep(self.random_ms(1_000, 1_000 + most)).await;
        self.server.heal();
        self.record.lock().splits.push((began, Instant::now()));
        past.lock().clear();
    }

    /// A rolling restart, as far as one node: a new one comes, the old one stops.
    async fn replace(self: &Arc<Self>, node: &SimulatedNode) {
        self.count("fault: drain");
        self.start_node();
        sleep(Duration::from_millis(1_500)).await;
        self.drain(node).await;
    }

    /// One of the last snapshots.
    fn older(&self, past: &Past, most: u64) -> Option<Snapshot> {
        let past = past.lock();
        let ago = usize::try_from(self.random(most)).ok()?;
        past.get(past.len().saturating_sub(1 + ago)).cloned()
    }

    /// Every node finds the server at another moment.
    fn spread_reconnects(self: &Arc<Self>) {
        for node in self.nodes() {
            self.server.cut(node.id);
            let (world, id) = (self.clone(), node.id);
            spawn(async move {
                sleep(world.random_ms(0, 900)).await;
                world.server.mend(id);
            });
        }
    }
}
