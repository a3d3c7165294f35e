//! A stream of sends: one answer per request, in their order, until the client has said all or the call is over.
//!
//! There is no task and no queue in it: hyper asks for answers when there is room for them, an answer is made by sending, and
//! only then the next request is looked at. All answers that are made before there is nothing more to do go out together.

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
use tonic::{Status, Streaming};

use super::{
    Deadline, convert,
    proto::{SendStreamRequest, SendStreamResponse},
    status, too_late,
    unread::Unread,
};
use crate::{auth::Caller, drain::Drain, error::Error, hub::Hub, model::Outcome, serve::Cut};

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
    pub(super) cut: Option<Cut>,
}

/// The answers of one call.
pub struct Answers {
    answers: Pin<Box<dyn Stream<Item = Result<SendStreamResponse, Status>> + Send>>,
    unread: Option<Unread>,
}

impl Answers {
    pub(super) fn new(sender: Sender, requests: Streaming<SendStreamRequest>, limits: Limits) -> Self {
        let unread = limits.cut.map(|cut| Unread::watched(&limits.drain, limits.stall, cut));
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
struct Requests<E> {
    incoming: Streaming<SendStreamRequest>,
    /// Without a budget of its own: it is asked when the budget is used up, too.
    end: Pin<Box<Unconstrained<E>>>,
    over: bool,
}

impl<E: Future<Output = Status>> Requests<E> {
    fn new(incoming: Streaming<SendStreamRequest>, end: E) -> Self {
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

impl<E: Future<Output = Status>> Stream for Requests<E> {
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
