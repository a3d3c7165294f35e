//! The responses of one `Subscribe`: ready, whatever the hub has, and the status that fits the end.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};

use tokio::time::{Sleep, sleep_until};
use tokio_stream::Stream;
use tonic::Status;

use super::{Deadline, convert, proto::SubscribeResponse, status, too_late};
use crate::hub::{Event, Subscription};

/// A stream of responses, for as long as the call's deadline allows.
pub struct Responses {
    phase: Phase,
    subscription: Subscription,
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Phase {
    /// Nothing was written yet.
    Opening(Box<SubscribeResponse>),
    /// The hub has the word.
    Live,
    /// The last response was written; this status follows, unless it is OK.
    Ended(Option<Status>),
}

impl Responses {
    pub(super) fn new(ready: SubscribeResponse, subscription: Subscription, deadline: Option<Deadline>) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline.0)));
        Self { phase: Phase::Opening(Box::new(ready)), subscription, deadline }
    }
}

impl Stream for Responses {
    type Item = Result<SubscribeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match std::mem::replace(&mut self.phase, Phase::Live) {
            Phase::Opening(ready) => return Poll::Ready(Some(Ok(*ready))),
            Phase::Ended(status) => {
                self.phase = Phase::Ended(None);
                return Poll::Ready(status.map(Err));
            }
            Phase::Live => {}
        }
        if let Poll::Ready(event) = Pin::new(&mut self.subscription).poll_next(cx) {
            if let Some(Event::End(reason)) = event {
                self.phase = Phase::Ended(status::after(reason));
            }
            return Poll::Ready(event.map(|event| Ok(convert::event(&event, SystemTime::now()))));
        }
        let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if late {
            self.phase = Phase::Ended(None);
            return Poll::Ready(Some(Err(too_late())));
        }
        Poll::Pending
    }
}
