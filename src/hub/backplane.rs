//! The seam to other nodes: what the hub asks of other nodes ([`Backplane`]), and what other nodes ask of the hub ([`Inbound`]).
//!
//! A device's mailbox is on one node at a time. A *term* numbers its places: each time the mailbox moves or is made anew, it gets a
//! higher one. Of two mailboxes of one device, the one with the lower term has to yield. Without other nodes all terms are 0.
//!
//! An *era* numbers the times between two doubts. While this node cannot know whether other nodes took its mailboxes (its link was
//! lost, its clock jumped), the backplane begins a new era: every mailbox that was confirmed in an earlier era is *suspect*, and
//! the hub asks the backplane before it uses one.

use std::{pin::Pin, sync::Arc};

use super::{Parcel, SharedMessage, parcel::Waiting};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    model::{DeviceId, Message, Outcome, Start},
};

/// The future that a method of [`Backplane`] returns.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Numbers the places of a device's mailbox. 0: there are no other nodes.
pub type Term = u64;

/// Identifies the page that reads a device's live stream: the epoch of the mailbox, and the number of the page in that mailbox.
pub type Page = (u64, u32);

/// The way to other nodes.
pub trait Backplane: Send + Sync + 'static {
    /// The era of this moment. Called on each use of a mailbox, so it must be cheap.
    fn era(&self) -> u32;

    /// Gets the right to serve a device on this node, and brings its mailbox if another node has it. Called for a stream whose
    /// device has no mailbox here, or a suspect one. `limit`: how many devices the user may have; 0: any number.
    ///
    /// # Errors
    /// [`Error::Superseded`] when a newer page is connected elsewhere; [`Error::TooMany`]; [`Error::Unreachable`] when it takes too
    /// long (a stream is then told to come back).
    fn bring<'a>(&'a self, address: &'a TenantAddress, start: Start, limit: usize)
    -> Reply<'a, Result<Brought, Error>>;

    /// Hands a message to the device's mailbox wherever it is, also on this node when that one is suspect, or parked. Called
    /// when no live and certain mailbox is here. Another node holds the message when its mailbox is parked and `sending` says so.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when no node has the device; [`Error::Unreachable`] when that is not certain; [`Error::UnknownOutcome`];
    /// else as [`Hub::send`](super::Hub::send).
    fn push<'a>(
        &'a self,
        to: &'a TenantAddress,
        message: &'a Arc<SharedMessage>,
        sending: Sending,
    ) -> Reply<'a, Result<Outcome, Error>>;

    /// As [`Backplane::bring`], to hold messages for a device that no node has.
    ///
    /// # Errors
    /// As [`Backplane::bring`].
    fn hold<'a>(&'a self, address: &'a TenantAddress, limit: usize) -> Reply<'a, Result<Brought, Error>>;

    /// The hub has forgotten a mailbox whose time was over.
    fn release(&self, address: &TenantAddress, term: Term);

    /// The devices of a user that are live on other nodes. Confirms the user's suspect mailboxes of this node first, so that the
    /// hub can list its own afterwards.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the list may be incomplete.
    fn devices<'a>(&'a self, user: &'a TenantUser) -> Reply<'a, Result<Vec<DeviceId>, Error>>;

    /// Hands a message to the devices of a user that are live on other nodes. Returns those that got it.
    ///
    /// # Errors
    /// [`BroadcastFault`]. When its error is [`Error::Unreachable`], nothing was sent.
    fn broadcast<'a>(
        &'a self,
        user: &'a TenantUser,
        message: &'a Arc<SharedMessage>,
    ) -> Reply<'a, Result<Vec<DeviceId>, BroadcastFault>>;

    /// Begins to follow the devices of a user on other nodes: [`Inbound::changed`] is called for each change. Completes when
    /// [`Backplane::remote_pages`] is whole. May be called again for a user that is followed. The hub calls [`Backplane::unwatch`] once
    /// nobody watches the user, also when this failed.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the list may be incomplete.
    fn watch<'a>(&'a self, user: &'a TenantUser) -> Reply<'a, Result<(), Error>>;

    /// The last watch of a user is over.
    fn unwatch(&self, user: &TenantUser);

    /// The live devices of a followed user on other nodes.
    fn remote_pages(&self, user: &TenantUser) -> Vec<(DeviceId, Page)>;

    /// The page of a device of a followed user, if it is live on another node.
    fn remote_page(&self, address: &TenantAddress) -> Option<Page>;

    /// A device of this node came, went, or began a new page; or its mailbox was placed here. Calls may be out of order: a higher
    /// ([`Standing::term`], [`Standing::number`]) is newer.
    fn changed(&self, address: &TenantAddress, standing: Standing);
}

/// How a message is pushed into a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// For how long a parked mailbox holds the message, in milliseconds. 0: it is refused there.
    pub ttl_ms: u64,
    /// 128 bits of a hash over the caller and its idempotency key. The mailbox that has seen the key answers the first outcome, and
    /// does not take the message again.
    pub key: Option<u128>,
}

/// What [`Backplane::bring`] or [`Backplane::hold`] reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// No node had the device, and there is nobody else to ask: the hub makes a mailbox of term 0.
    Anew,
    /// Look in the registry again: the mailbox was placed, or confirmed. If nothing is there, another node has the device: ask again.
    Here,
}

/// Why a broadcast failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroadcastFault {
    /// The reason.
    pub error: Error,
    /// The devices that are known to have the message.
    pub delivered: Vec<DeviceId>,
}

