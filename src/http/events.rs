//! Event streams as HTTP responses: their headers, their body, and the polite refusal.

use std::{
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

use super::{Problem, sse};
use crate::{
    error::Error,
    hub::{Gather, Opening},
    model::Start,
};

/// Whether the client asks for an event stream by name, as every `EventSource` does.
pub(super) fn accepts_events(headers: &HeaderMap) -> bool {
    let named = |line: &HeaderValue| {
        let kinds = line.to_str().unwrap_or_default().split(',');
        kinds
            .filter_map(|kind| kind.split(';').next())
            .any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    };
    headers.get_all(header::ACCEPT).iter().any(named)
}

/// How the hub opens a stream.
pub(super) fn opening(start: Start, heartbeat: Duration) -> Opening {
    Opening { start, heartbeat, breaker: None }
}

/// The response that writes the opening at once, then every event; `write` may leave one out with an empty text.
pub(super) fn stream<S, W>(opening: String, events: S, write: W) -> Response
where
    S: Gather + Send + Unpin + 'static,
    W: FnMut(S::Item) -> String + Send + Unpin + 'static,
{
    let opening = Some(Box::new(opening.into()));
    respond(Body::new(Events { opening, source: events, write }))
}

/// What a client gets that cannot be served now. Any status but 200 stops an `EventSource` for good, so one that asks for
/// events by name is told when to come back.
pub(super) fn refuse(error: Error, headers: &HeaderMap) -> Result<Response, Problem> {
    match error {
        Error::Draining | Error::OverBudget if accepts_events(headers) => {
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
    /// Boxed, because it is gone for nearly all of the stream's life.
    opening: Option<Box<Bytes>>,
    source: S,
    write: W,
}

impl<S, W> HttpBody for Events<S, W>
where
    S: Gather + Unpin,
    W: FnMut(S::Item) -> String + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(opening) = self.opening.take() {
            return Poll::Ready(Some(Ok(Frame::data(*opening))));
        }
        let Self { source, write, .. } = &mut *self;
        loop {
            let Some(event) = std::task::ready!(Pin::new(&mut *source).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let mut text = write(event);
            while text.len() < TOGETHER
                && let Some(event) = source.more()
            {
                text.push_str(&write(event));
            }
            // An empty frame would end the body of a chunked response.
            if !text.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
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
