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
    /// Responses that are ready, the last one first. Boxed, because there are none for nearly all of the stream's life.
    #[expect(clippy::box_collection, reason = "an idle stream has none")]
    ready: Option<Box<Vec<T>>>,
    phase: Phase,
    events: S,
    convert: fn(S::Item) -> Step<T>,
}

enum Phase {
    /// The hub has the word.
    Live,
    /// The last response was made; this status follows, unless it is OK.
    Ended(Option<Box<Status>>),
}

impl<S: Stream, T> Responses<S, T> {
    pub(super) fn new(opening: Option<T>, events: S, convert: fn(S::Item) -> Step<T>) -> Self {
        Self { ready: opening.map(|opening| Box::new(vec![opening])), phase: Phase::Live, events, convert }
    }

    /// Takes in one event, or the end of them; gives the first response for it.
    fn step(&mut self, event: Option<S::Item>) -> Option<T> {
        let Some(event) = event else {
            self.phase = Phase::Ended(None);
            return None;
        };
        let Step { mut responses, end } = (self.convert)(event);
        if let Some(reason) = end {
            self.phase = Phase::Ended(status::after(reason).map(Box::new));
        }
        responses.reverse();
        let first = responses.pop();
        self.ready = (!responses.is_empty()).then(|| Box::new(responses));
        first
    }
}

impl<S: Stream + Unpin, T: Unpin> Stream for Responses<S, T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(response) = self.ready.as_mut().and_then(|ready| ready.pop()) {
                self.ready.take_if(|ready| ready.is_empty());
                return Poll::Ready(Some(Ok(response)));
            }
            if let Phase::Ended(status) = &mut self.phase {
                return Poll::Ready(status.take().map(|status| Err(*status)));
            }
            let event = ready!(Pin::new(&mut self.events).poll_next(cx));
            if let Some(response) = self.step(event) {
                return Poll::Ready(Some(Ok(response)));
            }
        }
    }
}
