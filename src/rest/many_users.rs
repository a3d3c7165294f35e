//! `GET /devices?user=A&user=B`: the connected devices of several users, as one JSON object or as one stream of changes.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use http::{HeaderMap, Uri};

use super::{Api, Problem, devices, events::accepts_events, json_response, sse::ids};
use crate::{auth::Caller, error::Error, form, hub::UserSet, model::UserId};

pub(super) async fn list_or_watch(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let users = users(&uri)?;
    if accepts_events(&headers) {
        return devices::watch(&api, &caller, &users, &uri, &headers, true).await;
    }
    let mut lists = BTreeMap::new();
    for user in users.iter() {
        lists.insert(user.as_str(), api.hub.devices(&caller, user).await?);
    }
    let lists: BTreeMap<_, _> = lists.iter().map(|(user, devices)| (user, ids(devices))).collect();
    Ok(json_response(&lists))
}

/// The users that the query names. A name that cannot be decoded is ignored, as in every query.
fn users(uri: &Uri) -> Result<UserSet, Error> {
    let query = uri.query().unwrap_or_default().as_bytes();
    Ok(UserSet::new(form::all(query, "user").map(|user| UserId::new(&user)))?)
}
