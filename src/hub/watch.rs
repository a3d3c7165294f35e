//! One watcher's stream of who comes and goes: a position in a user's changes that is forgotten when dropped.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio_stream::Stream;

use super::{Gather, Hub, presence::Sighting};
use crate::model::UserId;

/// A live view of a user's devices. Ends after [`Sighting::End`].
pub struct Watch {
    hub: Hub,
    user: UserId,
    number: u64,
    over: bool,
}

impl Watch {
    pub(super) fn new(hub: Hub, user: UserId, number: u64) -> Self {
        Self { hub, user, number, over: false }
    }
}

impl Stream for Watch {
    type Item = Sighting;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Sighting>> {
        if self.over {
            return Poll::Ready(None);
        }
        let (shared, now) = (&self.hub.0, self.hub.now());
        let Some(sighting) = shared.presence.next(&self.user, self.number, context.waker(), now) else {
            return Poll::Pending;
        };
        self.over = matches!(sighting, Sighting::End(_));
        Poll::Ready(Some(sighting))
    }
}

impl Gather for Watch {
    /// Changes are rare, so they are written one at a time.
    fn more(&mut self) -> Option<Sighting> {
        None
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Counted here because a peer that does not read is never told.
        if let Some(reason) = self.hub.0.presence.forget(&self.user, self.number) {
            self.hub.0.metrics.stream_ended(reason);
        }
    }
}
