//! `GET /user/{user}/devices`: the connected devices of a user, as a JSON list or as a stream of changes.

use axum::{extract::State, response::Response};
use http::{HeaderMap, Uri};

use super::{
    Api, Problem,
    events::{self, accepts_events},
    extract::PathUser,
    json_response,
    sse::{self, ids},
};
use crate::{
    auth::Caller,
    form,
    hub::{UserSet, chosen_heartbeat},
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
        return watch(&api, &caller, &UserSet::one(user), &uri, &headers, false).await;
    }
    let devices = api.hub.devices(&caller, &user).await?;
    Ok(json_response(&ids(&devices)))
}

/// The event stream of a watch. `names_user` is as in [`sse::watch_event`].
pub(super) async fn watch(
    api: &Api,
    caller: &Caller,
    users: &UserSet,
    uri: &Uri,
    headers: &HeaderMap,
    names_user: bool,
) -> Result<Response, Problem> {
    let [heartbeat] = form::parameters(uri.query().unwrap_or_default().as_bytes(), ["heartbeat"]);
    let heartbeat = chosen_heartbeat(heartbeat.value().and_then(form::seconds), api.settings.heartbeat);
    match api.hub.watch(caller, users, heartbeat).await {
        Ok(watch) => {
            let opening = sse::retry_line(events::retry());
            Ok(events::stream(opening, watch, move |item, watch| {
                sse::watch_event(&item, names_user, wall_clock::now(), || events::after_drain(watch.drain_left()))
            }))
        }
        Err(error) => events::stream_refusal(error, headers, api.hub.drain_left()),
    }
}
