//! The responses of one streaming call: whatever the hub has, as long as the call's deadline allows, and the status of its end.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Sleep, sleep_until};
use tokio_stream::Stream;
use tonic::Status;

use super::{Deadline, status, too_late};
use crate::{hub::Gather, model::EndReason};

/// What becomes of one event of the hub.
pub(super) struct Step<T> {
    /// The response for it, where there is one.
    pub(super) response: Option<T>,
    /// The server ends the stream with it.
    pub(super) end: Option<EndReason>,
}

/// A stream of responses made of the events of another stream.
///
/// tonic takes responses until there are none, to write them together. Only when it comes back after that, all of them are taken
/// (the response is a lasting one, see `serve::Lasting`, and so paced), and the hub may be asked for the next event.
pub struct Responses<S: Stream, T> {
    phase: Phase<T>,
    events: S,
    convert: fn(S::Item) -> Step<T>,
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Phase<T> {
    /// Nothing was written yet.
    Opening(Box<T>),
    /// The hub has the word.
    Live,
    /// Responses were given that are not on their way yet.
    Gathering,
    /// The last response was written; this status follows, unless it is OK.
    Ended(Option<Status>),
}

impl<S: Stream, T> Responses<S, T> {
    pub(super) fn new(
        opening: Option<T>,
        events: S,
        convert: fn(S::Item) -> Step<T>,
        deadline: Option<Deadline>,
    ) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline.0)));
        let phase = opening.map_or(Phase::Live, |opening| Phase::Opening(Box::new(opening)));
        Self { phase, events, convert, deadline }
    }
}

impl<S: Gather + Unpin, T: Unpin> Stream for Responses<S, T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let event = match std::mem::replace(&mut self.phase, Phase::Live) {
                Phase::Opening(opening) => {
                    self.phase = Phase::Gathering;
                    return Poll::Ready(Some(Ok(*opening)));
                }
                Phase::Ended(status) => {
                    self.phase = Phase::Ended(None);
                    return Poll::Ready(status.map(Err));
                }
                Phase::Gathering => {
                    let Some(event) = self.events.more() else {
                        // Whoever asks next asks the hub.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    };
                    Some(event)
                }
                Phase::Live => {
                    let Poll::Ready(event) = Pin::new(&mut self.events).poll_next(cx) else { break };
                    event
                }
            };
            let Some(Step { response, end }) = event.map(self.convert) else {
                self.phase = Phase::Ended(None);
                continue;
            };
            self.phase = end.map_or(Phase::Gathering, |reason| Phase::Ended(status::after(reason)));
            if let Some(response) = response {
                return Poll::Ready(Some(Ok(response)));
            }
        }
        let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        if late {
            self.phase = Phase::Ended(None);
            return Poll::Ready(Some(Err(too_late())));
        }
        Poll::Pending
    }
}
