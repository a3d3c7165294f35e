//! `GET /user/{user}/devices`: the connected devices of a user, as a JSON list or as a stream of changes.

use axum::{extract::State, response::Response};
use http::HeaderMap;

use super::{
    Api, Problem,
    events::{self, accepts_events},
    extract::PathUser,
    json_response, sse,
};
use crate::{auth::Caller, model::DeviceId, wall_clock};

pub(super) async fn list_or_watch(
    State(api): State<Api>,
    caller: Caller,
    PathUser(user): PathUser,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if accepts_events(&headers) {
        return match api.hub.watch(&caller, &user, api.settings.heartbeat) {
            Ok(watch) => Ok(events::stream(sse::retry_line(events::retry()), watch, |event, watch| {
                sse::watch_event(&event, wall_clock::now(), || events::after_drain(watch.drain_left()))
            })),
            Err(error) => events::stream_refusal(error, &headers, api.hub.drain_left()),
        };
    }
    let devices = api.hub.devices(&caller, &user).await?;
    let devices: Vec<_> = devices.iter().map(DeviceId::as_str).collect();
    Ok(json_response(&devices))
}
