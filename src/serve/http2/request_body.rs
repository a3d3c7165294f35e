//! The body of an HTTP/2 request, which fails when the peer resets the stream before the end of the body.
//!
//! hyper reports `RST_STREAM(NO_ERROR)` as a normal end of body (RFC 9113, section 8.1). A server must not: it would accept
//! half a message as a whole one.
//!
//! The handler shares the body with the task of its stream, which discards what the handler left. If the body were dropped, h2
//! would reset the stream with the response, and the frames that the peer has sent by then would count as its faults.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Bytes, HttpBody},
};
use http::{HeaderMap, Request, header};
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::{task::coop::poll_proceed, time::Instant};

use super::{read_ahead::ReadAhead, received_body::ReceivedBody, streams::Streams};

use crate::{
    drain::Drain,
    serve::discard::{Discard, discard, discard_until_quiet},
};

/// The handler's half. `None` for a request without a body.
pub(in crate::serve) struct CheckedBody(Option<SharedBody>);

/// The half of the stream's task.
#[derive(Clone)]
pub(super) struct SharedBody(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// The body may take until then to arrive.
    deadline: Instant,
    drain: Arc<Drain>,
}

enum State {
    Handled(ReadAhead),
    Discarding(Discard),
    /// The watchdog has refused the rest, which is discarded. `None`: it has ended.
    Refused(Option<ReadAhead>),
    /// One of the two halves is polling the body at this moment, on another thread.
    Polled,
    Done,
}

/// The error of a request body that was refused: the client does not read the responses of this call, and its unread requests would
/// hold up the other streams of the connection.
#[derive(Debug)]
pub struct UnreadResponses;

impl std::fmt::Display for UnreadResponses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the responses of this call are not read")
    }
}

impl std::error::Error for UnreadResponses {}

/// Whether the client waits for `100 Continue` before it sends its body. Over HTTP/2 hyper cannot send that.
#[must_use]
pub fn expects_continue(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::EXPECT).iter();
    lines.any(|line| line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue"))
}

impl CheckedBody {
    pub(super) fn of(
        request: Request<Incoming>,
        timeout: Duration,
        drain: &Arc<Drain>,
        streams: &Arc<Streams>,
    ) -> Request<Self> {
        // A client that is refused `100 Continue` sends no body. Waiting for it would keep the stream open for nothing.
        let timeout = if expects_continue(request.headers()) { Duration::ZERO } else { timeout };
        request.map(|body| Self::new(body, timeout, drain, streams))
    }

    fn new(body: Incoming, timeout: Duration, drain: &Arc<Drain>, streams: &Arc<Streams>) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        let body = ReadAhead::new(ReceivedBody::new(body, streams.clone()));
        let (state, deadline) = (Mutex::new(State::Handled(body)), Instant::now() + timeout);
        Self(Some(SharedBody(Arc::new(Inner { state, deadline, drain: drain.clone() }))))
    }

    pub(super) fn share(&self) -> Option<SharedBody> {
        self.0.clone()
    }
}

impl SharedBody {
    /// The handler has dropped its half.
    pub(super) fn is_left(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Discards what the handler left. Ready when nothing is left.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut discarding = match self.take() {
            State::Handled(body) | State::Refused(Some(body)) if !body.is_end_stream() => {
                // A refusal that comes at the deadline gets time too: a reset right behind it would hide it from some clients.
                let deadline = self.0.deadline.max(Instant::now() + SHORTEST_DISCARD);
                discard(body, deadline, self.0.drain.clone())
            }
            State::Discarding(discarding) => discarding,
            State::Polled => return wait(cx),
            State::Handled(_) | State::Refused(_) | State::Done => {
                self.put(State::Done);
                return Poll::Ready(());
            }
        };
        let polled = discarding.as_mut().poll(cx);
        self.put(if polled.is_pending() { State::Discarding(discarding) } else { State::Done });
        polled
    }

    /// Discards the rest of the body before its stream is reset. Ready when its peer sends little.
    pub(super) fn poll_discard_until_quiet(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = match self.take() {
            State::Handled(body) | State::Refused(Some(body)) => {
                State::Discarding(discard_until_quiet(body, self.0.drain.clone()))
            }
            State::Polled => return wait(cx),
            other => other,
        };
        self.put(state);
        self.poll_discard(cx)
    }

