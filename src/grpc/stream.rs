//! The responses of one streaming call: whatever the hub has, and the status of its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio_stream::Stream;
use tonic::Status;

use super::status;
use crate::model::EndReason;

/// What becomes of one event of the hub.
pub(super) struct Step<T> {
    /// The responses for it.
    pub(super) responses: Vec<T>,
    /// The server ends the stream with it.
    pub(super) end: Option<EndReason>,
}

/// A stream of responses made of the events of another stream.
pub struct Responses<S: Stream, T> {
    /// `None` while the hub has nothing to say, as for nearly all of the stream's life.
    ready: Option<Box<Ready<T>>>,
    events: S,
    convert: fn(S::Item) -> Step<T>,
}

/// What is to be given before the hub is asked again.
struct Ready<T> {
    /// Responses, the last one first.
    responses: Vec<T>,
    /// What follows them.
    then: Then,
}

enum Then {
    /// What the hub has next.
    Events,
    /// The end, with this status unless it is OK.
    End(Option<Status>),
}

impl<S: Stream, T> Responses<S, T> {
    pub(super) fn new(opening: Option<T>, events: S, convert: fn(S::Item) -> Step<T>) -> Self {
        let ready = opening.map(|opening| Box::new(Ready { responses: vec![opening], then: Then::Events }));
        Self { ready, events, convert }
    }

    /// Takes in one event, or the end of them; gives the first response for it.
    fn step(&mut self, event: Option<S::Item>) -> Option<T> {
        let (mut responses, then) = match event.map(self.convert) {
            Some(Step { responses, end: None }) => (responses, Then::Events),
            Some(Step { responses, end: Some(reason) }) => (responses, Then::End(status::after(reason))),
            None => (Vec::new(), Then::End(None)),
        };
        responses.reverse();
        let first = responses.pop();
        if matches!(then, Then::End(_)) || !responses.is_empty() {
            self.ready = Some(Box::new(Ready { responses, then }));
        }
        first
    }
}

impl<S: Stream + Unpin, T: Unpin> Stream for Responses<S, T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(ready) = &mut self.ready {
                if let Some(response) = ready.responses.pop() {
                    return Poll::Ready(Some(Ok(response)));
                }
                if let Then::End(status) = &mut ready.then {
                    return Poll::Ready(status.take().map(Err));
                }
                self.ready = None;
            }
            let event = ready!(Pin::new(&mut self.events).poll_next(cx));
            if let Some(response) = self.step(event) {
                return Poll::Ready(Some(Ok(response)));
            }
        }
    }
}
