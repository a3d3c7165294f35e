//! `GET /subscribe` and `GET /subscribe/{user}/device/{device}`: the messages of the caller's device as server-sent events.

use std::time::Duration;

use axum::{extract::State, response::Response};
use http::{HeaderMap, HeaderName, Uri};

use super::{Api, Problem, events, sse::Format};
use crate::{
    auth::Subscriber,
    error::Error,
    form::{self, Parameter},
    hub::{self, Opening},
    model::Start,
    wall_clock,
};

pub(super) async fn subscribe(
    State(api): State<Api>,
    subscriber: Subscriber,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let StreamOptions { format, start, heartbeat } = StreamOptions::parse(&uri, &headers)?;
    let default = if format == Format::Legacy { LEGACY_HEARTBEAT } else { api.settings.heartbeat };
    let heartbeat = hub::chosen_heartbeat(heartbeat, default);
    match api.hub.subscribe(&subscriber, &Opening { start, heartbeat }).await {
        Ok((ready, subscription)) => {
            let opening = format.opening(&ready, start, heartbeat, events::retry());
            Ok(events::stream(opening, subscription, move |event, stream| {
                format.event(&event, wall_clock::now, || events::after_drain(stream.drain_left()))
            }))
        }
        Err(error) => events::stream_refusal(error, &headers, api.hub.drain_left()),
    }
}

/// The options of a stream that its request chooses.
struct StreamOptions {
    format: Format,
    start: Start,
    heartbeat: Option<Duration>,
}

impl StreamOptions {
    /// Reads the query and the `Last-Event-ID` header. The header wins: an `EventSource` that reconnects requests the same URL,
    /// with the old cursor in the query, and sends the newest cursor in the header. Then `lastEventId` wins: a polyfill adds it, with
    /// the newest cursor, to the URL that the page made.
    fn parse(uri: &Uri, headers: &HeaderMap) -> Result<Self, Error> {
        let query = uri.query().unwrap_or_default().as_bytes();
        let [format, heartbeat, added, cursor] =
            form::parameters(query, ["format", "heartbeat", "lastEventId", "last_event_id"]);
        let format = Format::parse(format.value())?;
        let cursor = if added == Parameter::Absent || added.value() == Some("") { cursor } else { added };
        let header = headers.get(LAST_EVENT_ID).filter(|line| !line.is_empty());
        let start = match (header, cursor) {
            // In the legacy format `id` is the sender, so `Last-Event-ID` is no cursor.
            _ if format == Format::Legacy => Start::Anew,
            (Some(line), _) => line.to_str().map_or(Start::Unreadable, |text| Start::parse(Some(text))),
            (None, Parameter::Unreadable) => Start::Unreadable,
            (None, cursor) => Start::parse(cursor.value()),
        };
        Ok(Self { format, start, heartbeat: heartbeat.value().and_then(form::seconds) })
    }
}

/// The heartbeat of the 2019 server.
const LEGACY_HEARTBEAT: Duration = Duration::from_secs(25);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
