//! `SendStream`: one response per request, in the order of the requests.
//!
//! `SendStream` has no queue and no task per message. hyper polls for the next response only when the client can take one, and the
//! poll reads one request and sends its message. So a client that does not read its responses stops its own requests
//! (backpressure). Responses that are ready without a wait are written together.

use std::{
    error::Error as _,
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
use crate::{auth::Caller, drain::Drain, error::Error, hub::Hub, model::Outcome, serve::UnreadResponses};

/// The requests of a client, as tonic decodes them.
pub(super) trait RequestStream:
    Stream<Item = Result<SendStreamRequest, Status>> + Unpin + Send + 'static
{
}

impl<S: Stream<Item = Result<SendStreamRequest, Status>> + Unpin + Send + 'static> RequestStream for S {}

/// The responses of one call.
pub struct SendResponses(Pin<Box<dyn Stream<Item = Result<SendStreamResponse, Status>> + Send>>);

impl SendResponses {
    pub(super) fn new(hub: Hub, caller: Caller, requests: impl RequestStream, drain: &Drain) -> Self {
        let (expires, drain) = (caller.expires(), drain.clone());
        let context = Arc::new((hub, caller));
        // The drain and the end of the token end the call between two requests, so a request that was read is still sent and
        // answered.
        let stop = async move {
            tokio::select! {
                () = drain.started() => Error::DRAINING.into(),
                status = status::when_expired(expires) => status,
            }
        };
        let responses = UntilStop::new(requests, stop).then(move |request| {
            let context = context.clone();
            async move {
                let (hub, caller) = &*context;
                Ok(convert::send_stream_response(send(hub, caller, request.map_err(error_of_request)?).await))
            }
        });
        Self(Box::pin(responses))
    }
}

impl Stream for SendResponses {
    type Item = Result<SendStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// The status for a request that could not be read.
fn error_of_request(status: Status) -> Status {
    let mut causes = std::iter::successors(status.source(), |&cause| cause.source());
    // axum wraps the error of the body in its own error.
    if causes.any(<dyn std::error::Error>::is::<UnreadResponses>) { Error::UnreadResponses.into() } else { status }
}

async fn send(hub: &Hub, caller: &Caller, request: SendStreamRequest) -> Result<Outcome, Error> {
    let (to, draft) = convert::send_request(request.send.unwrap_or_default())?;
    hub.send(caller, &to, draft).await
}

/// Requests that end with a status when `stop` completes, even if the client goes on sending.
struct UntilStop<S, F> {
    requests: S,
    /// Outside tokio's cooperative budget: it must be polled even when the requests have used up the budget.
    stop: Pin<Box<Unconstrained<F>>>,
    ended: bool,
}

impl<S: RequestStream, F: Future<Output = Status>> UntilStop<S, F> {
    fn new(requests: S, stop: F) -> Self {
        Self { requests, stop: Box::pin(unconstrained(stop)), ended: false }
    }

    /// Polls for a request within tokio's cooperative budget. Otherwise a client with many requests would occupy its worker thread,
    /// and `stop` would never be polled.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<SendStreamRequest, Status>>> {
        let budget = std::task::ready!(poll_proceed(cx));
        let request = Pin::new(&mut self.requests).poll_next(cx);
        if request.is_ready() {
            budget.made_progress();
        }
        request
    }
}

impl<S: RequestStream, F: Future<Output = Status>> Stream for UntilStop<S, F> {
    type Item = Result<SendStreamRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut request = self.poll_request(cx);
        if request.is_pending() {
            request = self.stop.as_mut().poll(cx).map(|status| Some(Err(status)));
        }
        self.ended = matches!(request, Poll::Ready(None | Some(Err(_))));
        request
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_stream::{iter, pending};
    use tonic::Code;

    use super::*;
    use crate::{
        budget::Budget,
        grpc::proto::{Address, SendRequest, send_stream_response::Result as SendResult},
        hub::{self, StubNodes},
        telemetry::Metrics,
    };

    /// A cluster whose other nodes have every device and take a second for each message.
    fn slow_nodes() -> StubNodes {
        StubNodes { takes: Duration::from_secs(1), pushed: Ok(Outcome::Delivered), ..StubNodes::default() }
    }

    /// Data that is refused at once.
    const REFUSED: &str = "";

    /// A client that always has another request.
    struct EndlessRequests;

    impl Stream for EndlessRequests {
        type Item = Result<SendStreamRequest, Status>;

        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(Some(Ok(request(REFUSED))))
        }
    }

    fn request(data: &str) -> SendStreamRequest {
        let to = Some(Address { user: "bob".into(), device: "phone".into() });
        SendStreamRequest {
            send: Some(SendRequest {
                to,
                event: String::new(),
                data: data.into(),
                ttl: None,
                idempotency_key: String::new(),
            }),
        }
    }

    fn responses(requests: impl RequestStream, drain: &Drain) -> SendResponses {
        let second = Duration::from_secs(1);
        let limits = hub::Limits::only_times(second, second);
        let hub = Hub::new(limits, Budget::new(1_000), slow_nodes(), Metrics::new());
        SendResponses::new(hub, Caller::anonymous(), requests, drain)
    }

    /// The code of a response. 0 for a message that was sent.
    fn code(response: Option<Result<SendStreamResponse, Status>>) -> i32 {
        match response.expect("not the end").expect("a response").result.expect("sent or an error") {
            SendResult::Sent(_) => 0,
            SendResult::Error(error) => error.code,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn responses_keep_the_order_of_the_requests_when_another_node_is_slow() {
        let requests = iter(["slow", REFUSED, "slow", REFUSED]).map(|data| Ok(request(data)));
        let mut responses = responses(requests, &Drain::new());
        for expected in [Code::Ok, Code::InvalidArgument, Code::Ok, Code::InvalidArgument] {
            assert_eq!(code(responses.next().await), i32::from(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_read_before_the_drain_is_answered_and_then_the_call_ends() {
        let drain = Drain::new();
        let mut responses = responses(iter([Ok(request("slow"))]).chain(pending()), &drain);
        let (response, ()) = tokio::join!(responses.next(), async { drain.start() });
        assert_eq!(code(response), 0);
        let end = responses.next().await.expect("a status").expect_err("the end");
        assert_eq!(end.code(), Code::Unavailable);
        assert!(responses.next().await.is_none());
    }

    #[tokio::test]
    async fn a_call_whose_request_is_refused_because_its_responses_are_not_read_ends_with_resource_exhausted() {
        for (cause, code) in [(UnreadResponses.into(), Code::ResourceExhausted), ("reset".into(), Code::Unknown)] {
            let mut responses = responses(iter([Err(Status::from_error(cause))]), &Drain::new());
            assert_eq!(responses.next().await.expect("a status").expect_err("the end").code(), code);
        }
    }

    #[tokio::test]
    async fn a_drain_ends_the_call_of_a_client_that_always_has_another_request() {
        let drain = Drain::new();
        drain.start();
        let mut responses = responses(EndlessRequests, &drain).take(10_000);
        let end = loop {
            if let Err(status) = responses.next().await.expect("an end within 10,000 requests") {
                break status;
            }
        };
        assert_eq!(end.code(), Code::Unavailable);
    }
}
