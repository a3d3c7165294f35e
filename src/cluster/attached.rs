//! The node as the hub's [`Backplane`], and the hub of a node that has none.

use std::sync::Arc;

use super::{Cluster, arrival::Purpose};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    hub::{
        Backplane, BroadcastFault, Brought, Inbound, Page, Parcel, Placed, Reply, Sending, SharedMessage, Standing,
        Taken, Term, Waiting,
    },
    model::{DeviceId, Message, Outcome, Start},
};

impl Backplane for Cluster {
    fn era(&self) -> u32 {
        self.0.link.era()
    }

    fn bring<'a>(
        &'a self,
        address: &'a TenantAddress,
        start: Start,
        limit: usize,
    ) -> Reply<'a, Result<Brought, Error>> {
        Box::pin(self.0.arrive(address, Purpose::Stream(start), limit))
    }

    fn push<'a>(
        &'a self,
        to: &'a TenantAddress,
        message: &'a Arc<SharedMessage>,
        sending: Sending,
    ) -> Reply<'a, Result<Outcome, Error>> {
        Box::pin(self.0.send(to, message, sending))
    }

    fn hold<'a>(&'a self, address: &'a TenantAddress, limit: usize) -> Reply<'a, Result<Brought, Error>> {
        Box::pin(self.0.arrive(address, Purpose::Hold, limit))
    }

    fn release(&self, address: &TenantAddress, term: Term) {
        self.0.release(address, term);
    }

    fn devices<'a>(&'a self, user: &'a TenantUser) -> Reply<'a, Result<Vec<DeviceId>, Error>> {
        Box::pin(self.0.remote_devices(user))
    }

    fn broadcast<'a>(
        &'a self,
        user: &'a TenantUser,
        message: &'a Arc<SharedMessage>,
    ) -> Reply<'a, Result<Vec<DeviceId>, BroadcastFault>> {
        Box::pin(self.0.broadcast(user, message))
    }

    fn watch<'a>(&'a self, user: &'a TenantUser) -> Reply<'a, Result<(), Error>> {
        Box::pin(self.0.follow(user))
    }

    fn unwatch(&self, user: &TenantUser) {
        self.0.unfollow(user);
    }

    fn remote_pages(&self, user: &TenantUser) -> Vec<(DeviceId, Page)> {
        self.0.following.pages(user, self.0.id)
    }

    fn remote_page(&self, address: &TenantAddress) -> Option<Page> {
        self.0.following.page(address, self.0.id)
    }

    fn changed(&self, address: &TenantAddress, standing: Standing) {
        self.0.tell_presence(address, &standing);
    }
}

/// The hub of a node that has none: before [`Cluster::join`], and after [`Cluster::forget_hub`].
pub(super) struct NoHub;

impl Inbound for NoHub {
    fn standing(&self, _: &TenantAddress) -> Option<Standing> {
        None
    }

    fn push_here(&self, _: &TenantAddress, _: &Arc<SharedMessage>, _: Sending) -> Option<Result<Outcome, Error>> {
        None
    }

    fn receive(&self, message: Message) -> Arc<SharedMessage> {
        Arc::new(SharedMessage::uncounted(message))
    }

    fn take(&self, _: &TenantAddress, _: Option<Start>, _: Term) -> Taken {
        Taken::NotHere
    }

    fn give_up(&self, _: &TenantAddress, _: Term) -> Option<Box<Parcel>> {
        None
    }

    fn hole(&self, _: &TenantAddress, _: u64, _: Vec<Waiting>) -> bool {
        false
    }

    fn place(&self, _: &TenantAddress, placed: Placed, _: Term, _: u32) -> Result<(), Placed> {
        Err(placed)
    }

    fn confirm(&self, _: &TenantAddress, _: Term, _: Term, _: u32) -> bool {
        false
    }

    fn of_user(&self, _: &TenantUser) -> Vec<(DeviceId, Standing)> {
        Vec::new()
    }

    fn of_part(&self, _: usize) -> Option<Vec<(TenantAddress, Standing)>> {
        None
    }

    fn admit_parcel(&self, _: usize) -> Result<(), Error> {
        Err(Error::DRAINING)
    }

    fn changed(&self, _: &TenantAddress) {}
}
