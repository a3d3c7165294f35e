//! A watcher at each node, which watches some users.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_stream::StreamExt as _;

use super::{
    simulated_node::{SimulatedNode, spawn},
    truth::{CALM, devices_of},
    world::{Device, World, address, place},
};
use crate::{
    auth::{Caller, TenantAddress, TenantUser},
    cluster::directory::NodeId,
    hub::{Change, UserSet, WatchItem},
    model::DeviceId,
};

/// What the watcher of a node sees. `None`: its watch is not open.
#[derive(Default)]
pub(super) struct Seen(Mutex<Option<BTreeMap<TenantUser, BTreeSet<DeviceId>>>>);

impl Seen {
    fn take(&self, item: WatchItem) {
        let mut seen = self.0.lock();
        let users = seen.get_or_insert_default();
        match item {
            WatchItem::Devices(user, devices) => drop(users.insert(user, devices.into_iter().collect())),
            WatchItem::Changes(user, changes) => {
                let devices = users.entry(user).or_default();
                for change in changes.iter() {
                    match change {
                        Change::Online(device) => drop(devices.insert(device.clone())),
                        Change::Offline(device) => drop(devices.remove(device)),
                    }
                }
            }
            WatchItem::Ping => {}
            WatchItem::End(_) => *seen = None,
        }
    }

    /// Whether a device is online. `None`: nobody knows.
    fn is_online(&self, address: &TenantAddress) -> Option<bool> {
        Some(self.0.lock().as_ref()?.get(&address.user)?.contains(&address.device))
    }
}

impl SimulatedNode {
    /// Watches some users, for as long as the node lives.
    pub(super) async fn keep_watching(self: Arc<Self>) {
        let users = UserSet::new(WATCHED.map(|user| Ok(address((user, 0)).user))).expect("some users");
        loop {
            if let Ok(mut watch) = self.hub.watch(&Caller::anonymous(), &users, Duration::from_secs(600)).await {
                while let Some(item) = watch.next().await {
                    self.seen.take(item);
                }
            }
            sleep(AGAIN).await;
        }
    }
}

impl World {
    /// Looks whether the watchers see what is so.
    pub(super) fn begin_watching_watchers(self: &Arc<Self>) {
        let world = self.clone();
        spawn(async move {
            let mut known = BTreeSet::new();
            while !world.is_quiet() {
                sleep(Duration::from_secs(1)).await;
                if world.is_calm(CALM) {
                    world.check_watchers(&mut known);
                }
            }
        });
    }

    /// Checks what all watchers see. A fault that is known already is not told again.
    pub(super) fn check_watchers(&self, known: &mut BTreeSet<(NodeId, Device)>) {
        let nodes: Vec<_> = self.nodes().into_iter().filter(|node| node.takes_work()).collect();
        for device in WATCHED.into_iter().flat_map(devices_of) {
            let Some(is_live) = self.settled(device) else { continue };
            for node in &nodes {
                self.count("watched");
                let seen = node.seen.is_online(&place(device));
                if seen != Some(is_live) && known.insert((node.id, device)) {
                    let (at, id) = (self.began.elapsed().as_millis(), node.id);
                    self.bad(format!("a watch at {id} sees {seen:?} of {device:?}, live is {is_live}, at {at} ms"));
                    self.log(device, || format!("WATCH at {id} sees {seen:?}"));
                }
            }
        }
    }
}

/// Which users are watched. All of them would cost as much as the rest of the load.
const WATCHED: [u8; 1] = [0];

/// When a watcher whose watch ended comes back.
const AGAIN: Duration = Duration::from_millis(500);
