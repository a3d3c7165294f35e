//! The interface to other nodes: what the hub asks other nodes, and what other nodes ask the hub.

use std::pin::Pin;

use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    model::{DeviceId, Message, Outcome},
};

/// The future that a method of [`Backplane`] returns.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The way to other nodes. To send to one device, the hub asks it only when the device is not connected to this node.
pub trait Backplane: Send + Sync + 'static {
    /// Hands a message to the node to which the device is connected.
    ///
    /// Answers [`Error::NotConnected`] when the device is connected to no node, [`Error::Unreachable`] when the nodes cannot be
    /// asked, and [`Error::UnknownOutcome`] when the node did not answer in time.
    fn send<'a>(&'a self, to: &'a TenantAddress, message: &'a Message) -> Reply<'a, Outcome>;

    /// Hands a message to the devices of a user that are connected to other nodes, and names them.
    fn broadcast<'a>(&'a self, user: &'a TenantUser, message: &'a Message) -> Reply<'a, Vec<DeviceId>>;

    /// The devices of a user that are connected to other nodes.
    fn devices<'a>(&'a self, user: &'a TenantUser) -> Reply<'a, Vec<DeviceId>>;
}

/// The way from other nodes: what another node may do on this one.
pub trait Inbound: Send + Sync + 'static {
    /// Hands a message that another node accepted to a device of this node.
    ///
    /// # Errors
    /// As [`Hub::send`](super::Hub::send), but does not hold the message and asks no other node.
    fn deliver(&self, to: &TenantAddress, message: Message) -> Result<Outcome, Error>;

    /// The devices of a user that are connected to this node, sorted.
    fn local_devices(&self, user: &TenantUser) -> Vec<DeviceId>;
}

/// The default: there are no other nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Backplane for Local {
    fn send<'a>(&'a self, _to: &'a TenantAddress, _message: &'a Message) -> Reply<'a, Outcome> {
        Box::pin(std::future::ready(Err(Error::NotConnected)))
    }

    fn broadcast<'a>(&'a self, _user: &'a TenantUser, _message: &'a Message) -> Reply<'a, Vec<DeviceId>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn devices<'a>(&'a self, _user: &'a TenantUser) -> Reply<'a, Vec<DeviceId>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}
