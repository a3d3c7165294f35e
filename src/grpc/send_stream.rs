//! A stream of sends: one answer per request, in their order, until the client has said all or the call is over.
//!
//! No message has a task, and there is no queue: hyper asks for answers when there is room for them, an answer is made by
//! sending, and only then the next request is looked at. Answers that are made without a pause go out together.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::task::coop::{Unconstrained, poll_proceed, unconstrained};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::{
    convert,
    proto::{SendStreamRequest, SendStreamResponse},
    status,
};
use crate::{auth::Caller, drain::Drain, error::Error, hub::Hub, model::Outcome};

/// Requests as they come from a client.
pub(super) trait Incoming: Stream<Item = Result<SendStreamRequest, Status>> + Unpin + Send + 'static {}

impl<S: Stream<Item = Result<SendStreamRequest, Status>> + Unpin + Send + 'static> Incoming for S {}

/// Who sends, and through what.
pub(super) struct Sender {
    pub(super) hub: Hub,
    pub(super) caller: Caller,
}

/// The answers of one call.
pub struct Answers(Pin<Box<dyn Stream<Item = Result<SendStreamResponse, Status>> + Send>>);

impl Answers {
    pub(super) fn new(sender: Sender, requests: impl Incoming, drain: &Drain) -> Self {
        let (sender, drain) = (Arc::new(sender), drain.clone());
        // A message that was taken is sent and answered: the stop comes between two requests.
        let stop = async move {
            drain.started().await;
            status::from(Error::Draining)
        };
        let answers = Requests::new(requests, stop).then(move |request| {
            let sender = sender.clone();
            async move { Ok(convert::answer(sender.send(request?).await)) }
        });
        Self(Box::pin(answers))
    }
}

impl Stream for Answers {
    type Item = Result<SendStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl Sender {
    async fn send(&self, request: SendStreamRequest) -> Result<Outcome, Error> {
        let (to, draft) = convert::send(request.send.unwrap_or_default())?;
        self.hub.send(&self.caller, &to, draft).await
    }
}

/// The requests of a call that may be ended while the client is still talking.
struct Requests<S, E> {
    incoming: S,
    /// Outside the task's budget, because it is asked when that is used up, too.
    end: Pin<Box<Unconstrained<E>>>,
    over: bool,
}

impl<S: Incoming, E: Future<Output = Status>> Requests<S, E> {
    fn new(incoming: S, end: E) -> Self {
        Self { incoming, end: Box::pin(unconstrained(end)), over: false }
    }

    /// Gives as many requests in a row as the runtime lets a task do before others have their turn.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<SendStreamRequest, Status>>> {
        let turn = std::task::ready!(poll_proceed(cx));
        let request = Pin::new(&mut self.incoming).poll_next(cx);
        if request.is_ready() {
            turn.made_progress();
        }
        request
    }
}

impl<S: Incoming, E: Future<Output = Status>> Stream for Requests<S, E> {
    type Item = Result<SendStreamRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut request = self.poll_request(cx);
        if request.is_pending() {
            request = self.end.as_mut().poll(cx).map(|status| Some(Err(status)));
        }
        self.over = matches!(request, Poll::Ready(None | Some(Err(_))));
        request
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;
    use tokio_stream::{iter, pending};
    use tonic::Code;

    use super::*;
    use crate::{
        budget::Budget,
        grpc::proto::{Address, SendRequest, send_stream_response::Result as Answer},
        hub::{self, Backplane},
        model::{self, DeviceId, Message, UserId},
        telemetry::Metrics,
    };

    /// Another node, which holds every device and takes a second for each message.
    struct Far;

    impl Backplane for Far {
        fn send<'a>(&'a self, _: &'a model::Address, _: &'a Message) -> hub::Reply<'a, Outcome> {
            Box::pin(async {
                sleep(Duration::from_secs(1)).await;
                Ok(Outcome::Delivered)
            })
        }

        fn broadcast<'a>(&'a self, _: &'a UserId, _: &'a Message) -> hub::Reply<'a, Vec<DeviceId>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn devices<'a>(&'a self, _: &'a UserId) -> hub::Reply<'a, Vec<DeviceId>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }
    }

    /// A client whose next request is always there.
    struct NeverSilent;

    impl Stream for NeverSilent {
        type Item = Result<SendStreamRequest, Status>;

        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(Some(Ok(request(""))))
        }
    }

    fn request(data: &str) -> SendStreamRequest {
        let to = Some(Address { user: "bob".into(), device: "phone".into() });
        SendStreamRequest { send: Some(SendRequest { to, event: String::new(), data: data.into(), ttl: None }) }
    }

    fn answers(requests: impl Incoming, drain: &Drain) -> Answers {
        let second = Duration::from_secs(1);
        let limits = hub::Limits::unlimited(second, second);
        let hub = Hub::new(limits, Budget::new(1_000), Far, Metrics::new());
        Answers::new(Sender { hub, caller: Caller::anonymous() }, requests, drain)
    }

    /// 0 for a message that was sent.
    fn code(answer: Option<Result<SendStreamResponse, Status>>) -> i32 {
        match answer.expect("no end").expect("an answer").result.expect("one of both") {
            Answer::Sent(_) => 0,
            Answer::Error(error) => error.code,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_another_node_takes_its_time_for_comes_before_the_quick_ones_after_it() {
        let requests = iter(["slow", "", "slow", ""]).map(|data| Ok(request(data)));
        let mut answers = answers(requests, &Drain::new());
        for expected in [Code::Ok, Code::InvalidArgument, Code::Ok, Code::InvalidArgument] {
            assert_eq!(code(answers.next().await), i32::from(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_on_its_way_when_the_drain_begins_is_answered_and_then_the_call_ends() {
        let drain = Drain::new();
        let mut answers = answers(iter([Ok(request("slow"))]).chain(pending()), &drain);
        let (answer, ()) = tokio::join!(answers.next(), async { drain.start() });
        assert_eq!(code(answer), 0);
        let end = answers.next().await.expect("a status").expect_err("the end");
        assert_eq!(end.code(), Code::Unavailable);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_is_never_silent_is_ended_all_the_same() {
        let drain = Drain::new();
        drain.start();
        let mut answers = answers(NeverSilent, &drain).take(10_000);
        let end = loop {
            if let Err(status) = answers.next().await.expect("an end in time") {
                break status;
            }
        };
        assert_eq!(end.code(), Code::Unavailable);
    }
}
