//! The devices of a user over all nodes: lists and broadcasts. Never a partial list that looks whole.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    asking::NoAnswer,
    directory::{Entry, Listed, NodeId},
    node::{Node, directory},
    peer_messages::{Ask, BroadcastAsk, LiveAsk, LiveDevice, Pushed, Say, WantedDevice},
};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    hub::{BroadcastFault, SharedMessage},
    model::DeviceId,
};

impl Node {
    /// The live devices of a user on all nodes.
    pub(super) async fn live_devices(self: &Arc<Self>, user: &TenantUser) -> Result<Vec<LiveDevice>, Error> {
        let end = Instant::now() + LONGEST;
        self.verify_user(user).await;
        while Instant::now() < end {
            if let Some(devices) = self.try_list(user, end).await? {
                return Ok(devices);
            }
            sleep(AGAIN).await;
        }
        Err(Error::UNREACHABLE)
    }

    /// Confirms the suspect mailboxes of a user.
    async fn verify_user(self: &Arc<Self>, user: &TenantUser) {
        for (device, standing) in self.hub().of_user(user) {
            if !self.is_usable(&standing) {
                let address = TenantAddress { user: user.clone(), device };
                self.verify(&address, standing.term).await;
            }
        }
    }

    /// One attempt. `None`: a device is on its way, so look again.
    async fn try_list(self: &Arc<Self>, user: &TenantUser, end: Instant) -> Result<Option<Vec<LiveDevice>>, Error> {
        if self.is_young() {
            return Ok(None);
        }
        let Listed { entries, sure } = directory!(self, list(user)).map_err(|_| Error::UNREACHABLE)?;
        if !sure {
            return Ok(None);
        }
        let (mut found, mut wanted) = (Vec::new(), BTreeMap::<NodeId, Vec<(DeviceId, Entry)>>::new());
        for (device, entry, dead) in entries {
            if entry.node == self.id {
                let Some(here) = self.live_here(user, device.clone()) else {
                    self.disown(&TenantAddress { user: user.clone(), device }, entry.term);
                    return Ok(None);
                };
                found.push(here);
            } else if !dead {
                wanted.entry(entry.node).or_default().push((device, entry));
            }
        }
        let ask = |devices: &Vec<(DeviceId, Entry)>| {
            let wanted = |(device, entry): &(DeviceId, Entry)| WantedDevice {
                device: device.as_str().to_owned(),
                term: entry.term,
            };
            Ask::Live(LiveAsk { user: user.as_text().to_owned(), devices: devices.iter().map(wanted).collect() })
        };
        let asks = wanted.iter().map(|(node, devices)| (*node, ask(devices))).collect();
        let patience = end.saturating_duration_since(Instant::now()).min(PATIENCE);
        for (node, answer) in self.ask_all(asks, patience).await {
            match answer {
                Ok(Say::Live(live)) => {
                    let asked = &wanted[&node];
                    if live.devices.len() < asked.len() {
                        return Ok(None);
                    }
                    found.extend(live.devices);
                }
                Ok(_) | Err(NoAnswer::NoLink) => return Ok(None),
                Err(NoAnswer::Silent | NoAnswer::Lost | NoAnswer::Down) => return Err(Error::UNREACHABLE),
            }
        }
        if found.iter().any(|device| device.moving) {
            return Ok(None);
        }
        found.retain(|device| device.live);
        Ok(Some(found))
    }

    /// Asks several nodes at the same time.
    async fn ask_all(
        self: &Arc<Self>,
        asks: Vec<(NodeId, Ask)>,
        patience: Duration,
    ) -> Vec<(NodeId, Result<Say, NoAnswer>)> {
        let (sender, mut answers) = mpsc::channel(asks.len().max(1));
        for (to, ask) in asks {
            let (node, sender) = (self.clone(), sender.clone());
            self.spawn(async move {
                let answer = node.ask(to, ask, patience).await;
                let _ = sender.send((to, answer)).await;
            });
        }
        drop(sender);
        let mut all = Vec::new();
        while let Some(answer) = answers.recv().await {
            all.push(answer);
        }
        all
    }

    /// The devices of a user that are live on other nodes.
    pub(super) async fn remote_devices(self: &Arc<Self>, user: &TenantUser) -> Result<Vec<DeviceId>, Error> {
        let devices = self.live_devices(user).await?;
        let remote = devices.iter().filter(|device| device.node != self.id.0);
        Ok(remote.filter_map(|device| DeviceId::new(&device.device).ok()).collect())
    }

    /// Hands a message to the devices of a user that are live on other nodes.
    pub(super) async fn broadcast(
        self: &Arc<Self>,
        user: &TenantUser,
        message: &Arc<SharedMessage>,
    ) -> Result<Vec<DeviceId>, BroadcastFault> {
        let mut by_node = BTreeMap::<NodeId, Vec<String>>::new();
        for device in self.live_devices(user).await? {
            if device.node != self.id.0 {
                by_node.entry(NodeId(device.node)).or_default().push(device.device);
            }
        }
        let ask = |devices| BroadcastAsk { user: user.as_text().to_owned(), devices, message: (&***message).into() };
        let asks = by_node.into_iter().map(|(node, devices)| (node, Ask::Broadcast(ask(devices)))).collect();
        let (mut delivered, mut fault) = (Vec::new(), None);
        for (_, answer) in self.ask_all(asks, LONGEST).await {
            match answer {
                Ok(Say::Delivered(said)) => {
                    delivered.extend(said.devices.iter().filter_map(|device| DeviceId::new(device).ok()));
                    let refused = Pushed::try_from(said.refused).ok().filter(|refused| *refused != Pushed::Unknown);
                    fault = fault.or(refused.and_then(|refused| Result::from(refused).err()));
                }
                _ => fault = Some(Error::UnknownOutcome),
            }
        }
        match fault {
            Some(error) => Err(BroadcastFault { error, delivered }),
            None => Ok(delivered),
        }
    }
}

/// How long a list or a broadcast may take.
const LONGEST: Duration = Duration::from_secs(1);
/// How long one node has to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The pause before looking again.
const AGAIN: Duration = Duration::from_millis(40);