    /// Reads ahead while the handler does not read. Returns whether more could not be read, because a limit is reached.
    pub(super) fn poll_ahead(&self, is_unread: bool, cx: &mut Context<'_>) -> bool {
        match self.take() {
            State::Handled(mut body) => {
                let is_full = body.poll_ahead(is_unread, cx);
                self.put(State::Handled(body));
                is_full
            }
            // The handler is reading.
            State::Polled => false,
            other => {
                self.put(other);
                false
            }
        }
    }

    /// Refuses the rest of the body, and discards what has come of it. The handler gets [`UnreadResponses`].
    ///
    /// The body is not dropped: frames that come after that would cost h2's budget for small frames for good. It has no limit but
    /// `--stall-timeout`, which ends a call whose responses are not read.
    pub(super) fn poll_refuse(&self, cx: &mut Context<'_>) {
        let mut body = match self.take() {
            State::Handled(body) | State::Refused(Some(body)) => body,
            // The handler has left it.
            State::Discarding(mut discarding) => {
                let is_pending = discarding.as_mut().poll(cx).is_pending();
                return self.put(if is_pending { State::Discarding(discarding) } else { State::Done });
            }
            State::Polled => return cx.waker().wake_by_ref(),
            ended => return self.put(ended),
        };
        let mut is_over = false;
        // Within tokio's budget: a client may send faster than this discards.
        while let Poll::Ready(progress) = poll_proceed(cx)
            && let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(cx)
        {
            progress.made_progress();
            is_over = !matches!(frame, Some(Ok(_)));
            if is_over {
                break;
            }
        }
        self.put(State::Refused((!is_over).then_some(body)));
    }

    /// Whether the handler has read the whole body, or the rest was discarded.
    pub(super) fn is_done(&self) -> bool {
        matches!(*self.0.state.lock(), State::Done)
    }

    /// Takes the body out to poll it. The lock is never held during a poll, because a poll wakes the connection. Who gets anything but
    /// `Polled` must put something back: meanwhile the other half finds `Polled`, and must not take that for the end of the body.
    fn take(&self) -> State {
        let mut state = self.0.state.lock();
        match *state {
            State::Done => State::Done,
            _ => std::mem::replace(&mut *state, State::Polled),
        }
    }

    fn put(&self, state: State) {
        *self.0.state.lock() = state;
    }

    fn with_body<T>(&self, read: impl FnOnce(&ReadAhead) -> T) -> Option<T> {
        match &*self.0.state.lock() {
            State::Handled(body) => Some(read(body)),
            State::Discarding(_) | State::Refused(_) | State::Polled | State::Done => None,
        }
    }
}

