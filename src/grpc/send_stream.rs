//! A stream of sends: one answer per request, in their order, until the client has said all or the call is over.
//!
//! No message has a task, and there is no queue: hyper asks for answers when there is room for them, an answer is made by
//! sending, and only then the next request is looked at. Answers that are made without a pause go out together.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    task::coop::{Unconstrained, poll_proceed, unconstrained},
    time::sleep_until,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::{
    Deadline, convert,
    proto::{SendStreamRequest, SendStreamResponse},
    status, too_late,
    unread::{Breaker, Unread},
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

/// What ends a call before its client does.
pub(super) struct Limits {
    /// The client does not wait any longer.
    pub(super) deadline: Option<Deadline>,
    /// This server stops.
    pub(super) drain: Drain,
    /// The client has left answers unread for so long.
    pub(super) stall: Duration,
    /// The way to end the call then.
    pub(super) breaker: Option<Breaker>,
}

/// The answers of one call.
pub struct Answers {
    answers: Pin<Box<dyn Stream<Item = Result<SendStreamResponse, Status>> + Send>>,
    unread: Option<Unread>,
}

impl Answers {
    pub(super) fn new(sender: Sender, requests: impl Incoming, limits: Limits) -> Self {
        let unread = limits.breaker.map(|breaker| Unread::watched(&limits.drain, limits.stall, breaker));
        let sender = Arc::new(sender);
        let answers = Requests::new(requests, ended(limits.drain, limits.deadline)).then(move |request| {
            let sender = sender.clone();
            async move { Ok(convert::answer(sender.send(request?).await)) }
        });
        Self { answers: Box::pin(answers), unread }
    }
}

impl Stream for Answers {
    type Item = Result<SendStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = self.answers.as_mut().poll_next(cx);
        if let Some(unread) = &mut self.unread {
            unread.asked(answer.is_ready());
        }
        answer
    }
}

impl Sender {
    async fn send(&self, request: SendStreamRequest) -> Result<Outcome, Error> {
        let (to, draft) = convert::send(request.send.unwrap_or_default())?;
        self.hub.send(&self.caller, &to, draft).await
    }
}

/// What ends a call between two requests, and its status: a message that was taken is sent and answered.
async fn ended(drain: Drain, deadline: Option<Deadline>) -> Status {
    let deadline = async {
        match deadline {
            Some(deadline) => sleep_until(deadline.0).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = drain.started() => status::from(Error::Draining),
        () = deadline => too_late(),
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
        fn send<'a>(&'a self, _: &'a model::Address, _: &'a Message) -> hub::Answer<'a, Outcome> {
            Box::pin(async {
                sleep(Duration::from_secs(1)).await;
                Ok(Outcome::Delivered)
            })
        }

        fn broadcast<'a>(&'a self, _: &'a UserId, _: &'a Message) -> hub::Answer<'a, Vec<DeviceId>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn devices<'a>(&'a self, _: &'a UserId) -> hub::Answer<'a, Vec<DeviceId>> {
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

    fn answers(requests: impl Incoming, drain: &Drain, deadline: Option<Deadline>) -> Answers {
        let second = Duration::from_secs(1);
        let limits = hub::Limits::times(second, second);
        let sender =
            Sender { hub: Hub::new(limits, Budget::new(1_000), Far, Metrics::new()), caller: Caller::anonymous() };
        let limits = Limits { deadline, drain: drain.clone(), stall: second, breaker: None };
        Answers::new(sender, requests, limits)
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
        let mut answers = answers(requests, &Drain::new(), None);
        for expected in [Code::Ok, Code::InvalidArgument, Code::Ok, Code::InvalidArgument] {
            assert_eq!(code(answers.next().await), i32::from(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_on_its_way_when_the_drain_begins_is_answered_and_then_the_call_ends() {
        let drain = Drain::new();
        let mut answers = answers(iter([Ok(request("slow"))]).chain(pending()), &drain, None);
        let (answer, ()) = tokio::join!(answers.next(), async { drain.start() });
        assert_eq!(code(answer), 0);
        let end = answers.next().await.expect("a status").expect_err("the end");
        assert_eq!(end.code(), Code::Unavailable);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_is_never_silent_is_ended_all_the_same() {
        let (going_on, stopping) = (Drain::new(), Drain::new());
        stopping.start();
        let over = Some(Deadline(tokio::time::Instant::now()));
        for (drain, deadline, code) in [(going_on, over, Code::DeadlineExceeded), (stopping, None, Code::Unavailable)] {
            let mut answers = answers(NeverSilent, &drain, deadline).take(10_000);
            let end = loop {
                if let Err(status) = answers.next().await.expect("an end in time") {
                    break status;
                }
            };
            assert_eq!(end.code(), code);
        }
    }
}
