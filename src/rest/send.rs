//! `POST /user/{user}/device/{device}` and `POST /user/{user}/devices`: send a message to one device, or to all devices of a user.

use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::{
    Api, Problem,
    extract::{MessagePost, PathUser, TTL},
    json_response,
    sse::ids,
};
use crate::model::{Address, Outcome};

pub(super) async fn to_device(State(api): State<Api>, post: MessagePost<Address>) -> Result<Sent, Problem> {
    deliver(&api, post).await
}

pub(super) async fn deliver(api: &Api, post: MessagePost<Address>) -> Result<Sent, Problem> {
    let MessagePost { caller, to, draft } = post;
    let ttl = api.hub.hold_time(draft.ttl);
    Ok(Sent { outcome: api.hub.send(&caller, &to, draft).await?, ttl })
}

pub(super) async fn broadcast(State(api): State<Api>, post: MessagePost<PathUser>) -> Result<Response, Problem> {
    let MessagePost { caller, to: PathUser(user), draft } = post;
    let delivered = api.hub.broadcast(&caller, &user, draft).await?;
    Ok(json_response(&BroadcastAnswer { delivered: ids(&delivered) }))
}

/// The body of the response to a broadcast.
#[derive(Serialize)]
struct BroadcastAnswer<'a> {
    delivered: Vec<&'a str>,
}

/// The outcome of a send, as a status with an empty body. A held message has a `TTL`: for how long it is held, which may be less than
/// its sender asked for (RFC 8030, section 5.2).
pub(super) struct Sent {
    outcome: Outcome,
    ttl: Duration,
}

impl IntoResponse for Sent {
    fn into_response(self) -> Response {
        match self.outcome {
            Outcome::Delivered => StatusCode::OK.into_response(),
            Outcome::Held => (StatusCode::ACCEPTED, [(TTL, HeaderValue::from(self.ttl.as_secs()))]).into_response(),
        }
    }
}
