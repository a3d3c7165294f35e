//! The responses of one streaming call: whatever the hub has, as long as the call's deadline allows, and the status of its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Sleep, sleep_until};
use tokio_stream::Stream;
use tonic::Status;

use super::{Deadline, status, too_late};
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
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Phase {
    /// The hub has the word.
    Live,
    /// The last response was made; this status follows, unless it is OK.
    Ended(Option<Box<Status>>),
}

impl<S: Stream, T> Responses<S, T> {
    pub(super) fn new(
        opening: Option<T>,
        events: S,
        convert: fn(S::Item) -> Step<T>,
        deadline: Option<Deadline>,
    ) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline.0)));
        Self { ready: opening.map(|opening| Box::new(vec![opening])), phase: Phase::Live, events, convert, deadline }
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
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            (self.ready, self.deadline, self.phase) = (None, None, Phase::Ended(Some(Box::new(too_late()))));
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_never_idle_ends_at_its_deadline() {
        let endless = tokio_stream::iter(0..);
        let convert = |number: u32| Step { responses: vec![number, number], end: None };
        let deadline = Deadline(Instant::now() + Duration::from_secs(1));
        let mut responses = Responses::new(None, endless, convert, Some(deadline));
        assert_eq!(responses.next().await.expect("more").ok(), Some(0));
        assert_eq!(responses.next().await.expect("more").ok(), Some(0));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(responses.next().await.expect("a status").expect_err("late").code(), Code::DeadlineExceeded);
        assert!(responses.next().await.is_none());
    }
}
