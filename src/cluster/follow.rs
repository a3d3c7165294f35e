//! The presence of watched users on other nodes.
//!
//! Every node publishes each change of a device of its own at once. A watcher keeps the newest state of each device: the highest
//! (term, number). The hub's board gives a device that left its grace, so a device that moves between nodes does not go offline.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::sleep};

use super::{
    directory::{Fault, Member, NodeId},
    followed::Followed,
    node::Node,
    peer_messages::LiveDevice,
    rules::{Rule, is_on},
    watched_nodes::Changed,
    wire::Channel,
};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    hub::{Page, Standing},
    model::DeviceId,
};

/// The users that are watched on this node.
#[derive(Default)]
pub(super) struct Following(Mutex<BTreeMap<TenantUser, Followed>>);

impl Following {
    pub(super) fn is_whole(&self, user: &TenantUser) -> bool {
        self.0.lock().get(user).is_some_and(|followed| followed.whole)
    }

    fn follows(&self, user: &TenantUser) -> bool {
        self.0.lock().contains_key(user)
    }

    fn users(&self) -> Vec<TenantUser> {
        self.0.lock().keys().cloned().collect()
    }

    /// The live devices of a user on other nodes than this one.
    pub(super) fn pages(&self, user: &TenantUser, me: NodeId) -> Vec<(DeviceId, Page)> {
        let users = self.0.lock();
        let devices = users.get(user).into_iter().flat_map(|followed| &followed.devices);
        devices
            .filter(|(_, seen)| seen.node != me)
            .filter_map(|(device, seen)| Some((device.clone(), seen.page?)))
            .collect()
    }

    /// The page of a device, if it is live on another node than this one.
    pub(super) fn page(&self, address: &TenantAddress, me: NodeId) -> Option<Page> {
        let users = self.0.lock();
        let seen = users.get(&address.user)?.devices.get(&address.device)?;
        seen.page.filter(|_| seen.node != me)
    }

    /// The link was lost: something may be missed.
    pub(super) fn doubt(&self) {
        self.0.lock().values_mut().for_each(|followed| followed.whole = false);
    }

    /// Something may be missed of a user. Says whether it is followed.
    fn doubt_user(&self, user: &TenantUser) -> bool {
        self.0.lock().get_mut(user).map(|followed| followed.whole = false).is_some()
    }

    /// The devices of a dead node are offline.
    fn set_offline(&self, node: NodeId) -> Vec<TenantAddress> {
        let mut gone = Vec::new();
        for (user, followed) in &mut *self.0.lock() {
            for (device, seen) in &mut followed.devices {
                if seen.node == node && seen.page.take().is_some() {
                    gone.push(TenantAddress { user: user.clone(), device: device.clone() });
                }
            }
        }
        gone
    }
}

impl Node {
    /// Follows a user. Completes when the list of its devices is whole. Also after an error the user is followed, until [`Node::unfollow`].
    pub(super) async fn follow(self: &Arc<Self>, user: &TenantUser) -> Result<(), Error> {
        if self.following.is_whole(user) && self.link.up().is_some() {
            return Ok(());
        }
        self.following.0.lock().entry(user.clone()).or_insert_with(Followed::new);
        self.list_followed(user).await
    }

    async fn list_followed(self: &Arc<Self>, user: &TenantUser) -> Result<(), Error> {
        let up = self.link.up().ok_or(Error::UNREACHABLE)?;
        let subscribed = up.wire.subscribe(user).await;
        self.down_on_fault(&up, subscribed).map_err(|_: Fault| Error::UNREACHABLE)?;
        let begun = self.following.0.lock().get(user).map(Followed::begin_list);
        let devices = self.live_devices(user).await?;
        let mut changed = Vec::new();
        if let (Some(followed), Some(begun)) = (self.following.0.lock().get_mut(user), begun)
            && let Some(list) = followed.finish_list(&begun, &devices)
        {
            changed = list;
            followed.whole = self.link.is_still(&up);
        }
        for device in changed {
            self.hub().changed(&TenantAddress { user: user.clone(), device });
        }
        Ok(())
    }

    /// The last watch of a user is over.
    pub(super) fn unfollow(self: &Arc<Self>, user: &TenantUser) {
        self.following.0.lock().remove(user);
        let Some(up) = self.link.up() else { return };
        let (node, user) = (self.clone(), user.clone());
        self.spawn(async move {
            let ended = up.wire.unsubscribe(&user).await;
            let _ = node.down_on_fault(&up, ended);
            // Somebody began to watch meanwhile, and may have subscribed before that: then changes may be missed.
            if node.following.doubt_user(&user) {
                node.list_until_whole(&user).await;
            }
        });
    }

