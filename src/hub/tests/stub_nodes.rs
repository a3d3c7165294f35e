//! Other nodes whose answers a test chooses.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::super::{Backplane, BroadcastFault, Brought, Page, Reply, Sending, SharedMessage, Standing, Term};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    model::{DeviceId, Outcome, Start},
};

/// Answers the same each time, after a while.
#[derive(Clone)]
pub(crate) struct StubNodes {
    pub(crate) takes: Duration,
    pub(crate) pushed: Result<Outcome, Error>,
    pub(crate) brought: Result<Brought, Error>,
    pub(crate) devices: Result<Vec<DeviceId>, Error>,
    pub(crate) broadcast: Result<Vec<DeviceId>, BroadcastFault>,
    pub(crate) watched: Result<(), Error>,
}

impl Default for StubNodes {
    fn default() -> Self {
        Self {
            takes: Duration::ZERO,
            pushed: Err(Error::NotConnected),
            brought: Ok(Brought::Anew),
            devices: Ok(Vec::new()),
            broadcast: Ok(Vec::new()),
            watched: Ok(()),
        }
    }
}

impl StubNodes {
    fn after_a_while<'a, T: Send + 'a>(&'a self, answer: T) -> Reply<'a, T> {
        Box::pin(async {
            if !self.takes.is_zero() {
                sleep(self.takes).await;
            }
            answer
        })
    }
}

impl Backplane for StubNodes {
    fn era(&self) -> u32 {
        0
    }

    fn bring<'a>(&'a self, _: &'a TenantAddress, _: Start, _: usize) -> Reply<'a, Result<Brought, Error>> {
        self.after_a_while(self.brought)
    }

    fn push<'a>(
        &'a self,
        _: &'a TenantAddress,
        _: &'a Arc<SharedMessage>,
        _: Sending,
    ) -> Reply<'a, Result<Outcome, Error>> {
        self.after_a_while(self.pushed)
    }

    fn hold<'a>(&'a self, _: &'a TenantAddress, _: usize) -> Reply<'a, Result<Brought, Error>> {
        self.after_a_while(self.brought)
    }

    fn release(&self, _: &TenantAddress, _: Term) {}

    fn devices<'a>(&'a self, _: &'a TenantUser) -> Reply<'a, Result<Vec<DeviceId>, Error>> {
        self.after_a_while(self.devices.clone())
    }

    fn broadcast<'a>(
        &'a self,
        _: &'a TenantUser,
        _: &'a Arc<SharedMessage>,
    ) -> Reply<'a, Result<Vec<DeviceId>, BroadcastFault>> {
        self.after_a_while(self.broadcast.clone())
    }

    fn watch<'a>(&'a self, _: &'a TenantUser) -> Reply<'a, Result<(), Error>> {
        self.after_a_while(self.watched)
    }

    fn unwatch(&self, _: &TenantUser) {}

    fn remote_pages(&self, _: &TenantUser) -> Vec<(DeviceId, Page)> {
        Vec::new()
    }

    fn remote_page(&self, _: &TenantAddress) -> Option<Page> {
        None
    }

    fn changed(&self, _: &TenantAddress, _: Standing) {}
}
