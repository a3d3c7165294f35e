//! `GET /subscribe` and `GET /subscribe/{user}/device/{device}`: the stream of the caller's device as server-sent events.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use axum::{
    Extension,
    body::{Body, Bytes, HttpBody},
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use hyper::body::Frame;
use tokio_stream::Stream as _;

use super::{
    Api, Problem, form,
    sse::{self, Format},
};
use crate::{
    auth::Subscriber,
    error::{Error, Invalid},
    hub::{Breaker, Opening, Subscription},
    model::Start,
    serve::Cut,
};

pub(super) async fn subscribe(
    State(api): State<Api>,
    subscriber: Subscriber,
    uri: Uri,
    headers: HeaderMap,
    cut: Option<Extension<Cut>>,
) -> Result<Response, Problem> {
    let wish = Wish::parse(&uri, &headers)?;
    let legacy = wish.format == Format::Legacy;
    let heartbeat = if legacy { LEGACY_HEARTBEAT } else { api.settings.heartbeat };
    let breaker = cut.map(|Extension(cut)| Arc::new(move || cut.cut()) as Breaker);
    match api.hub.subscribe(&subscriber, &Opening { start: wish.start, heartbeat, breaker }) {
        Ok((ready, subscription)) => {
            let opening = wish.format.opening(&ready, heartbeat, random(RETRY));
            let events = Events { opening: Some(opening), format: wish.format, subscription };
            Ok(stream(Body::new(events)))
        }
        Err(Error::Draining | Error::OverBudget) if accepts_events(&headers) => {
            Ok(stream(Body::from(sse::come_back(random(OVERLOAD_RETRY)))))
        }
        Err(error) => Err(error.into()),
    }
}

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

/// How a client wants its stream.
struct Wish {
    format: Format,
    start: Start,
}

impl Wish {
    /// The header is what a browser sends when it comes back, so it is newer than the query of the page's own URL.
    fn parse(uri: &Uri, headers: &HeaderMap) -> Result<Self, Error> {
        let query = uri.query().unwrap_or_default().as_bytes();
        let [format, cursor] = form::fields(query, ["format", "last_event_id"]).ok_or(Invalid::Format)?;
        let format = Format::parse(format.as_deref())?;
        let start = match headers.get(LAST_EVENT_ID) {
            // Its ids are the senders', so they say nothing about this stream.
            _ if format == Format::Legacy => Start::Anew,
            Some(line) => Start::parse(Some(line.to_str().unwrap_or(NOT_A_CURSOR))),
            None => Start::parse(cursor.as_deref()),
        };
        Ok(Self { format, start })
    }
}

/// The body of an event stream: the opening, then whatever the hub has.
struct Events {
    opening: Option<String>,
    format: Format,
    subscription: Subscription,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(opening) = self.opening.take() {
            return Poll::Ready(Some(Ok(Frame::data(opening.into()))));
        }
        loop {
            let Some(event) = std::task::ready!(Pin::new(&mut self.subscription).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let text = self.format.event(&event, SystemTime::now());
            // An empty frame would end the body of a chunked response.
            if !text.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
        }
    }
}

fn stream(body: Body) -> Response {
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

/// When a client that lost its stream comes back, in milliseconds; random, so that they do not come in step.
const RETRY: (u64, u64) = (1_000, 4_000);
/// When a client that was not served comes back.
const OVERLOAD_RETRY: (u64, u64) = (5_000, 20_000);
/// As the 2019 server did it.
const LEGACY_HEARTBEAT: Duration = Duration::from_secs(25);

/// Not of our making, like any other text that is no cursor.
const NOT_A_CURSOR: &str = "?";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
