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
    ready: Option<SubscribeResponse>,
    subscription: Subscription,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: Option<Option<Status>>,
}

impl Responses {
    pub(super) fn new(ready: SubscribeResponse, subscription: Subscription, deadline: Option<Deadline>) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline.0)));
        Self { ready: Some(ready), subscription, deadline, ended: None }
    }
}

impl Stream for Responses {
    type Item = Result<SubscribeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(ready) = self.ready.take() {
            return Poll::Ready(Some(Ok(ready)));
        }
        if let Some(status) = &mut self.ended {
            return Poll::Ready(status.take().map(Err));
        }
        if let Poll::Ready(event) = Pin::new(&mut self.subscription).poll_next(cx) {
            let Some(event) = event else {
                self.ended = Some(None);
                return Poll::Ready(None);
            };
            if let Event::End(reason) = event {
                self.ended = Some(status::after(reason));
            }
            return Poll::Ready(Some(Ok(convert::event(&event, SystemTime::now()))));
        }
        let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if late {
            self.ended = Some(None);
            return Poll::Ready(Some(Err(too_late())));
        }
        Poll::Pending
    }
}
