//! Event streams as HTTP responses: their headers, their body, and the polite refusal.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper::body::Frame;

use tokio_stream::Stream;

use super::{
    Problem,
    sse::{self, Text},
};
use crate::{
    error::Error,
    hub::{Event, Subscription, Watch},
};

/// Something that is written as events.
pub(super) trait Source: Stream + Send + Unpin + 'static {
    /// One more item that is there already, to be written together with the one before it.
    fn more(&mut self) -> Option<Self::Item> {
        None
    }
}

impl Source for Subscription {
    fn more(&mut self) -> Option<Event> {
        self.more()
    }
}

impl Source for Watch {}

/// Whether the client asks for an event stream by name, as every `EventSource` does.
#[must_use]
pub fn accepts_events(headers: &HeaderMap) -> bool {
    let named = |line: &HeaderValue| {
        let kinds = line.to_str().unwrap_or_default().split(',');
        kinds
            .filter_map(|kind| kind.split(';').next())
            .any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    };
    headers.get_all(header::ACCEPT).iter().any(named)
}

/// The response that writes the opening at once, then every event; `write` may leave one out with an empty text.
pub(super) fn stream<S, W>(opening: String, events: S, write: W) -> Response
where
    S: Source,
    W: FnMut(S::Item) -> Text + Send + Unpin + 'static,
{
    let ready = Some(Box::new(VecDeque::from([opening.into()])));
    respond(Body::new(Events { ready, source: events, write }))
}

/// What a client gets that cannot be served now. Any status but 200 stops an `EventSource` for good, so one that asks for
/// events by name is told when to come back.
pub(super) fn refuse(error: Error, headers: &HeaderMap) -> Result<Response, Problem> {
    match error {
        Error::Draining(_) | Error::NoPlace(_) | Error::OverBudget(_) | Error::TooMany(_)
            if accepts_events(headers) =>
        {
            Ok(respond(Body::from(sse::begin(random(OVERLOAD_RETRY)))))
        }
        error => Err(error.into()),
    }
}

/// When a client that lost its stream comes back; random, so that they do not come in step.
pub(super) fn retry() -> Duration {
    random(RETRY)
}

/// The body of an event stream.
struct Events<S, W> {
    /// Frames that are ready. Boxed, because there are none for nearly all of the stream's life.
    #[expect(clippy::box_collection, reason = "an idle stream keeps one word")]
    ready: Option<Box<VecDeque<Bytes>>>,
    source: S,
    write: W,
}

impl<S, W> Events<S, W>
where
    S: Source,
    W: FnMut(S::Item) -> Text + Unpin,
{
    /// Makes frames of an event, and of those that are there already and are small.
    fn gather(&mut self, event: S::Item) -> VecDeque<Bytes> {
        let (mut frames, mut text) = (VecDeque::new(), String::new());
        let mut next = Some(event);
        while let Some(event) = next {
            match (self.write)(event) {
                Text::Own(own) if text.is_empty() => text = own,
                Text::Own(own) => text.push_str(&own),
                Text::Shared(shared, end) => {
                    frames.extend([std::mem::take(&mut text).into(), shared, end.into()]);
                    break;
                }
            }
            next = if text.len() < TOGETHER { self.source.more() } else { None };
        }
        frames.push_back(text.into());
        // An empty frame would end the body of a chunked response.
        frames.retain(|frame| !frame.is_empty());
        frames
    }
}

impl<S, W> HttpBody for Events<S, W>
where
    S: Source,
    W: FnMut(S::Item) -> Text + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(frame) = self.ready.as_mut().and_then(|ready| ready.pop_front()) {
                self.ready.take_if(|ready| ready.is_empty());
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            let Some(event) = std::task::ready!(Pin::new(&mut self.source).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            self.ready = Some(Box::new(self.gather(event)));
        }
    }
}

fn respond(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

fn random((least, most): (u64, u64)) -> Duration {
    Duration::from_millis(fastrand::u64(least..=most))
}

/// Bytes of events that are written together when several are there, but for the last one's.
const TOGETHER: usize = 16 * 1024;

/// In milliseconds.
const RETRY: (u64, u64) = (1_000, 4_000);
/// For a client that was not served.
const OVERLOAD_RETRY: (u64, u64) = (5_000, 20_000);

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