/// Polls again at once: the other half is polling the body, which never takes long.
fn wait<T>(cx: &mut Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// The least time to discard a body, however late its request is refused.
const SHORTEST_DISCARD: Duration = Duration::from_secs(1);

impl HttpBody for CheckedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(shared) = &self.0 else { return Poll::Ready(None) };
        let mut body = match shared.take() {
            State::Handled(body) => body,
            State::Done => return Poll::Ready(None),
            State::Polled => return wait(cx),
            ended @ (State::Discarding(_) | State::Refused(_)) => {
                shared.put(ended);
                return Poll::Ready(Some(Err(UnreadResponses.into())));
            }
        };
        let polled = Pin::new(&mut body).poll_frame(cx);
        let has_ended = body.is_end_stream();
        shared.put(if polled.is_pending() || !has_ended { State::Handled(body) } else { State::Done });
        Poll::Ready(match ready!(polled) {
            None if !has_ended => Some(Err("the stream was reset before the end of its body".into())),
            frame => frame.map(|frame| frame.map_err(Into::into)),
        })
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.0 else { return true };
        shared.with_body(HttpBody::is_end_stream).unwrap_or_else(|| shared.is_done())
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.0.as_ref().and_then(|shared| shared.with_body(HttpBody::size_hint));
        hint.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::pending,
        sync::atomic::{AtomicBool, Ordering},
        task::{Wake, Waker},
    };

    use axum::body::Body;
    use http::Response;
    use hyper::{server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::{
        budget::Budget,
        serve::{http2::testing, write_watchdog::Watchdog},
        telemetry::Metrics,
    };

    const PIECE: &[u8] = &[b'x'; 16 * 1024];

    /// The task of a connection. h2 wakes it in the middle of a poll of the body, when it may grant its peer more. What it does then,
    /// the other half of the body may do on another thread.
    struct Meanwhile {
        body: Mutex<Option<SharedBody>>,
        act: fn(&SharedBody) -> bool,
        /// What `act` gave. Not asserted there: a panic under h2's lock ends the process.
        gave: Mutex<Option<bool>>,
    }

    impl Wake for Meanwhile {
        fn wake(self: Arc<Self>) {
            let body = self.body.lock().take();
            if let Some(body) = body {
                *self.gave.lock() = Some((self.act)(&body));
            }
        }
    }

    /// Whether a poll waits, and has woken its own task to come again.
    fn comes_again<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> bool {
        struct Task(AtomicBool);
        impl Wake for Task {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Release);
            }
        }
        let task = Arc::new(Task(AtomicBool::new(false)));
        let polled = poll(&mut Context::from_waker(&Waker::from(task.clone())));
        polled.is_pending() && task.0.load(Ordering::Acquire)
    }

    fn handler(body: &SharedBody) -> CheckedBody {
        CheckedBody(Some(body.clone()))
    }

    /// Takes in a request body of three pieces that has not ended. Polls it, and in the middle of that `meanwhile` has to be true. Then
    /// the handler has to get all three pieces, and no end.
    async fn poll_both(poll: fn(&SharedBody) -> usize, meanwhile: fn(&SharedBody) -> bool) {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(&testing::upload(&[PIECE; 3])).await.expect("space");
        let streams = Streams::new(Watchdog::new(Duration::from_secs(5), Budget::new(0), Metrics::new()));
        let received = Arc::<Mutex<Option<SharedBody>>>::default();
        let keep = received.clone();
        let service = service_fn(move |request| {
            *keep.lock() = CheckedBody::of(request, Duration::from_secs(5), &Arc::default(), &streams).body().share();
            pending::<Result<Response<Body>, Infallible>>()
        });
        let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service);
        let mut connection = Box::pin(connection);
        let other = Arc::new(Meanwhile { body: Mutex::default(), act: meanwhile, gave: Mutex::default() });
        let waker = Waker::from(other.clone());
        assert!(connection.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let body = received.lock().take().expect("a request");
        *other.body.lock() = Some(body.clone());
        let mut bytes = poll(&body);
        assert_eq!(*other.gave.lock(), Some(true), "in the middle of the poll");
        let mut handler = handler(&body);
        let last = loop {
            match Pin::new(&mut handler).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
                last => break last.is_pending(),
            }
        };
        assert_eq!((bytes, last), (3 * PIECE.len(), true));
    }

    #[tokio::test]
    async fn a_body_that_its_stream_reads_ahead_has_not_ended_for_its_handler() {
        let read_ahead = |body: &SharedBody| {
            assert!(!body.poll_ahead(true, &mut Context::from_waker(Waker::noop())));
            0
        };
        poll_both(read_ahead, |body| comes_again(|cx| Pin::new(&mut handler(body)).poll_frame(cx))).await;
        poll_both(read_ahead, |body| !handler(body).is_end_stream()).await;
    }

    #[tokio::test]
    async fn a_body_that_its_handler_reads_is_not_done_for_its_stream() {
        let read = |body: &SharedBody| match Pin::new(&mut handler(body))
            .poll_frame(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            other => panic!("{other:?}"),
        };
        poll_both(read, |body| !body.is_done()).await;
        poll_both(read, |body| comes_again(|cx| body.poll_discard(cx))).await;
        poll_both(read, |body| comes_again(|cx| body.poll_discard_until_quiet(cx))).await;
        poll_both(read, |body| !body.poll_ahead(true, &mut Context::from_waker(Waker::noop()))).await;
        let refuse = |body: &SharedBody| {
            comes_again(|cx| {
                body.poll_refuse(cx);
                Poll::<()>::Pending
            })
        };
        poll_both(read, refuse).await;
    }
}
