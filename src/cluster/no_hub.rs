//! The hub of a node that has none: it has no mailbox and takes none.

use std::sync::Arc;

use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    hub::{Inbound, Parcel, Placed, Sending, SharedMessage, Standing, Taken, Term, Waiting},
    model::{DeviceId, Message, Outcome, Start},
};

/// Before [`Cluster::join`](super::Cluster::join), and after [`Cluster::forget_hub`](super::Cluster::forget_hub).
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
