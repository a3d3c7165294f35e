//! One stream of a device's messages: a cursor into its mailbox that detaches itself when dropped.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio_stream::Stream;

use super::{
    Event, Hub,
    latency::AcceptedAt,
    mailbox::{Next, Outgoing},
    shared_message::SharedMessage,
    slot::Slot,
    time::Millis,
};
use crate::{
    auth::TenantAddress,
    model::{Continuity, Cursor, EndReason},
};

/// What a stream gives after [`Ready`].
#[derive(Clone, Debug)]
pub enum StreamItem {
    /// A message, and the cursor with which the device resumes after it.
    Message(Cursor, Arc<SharedMessage>),
    /// Nothing else was sent for the time of a heartbeat.
    Ping,
    /// The last event: the server ends the stream.
    End(EndReason),
}

/// What a stream opens with.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The device of the stream.
    pub address: TenantAddress,
    /// Where the stream begins.
    pub cursor: Cursor,
    /// How the stream relates to the streams before it.
    pub continuity: Continuity,
    /// How many stored messages come before live ones.
    pub replayed: u32,
}

/// A device's live stream. Dropping it makes the device not connected, unless a newer stream has taken its place.
///
/// Ends after [`StreamItem::End`], and without one when the same page has another stream or the mailbox was removed.
pub struct Subscription {
    hub: Hub,
    slot: Arc<Slot>,
    generation: u32,
    page: u32,
    /// The log had another message when the last one was taken.
    has_more: bool,
    over: bool,
    /// The reason that the stream was told.
    reason: Option<EndReason>,
    /// When the hub accepted the message whose latency is measured, until it is written.
    measured: Option<AcceptedAt>,
}

impl Subscription {
    pub(super) fn new(hub: Hub, slot: Arc<Slot>, generation: u32, page: u32) -> Self {
        Self { hub, slot, generation, page, has_more: false, over: false, reason: None, measured: None }
    }

    /// Another message, if there is one already, to be written together with the one before it.
    pub fn more(&mut self) -> Option<StreamItem> {
        if !std::mem::take(&mut self.has_more) {
            return None;
        }
        let outgoing = self.slot.more(&self.hub.0.core, self.id(), self.hub.now())?;
        Some(self.message(outgoing))
    }

    /// As [`Hub::drain_left`].
    #[must_use]
    pub fn drain_left(&self) -> Duration {
        self.hub.drain_left()
    }

    fn message(&mut self, outgoing: Outgoing) -> StreamItem {
        self.has_more = outgoing.has_more;
        // Of messages that are written together, at most one is measured.
        self.measured = self.measured.or(outgoing.measured);
        StreamItem::Message(outgoing.cursor, outgoing.message)
    }

    /// The generation and the page: they tell this stream from the others of its mailbox.
    fn id(&self) -> (u32, u32) {
        (self.generation, self.page)
    }
}

impl Stream for Subscription {
    type Item = StreamItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<StreamItem>> {
        if self.over {
            return Poll::Ready(None);
        }
        let elapsed = self.hub.elapsed();
        // Polling for the next item acknowledges that all earlier items were written.
        if let Some(accepted) = self.measured.take() {
            self.hub.observe(&Event::Written { address: &self.slot.address, latency: accepted.latency(elapsed) });
        }
        match self.slot.next(&self.hub.0.core, self.id(), context.waker(), Millis::new(elapsed)) {
            Next::Wait => Poll::Pending,
            Next::Message(outgoing) => Poll::Ready(Some(self.message(outgoing))),
            Next::Ping => Poll::Ready(Some(StreamItem::Ping)),
            Next::End(reason) => {
                (self.over, self.reason) = (true, Some(reason));
                Poll::Ready(Some(StreamItem::End(reason)))
            }
            Next::Replaced => {
                self.over = true;
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let unread_reason = self.slot.leave(&self.hub.0.core, self.id(), self.hub.now());
        // Not over: the stream was cut, or its client left. The server may have ended it before, and the peer never read why.
        let reason = if self.over { self.reason } else { unread_reason };
        self.hub.observe(&Event::Ended { address: &self.slot.address, reason });
    }
}
