//! The node as the [`Backplane`] of its hub: passes each call on to the flow that does it.

use std::sync::Arc;

use super::{Cluster, arrival::Purpose};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    hub::{Backplane, BroadcastFault, Brought, Page, Reply, Sending, SharedMessage, Standing, Term},
    model::{DeviceId, Outcome, Start},
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
