//! `GET /user/{user}/devices`: which devices of a user are connected.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header};

use super::{Api, Problem, extract::Of, subscribe::accepts_events};
use crate::{auth::Caller, error::Error, model::DeviceId};

pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Of(user): Of,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if accepts_events(&headers) {
        return Err(Error::NotImplemented.into());
    }
    let devices = api.hub.devices(&caller, &user).await?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], array(&devices)).into_response())
}

/// A JSON array of ids.
fn array(devices: &[DeviceId]) -> String {
    let devices: Vec<_> = devices.iter().map(DeviceId::as_str).collect();
    serde_json::to_string(&devices).unwrap_or_default()
}
