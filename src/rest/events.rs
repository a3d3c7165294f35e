//! Event streams as HTTP responses: their headers, their body, and the short stream that tells a client to reconnect later.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio_stream::Stream;

use super::{
    Problem,
    sse::{self, EventText},
};
use crate::{
    error::Error,
    flat_map::FlatMap,
    hub::{StreamItem, Subscription, Watch},
    media_type::MediaType,
};

/// A stream of the hub that can give more than one event for the same body frame.
pub(super) trait HubStream: Stream + Send + Unpin + 'static {
    /// The next item, if it is ready now. It is then written together with the item before it.
    fn more(&mut self) -> Option<Self::Item> {
        None
    }
}

impl HubStream for Subscription {
    fn more(&mut self) -> Option<StreamItem> {
        self.more()
    }
}

impl HubStream for Watch {}

/// Whether the `Accept` header names the event stream type, as every `EventSource` of a browser does.
#[must_use]
pub fn accepts_events(headers: &HeaderMap) -> bool {
    MediaType::accepted(headers).any(|accepted| accepted.is("text/event-stream"))
}

/// A response that writes `opening` first, then the text that `write` returns for each event. An empty text is not written.
pub(super) fn stream<S, W>(opening: String, events: S, mut write: W) -> Response
where
    S: HubStream,
    W: FnMut(S::Item, &S) -> EventText + Send + Unpin + 'static,
{
    let opening = Ok::<_, Infallible>(Bytes::from(opening));
    respond(Body::from_stream(FlatMap::new([opening].into(), events, move |events: &mut S, event| {
        frames(events, event, &mut write)
    })))
}

/// The response to a request for a stream that failed. If the error passes by itself, an `EventSource` gets 200 and a stream that
/// only says why and when to reconnect, because it never reconnects after another status. Every other client, and every other
/// error, gets a problem.
pub(super) fn stream_refusal(error: Error, headers: &HeaderMap, drain_left: Duration) -> Result<Response, Problem> {
    if error.retry_after().is_none() || !accepts_events(headers) {
        return Err(error.into());
    }
    let (reason, retry) = if matches!(error, Error::Draining(_)) {
        ("draining", after_drain(drain_left))
    } else {
        ("overloaded", random(OVERLOADED_RETRY))
    };
    Ok(respond(Body::from(sse::refusal(reason, retry))))
}

/// The reconnection time when this node stops. A client that came back earlier would be sent away again.
pub(super) fn after_drain(drain_left: Duration) -> Duration {
    drain_left + retry()
}

/// The body frames of one event. Events that are ready too are added until the text has [`GATHERED`] bytes.
fn frames<S: HubStream>(
    events: &mut S,
    event: S::Item,
    write: &mut impl FnMut(S::Item, &S) -> EventText,
) -> VecDeque<Result<Bytes, Infallible>> {
    let (mut frames, mut text) = (VecDeque::new(), String::new());
    // An empty frame would be an empty chunk, which ends a chunked response.
    let mut push = |frame: Bytes| frames.extend((!frame.is_empty()).then_some(Ok(frame)));
    let mut next = Some(event);
    while let Some(event) = next {
        match write(event, events) {
            EventText::Own(own) if text.is_empty() => text = own,
            EventText::Own(own) => text.push_str(&own),
            EventText::Shared(shared, end) => {
                [std::mem::take(&mut text).into(), shared, end.into()].into_iter().for_each(&mut push);
                break;
            }
        }
        next = if text.len() < GATHERED { events.more() } else { None };
    }
    push(text.into());
    frames
}

/// The reconnection time for one stream. Random, so that clients do not all reconnect at the same time.
pub(super) fn retry() -> Duration {
    random(RETRY)
}

fn respond(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

fn random((least, most): (u64, u64)) -> Duration {
    Duration::from_millis(fastrand::u64(least..=most))
}

/// A body frame with this many bytes of text gets no further event.
const GATHERED: usize = 16 * 1024;

/// The bounds of `retry` for a stream, in milliseconds.
const RETRY: (u64, u64) = (1_000, 4_000);
/// The bounds of `retry` for an `EventSource` that is refused because of a limit, in milliseconds.
const OVERLOADED_RETRY: (u64, u64) = (2_000, 6_000);

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

#[cfg(test)]
mod tests {
    use axum::body;
    use http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn an_event_source_is_told_to_come_back_when_its_mailbox_cannot_be_reached_and_others_get_503() {
        let mut headers = HeaderMap::new();
        let refused =
            stream_refusal(Error::UNREACHABLE, &headers, Duration::ZERO).expect_err("a problem").into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "5");
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let told = stream_refusal(Error::UNREACHABLE, &headers, Duration::ZERO).expect("a stream");
        assert_eq!(told.status(), StatusCode::OK);
        let text = body::to_bytes(told.into_body(), usize::MAX).await.expect("a whole body");
        let text = std::str::from_utf8(&text).expect("UTF-8");
        assert!(
            text.contains("retry: ") && text.contains("event: signal.end") && text.contains("overloaded"),
            "{text}"
        );
    }
}
