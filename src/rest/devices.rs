//! `GET /user/{user}/devices`: the connected devices of a user, as a JSON list or as a stream of changes.

use std::time::SystemTime;

use axum::{extract::State, response::Response};
use http::{HeaderMap, Uri};

use super::{
    Api, Problem,
    events::{self, accepts_events},
    extract::PathUser,
    form, json_response,
    sse::{self, EventText},
};
use crate::{
    auth::Caller,
    hub::{UserSet, WatchItem, chosen_heartbeat},
    model::DeviceId,
    wall_clock,
};

pub(super) async fn list_or_watch(
    State(api): State<Api>,
    caller: Caller,
    PathUser(user): PathUser,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if accepts_events(&headers) {
        return watch(&api, &caller, &UserSet::one(user), &uri, &headers, sse::watch_event);
    }
    let devices = api.hub.devices(&caller, &user).await?;
    Ok(json_response(&ids(&devices)))
}

/// The event stream of a watch. `write` makes the text of each item.
pub(super) fn watch(
    api: &Api,
    caller: &Caller,
    users: &UserSet,
    uri: &Uri,
    headers: &HeaderMap,
    write: fn(&WatchItem, SystemTime) -> EventText,
) -> Result<Response, Problem> {
    let [heartbeat] = form::parameters(uri.query().unwrap_or_default().as_bytes(), ["heartbeat"]);
    let heartbeat = chosen_heartbeat(heartbeat.value().and_then(form::seconds), api.settings.heartbeat);
    match api.hub.watch(caller, users, heartbeat) {
        Ok(watch) => {
            let write = move |item| write(&item, wall_clock::now());
            Ok(events::stream(sse::retry_only(events::retry()), watch, write))
        }
        Err(error) => events::stream_refusal(error, headers),
    }
}

pub(super) fn ids(devices: &[DeviceId]) -> Vec<&str> {
    devices.iter().map(DeviceId::as_str).collect()
}
