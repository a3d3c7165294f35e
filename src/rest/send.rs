//! `POST /user/{user}/device/{device}` and `POST /user/{user}/devices`: send a message to one device, or to all devices of a user.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use super::{
    Api, Problem,
    devices::json,
    extract::{PathUser, Post},
};
use crate::model::{Address, DeviceId, Outcome};

pub(super) async fn send(State(api): State<Api>, post: Post<Address>) -> Result<Sent, Problem> {
    deliver(&api, post).await
}

pub(super) async fn deliver(api: &Api, post: Post<Address>) -> Result<Sent, Problem> {
    let Post { caller, to, draft } = post;
    Ok(Sent(api.hub.send(&caller, &to, draft).await?))
}

pub(super) async fn broadcast(State(api): State<Api>, post: Post<PathUser>) -> Result<Response, Problem> {
    let Post { caller, to: PathUser(user), draft } = post;
    let delivered = api.hub.broadcast(&caller, &user, draft).await?;
    Ok(json(&Delivered { delivered: delivered.iter().map(DeviceId::as_str).collect() }))
}

/// The answer to a broadcast.
#[derive(Serialize)]
struct Delivered<'a> {
    delivered: Vec<&'a str>,
}

/// The outcome of a send, as a status with an empty body.
pub(super) struct Sent(Outcome);

impl IntoResponse for Sent {
    fn into_response(self) -> Response {
        match self.0 {
            Outcome::Delivered => StatusCode::OK.into_response(),
            Outcome::Held => StatusCode::ACCEPTED.into_response(),
        }
    }
}