impl From<Error> for BroadcastFault {
    fn from(error: Error) -> Self {
        Self { error, delivered: Vec::new() }
    }
}

/// What this node has of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The term of the mailbox.
    pub term: Term,
    /// The era in which the mailbox was confirmed.
    pub era: u32,
    /// The epoch of the mailbox.
    pub epoch: u64,
    /// Rises with every change of `live` in one mailbox.
    pub number: u64,
    /// The page of the live stream. `None`: the mailbox is parked.
    pub live: Option<Page>,
}

/// A mailbox that begins its time on this node.
#[derive(Debug)]
pub enum Placed {
    /// A new mailbox, for a stream or to hold messages. With a hole when messages may have been lost before it.
    Fresh {
        /// The first stream is told `broken`.
        hole: bool,
        /// Only to hold messages.
        only_holds: bool,
    },
    /// A mailbox that was on another node, or on this one.
    Parcel(Box<Parcel>),
}

/// The answer of [`Inbound::take`].
#[derive(Debug)]
pub enum Taken {
    /// The mailbox has left this node: its stream has ended, and the hub has forgotten it.
    Parcel(Box<Parcel>),
    /// A newer page is connected here.
    Refused,
    /// A mailbox of another term is here.
    OtherTerm,
    /// The device has no mailbox here.
    NotHere,
}

/// The way from other nodes: what the node code may do with the mailboxes of this node. Every method is short and synchronous.
pub trait Inbound: Send + Sync + 'static {
    /// What this node has of a device.
    fn standing(&self, address: &TenantAddress) -> Option<Standing>;

    /// Pushes a message into a mailbox of this node, whether or not it is suspect. A repeated send gets its first outcome. `None`: no
    /// mailbox is here.
    fn push_here(
        &self,
        to: &TenantAddress,
        message: &Arc<SharedMessage>,
        sending: Sending,
    ) -> Option<Result<Outcome, Error>>;

    /// Makes a message that came from another node, so that it counts against the memory budget.
    fn receive(&self, message: Message) -> Arc<SharedMessage>;

    /// Gives the mailbox away, if it has this term and a stream that begins at `start` would be admitted. `None` as start: any.
    fn take(&self, address: &TenantAddress, start: Option<Start>, term: Term) -> Taken;

    /// Gives the mailbox up if its term is lower than `term`: ends its stream and forgets it. The parcel has what is lost.
    fn give_up(&self, address: &TenantAddress, term: Term) -> Option<Box<Parcel>>;

    /// Marks that messages before this point may be lost: ends the stream, then appends `waiting` in order. The next stream is told
    /// `broken`. Does nothing when the mailbox is of this epoch: nothing was lost. `false`: no mailbox is here.
    fn hole(&self, address: &TenantAddress, epoch: u64, waiting: Vec<Waiting>) -> bool;

    /// Puts a mailbox into its place, with its term and the era in which that was granted. It replaces a mailbox of a lower term.
    /// Gives the parcel back when a mailbox of the same or a higher term is here.
    ///
    /// # Errors
    /// The mailbox that was not put.
    fn place(&self, address: &TenantAddress, placed: Placed, term: Term, era: u32) -> Result<(), Placed>;

    /// Confirms the mailbox of a term, which may get a higher one. `false`: no mailbox of that term is here.
    fn confirm(&self, address: &TenantAddress, term: Term, new: Term, era: u32) -> bool;

    /// The mailboxes of a user's devices on this node.
    fn of_user(&self, user: &TenantUser) -> Vec<(DeviceId, Standing)>;

    /// The mailboxes of one part of this node; parts are numbered from 0. `None`: there is no such part.
    fn of_part(&self, part: usize) -> Option<Vec<(TenantAddress, Standing)>>;

    /// Refuses what would not fit into the memory budget.
    ///
    /// # Errors
    /// [`Error::OverBudget`].
    fn admit_parcel(&self, bytes: usize) -> Result<(), Error>;

    /// The presence of a device of a followed user changed on another node.
    fn changed(&self, address: &TenantAddress);
}

/// The default: there are no other nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Backplane for Local {
    fn era(&self) -> u32 {
        0
    }

    fn bring<'a>(&'a self, _: &'a TenantAddress, _: Start, _: usize) -> Reply<'a, Result<Brought, Error>> {
        ready(Ok(Brought::Anew))
    }

    fn push<'a>(
        &'a self,
        _: &'a TenantAddress,
        _: &'a Arc<SharedMessage>,
        _: Sending,
    ) -> Reply<'a, Result<Outcome, Error>> {
        ready(Err(Error::NotConnected))
    }

    fn hold<'a>(&'a self, _: &'a TenantAddress, _: usize) -> Reply<'a, Result<Brought, Error>> {
        ready(Ok(Brought::Anew))
    }

    fn release(&self, _: &TenantAddress, _: Term) {}

    fn devices<'a>(&'a self, _: &'a TenantUser) -> Reply<'a, Result<Vec<DeviceId>, Error>> {
        ready(Ok(Vec::new()))
    }

    fn broadcast<'a>(
        &'a self,
        _: &'a TenantUser,
        _: &'a Arc<SharedMessage>,
    ) -> Reply<'a, Result<Vec<DeviceId>, BroadcastFault>> {
        ready(Ok(Vec::new()))
    }

    fn watch<'a>(&'a self, _: &'a TenantUser) -> Reply<'a, Result<(), Error>> {
        ready(Ok(()))
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

fn ready<'a, T: Send + 'a>(value: T) -> Reply<'a, T> {
    Box::pin(std::future::ready(value))
}
