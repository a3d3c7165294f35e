//! `GET /devices?user=A&user=B`: the connected devices of several users, as one JSON object or as one stream of changes.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use http::{HeaderMap, Uri};
use serde::Serialize;

use super::{
    Api, Problem,
    devices::{self, ids},
    events::accepts_events,
    form, json_response,
    sse::{EventText, to_json},
};
use crate::{
    auth::Caller,
    error::Error,
    hub::{Change, UserSet, Watch, WatchItem},
    model::UserId,
};

pub(super) async fn list_or_watch(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let users = users(&uri)?;
    if accepts_events(&headers) {
        return devices::watch(&api, &caller, &users, &uri, &headers, event);
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

/// The events for one item of a watch of several users: each names its user.
fn event(item: &WatchItem, watch: &Watch) -> EventText {
    match item {
        WatchItem::Devices(user, devices) => {
            let data = to_json(&ListData { user: user.as_str(), devices: ids(devices) });
            EventText::Own(format!("event: signal.devices\ndata: {data}\n\n"))
        }
        WatchItem::Changes(user, changes) => {
            let make = |changes: &[Change]| changes.iter().map(|change| changed(user, change)).collect();
            EventText::Shared(changes.text(true, make), String::new())
        }
        WatchItem::Ping | WatchItem::End(_) => devices::event(item, watch),
    }
}

fn changed(user: &UserId, change: &Change) -> String {
    let (name, device) = match change {
        Change::Online(device) => ("online", device),
        Change::Offline(device) => ("offline", device),
    };
    let data = to_json(&ChangeData { user: user.as_str(), device: device.as_str() });
    format!("event: signal.{name}\ndata: {data}\n\n")
}

#[derive(Serialize)]
struct ListData<'a> {
    user: &'a str,
    devices: Vec<&'a str>,
}

#[derive(Serialize)]
struct ChangeData<'a> {
    user: &'a str,
    device: &'a str,
}
