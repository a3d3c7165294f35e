//! `GET /subscribe` and `GET /subscribe/{user}/device/{device}`: the stream of the caller's device as server-sent events.

use std::time::Duration;

use axum::{extract::State, response::Response};
use http::{HeaderMap, HeaderName, Uri};

use super::{
    Api, Problem, events,
    form::{self, Parameter},
    sse::Format,
};
use crate::{auth::Subscriber, error::Error, hub::Opening, model::Start, wall_clock};

pub(super) async fn subscribe(
    State(api): State<Api>,
    subscriber: Subscriber,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Wish { format, start } = Wish::parse(&uri, &headers)?;
    let heartbeat = if format == Format::Legacy { LEGACY_HEARTBEAT } else { api.settings.heartbeat };
    match api.hub.subscribe(&subscriber, &Opening { start, heartbeat }) {
        Ok((ready, subscription)) => {
            let opening = format.opening(&ready, heartbeat, events::retry());
            Ok(events::stream(opening, subscription, move |event| format.event(&event, wall_clock::now)))
        }
        Err(error) => events::refuse(error, &headers),
    }
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
        let [format, cursor] = form::parameters(query, ["format", "last_event_id"]);
        let format = Format::parse(format.value())?;
        let start = match (headers.get(LAST_EVENT_ID), cursor) {
            // Its ids are the senders', so they say nothing about this stream.
            _ if format == Format::Legacy => Start::Anew,
            (Some(line), _) => Start::parse(Some(line.to_str().unwrap_or(NOT_A_CURSOR))),
            (None, Parameter::Unreadable) => Start::parse(Some(NOT_A_CURSOR)),
            (None, cursor) => Start::parse(cursor.value()),
        };
        Ok(Self { format, start })
    }
}

/// As the 2019 server did it.
const LEGACY_HEARTBEAT: Duration = Duration::from_secs(25);

/// Not of our making, like any other text that is no cursor.
const NOT_A_CURSOR: &str = "?";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
