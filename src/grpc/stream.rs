//! The responses of one streaming call: whatever the hub has, and the status of its end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use prost::Message;
use tokio_stream::Stream;
use tonic::Status;

use super::{codec, status};
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
/// tonic takes responses until there are none, or until they are enough, to write them together. When it comes back after that,
/// all of them are on their way, and the hub may be asked for the next event.
pub struct Responses<S: Stream, T> {
    phase: Phase<T>,
    events: S,
    convert: fn(S::Item) -> Step<T>,
}

enum Phase<T> {
    /// Nothing was written yet.
    Opening(Box<T>),
    /// The hub has the word.
    Live,
    /// Responses of so many bytes were given that are not on their way yet.
    Gathering(usize),
    /// The last response was written; this status follows, unless it is OK.
    Ended(Option<Status>),
}

impl<T: Message> Phase<T> {
    /// After a response that was given when others of so many bytes had been.
    fn after(gathered: usize, response: &T) -> Self {
        let bytes = gathered + codec::length(response);
        if bytes < codec::BATCH { Self::Gathering(bytes) } else { Self::Live }
    }
}

impl<S: Stream, T> Responses<S, T> {
    pub(super) fn new(opening: Option<T>, events: S, convert: fn(S::Item) -> Step<T>) -> Self {
        let phase = opening.map_or(Phase::Live, |opening| Phase::Opening(Box::new(opening)));
        Self { phase, events, convert }
    }
}

impl<S: Gather + Unpin, T: Message + Unpin> Stream for Responses<S, T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (gathered, event) = match std::mem::replace(&mut self.phase, Phase::Live) {
                Phase::Opening(opening) => {
                    self.phase = Phase::after(0, &*opening);
                    return Poll::Ready(Some(Ok(*opening)));
                }
                Phase::Ended(status) => {
                    self.phase = Phase::Ended(None);
                    return Poll::Ready(status.map(Err));
                }
                Phase::Gathering(bytes) => {
                    let Some(event) = self.events.more() else {
                        // Whoever asks next asks the hub.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    };
                    (bytes, Some(event))
                }
                Phase::Live => (0, ready!(Pin::new(&mut self.events).poll_next(cx))),
            };
            let Some(Step { response, end }) = event.map(self.convert) else {
                self.phase = Phase::Ended(None);
                continue;
            };
            if let Some(response) = &response {
                self.phase = Phase::after(gathered, response);
            }
            if let Some(reason) = end {
                self.phase = Phase::Ended(status::after(reason));
            }
            if let Some(response) = response {
                return Poll::Ready(Some(Ok(response)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::grpc::proto;

    /// Always has another event; notes how it was asked.
    #[derive(Default)]
    struct Endless(Vec<&'static str>);

    impl Stream for Endless {
        type Item = ();

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<()>> {
            self.0.push("next");
            Poll::Ready(Some(()))
        }
    }

    impl Gather for Endless {
        fn more(&mut self) -> Option<()> {
            self.0.push("more");
            Some(())
        }
    }

    #[tokio::test]
    async fn a_batch_is_over_when_tonic_has_enough_however_much_waits() {
        let twenty_kilobytes = |()| {
            let data = "x".repeat(20_000);
            Step { response: Some(proto::Message { data, ..proto::Message::default() }), end: None }
        };
        let mut responses = Responses::new(None, Endless::default(), twenty_kilobytes);
        for _ in 0..6 {
            responses.next().await.expect("another one").expect("no end");
        }
        assert_eq!(responses.events.0, ["next", "more", "next", "more", "next", "more"]);
    }
}