    /// Lists all followed users again, [`TOGETHER`] at a time: after the link came back, and every 10 minutes. A few whose devices are on a
    /// node that does not answer do not keep the others waiting.
    pub(super) async fn list_all_followed(self: &Arc<Self>, pause: Duration) {
        let together = Arc::new(Semaphore::new(TOGETHER));
        for user in self.following.users() {
            // Never closed.
            let Ok(place) = together.clone().acquire_owned().await else { return };
            let node = self.clone();
            self.spawn(async move {
                node.list_until_whole(&user).await;
                drop(place);
            });
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    /// Ends also when the link is lost: all users are listed when it is back.
    async fn list_until_whole(self: &Arc<Self>, user: &TenantUser) {
        let Some(up) = self.link.up() else { return };
        while self.following.follows(user) && self.list_followed(user).await.is_err() && self.link.is_still(&up) {
            sleep(AGAIN).await;
        }
    }

    /// Keeps the lists of followed users right, also when a change was lost.
    pub(super) async fn keep_following(self: &Arc<Self>) {
        loop {
            sleep(SWEEP.mul_f64(0.9 + fastrand::f64() * 0.2)).await;
            if self.link.up().is_some() {
                self.list_all_followed(SPREAD).await;
            }
        }
    }

    /// Another node, or this one, published the presence of a device.
    pub(super) fn heard(self: &Arc<Self>, user: &TenantUser, live: &LiveDevice) {
        let Ok(device) = DeviceId::new(&live.device) else { return };
        let changed = match self.following.0.lock().get_mut(user) {
            Some(followed) => followed.hear(device.clone(), live),
            None => false,
        };
        if changed {
            self.hub().changed(&TenantAddress { user: user.clone(), device });
        }
    }

    /// Publishes the presence of a device of this node.
    pub(super) fn tell_presence(self: &Arc<Self>, address: &TenantAddress, standing: &Standing) {
        let live = LiveDevice::of(&address.device, standing, self.id);
        let heard = |followed: &mut Followed| followed.hear(address.device.clone(), &live);
        let changed = self.following.0.lock().get_mut(&address.user).is_some_and(heard);
        // A mailbox that came without a stream changes nothing here, but the device was live on the node that had it before.
        if changed {
            self.hub().changed(address);
        }
        let (node, address) = (self.clone(), address.clone());
        if self.link.up().is_none() {
            return self.unpublished.keep(address, live);
        }
        self.spawn(async move { node.publish_presence(address, live).await });
    }

    /// Publishes a presence, or keeps it until the link is back.
    async fn publish_presence(self: &Arc<Self>, address: TenantAddress, live: LiveDevice) {
        let Some(up) = self.link.up() else { return self.unpublished.keep(address, live) };
        let sent = up.wire.publish(Channel::Presence(address.user.clone()), live.to_presence()).await;
        if self.down_on_fault(&up, sent).is_err() {
            self.unpublished.keep(address, live);
        }
    }

    /// The link is back: publishes what changed here without it, and lists what changed elsewhere.
    pub(super) async fn catch_up_presence(self: &Arc<Self>) {
        if is_on(Rule::ListsAfterALoss) {
            self.list_all_followed_soon();
        }
        for (address, live) in self.unpublished.take_all() {
            self.publish_presence(address, live).await;
        }
    }

    /// After a beat: the devices of a node that died go offline without asking, and those of one that is back are listed again.
    pub(super) fn note_nodes(self: &Arc<Self>, members: &[Member], young: bool) {
        let alive = members.iter().filter(|member| !member.is_dead()).map(|member| member.node).collect();
        let Changed { died, has_returned } = self.watched_nodes.note(alive, young);
        for address in died.into_iter().flat_map(|node| self.following.set_offline(node)) {
            self.hub().changed(&address);
        }
        if has_returned {
            self.list_all_followed_soon();
        }
    }

    fn list_all_followed_soon(self: &Arc<Self>) {
        let node = self.clone();
        self.spawn(async move { node.list_all_followed(Duration::ZERO).await });
    }
}

/// How many users are listed at the same time.
const TOGETHER: usize = 32;
const AGAIN: Duration = Duration::from_millis(200);
const SWEEP: Duration = Duration::from_secs(600);
/// The pause after each user of a sweep, so that it is spread out.
const SPREAD: Duration = Duration::from_millis(20);
