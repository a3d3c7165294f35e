//! `POST /user/{user}/device/{device}` and `POST /user/{user}/devices`: hand a message to one device, or to all of a user's.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;

use super::{
    Api, Problem,
    extract::{Of, Post, To},
};
use crate::{error::Error, model::Outcome};

pub(super) async fn send(State(api): State<Api>, post: Post<To>) -> Result<Sent, Problem> {
    let Post { caller, to: To(to), ttl, draft } = post;
    if ttl > 0 {
        return Err(Error::NotImplemented.into());
    }
    Ok(Sent(api.hub.send(&caller, &to, draft).await?))
}

pub(super) async fn broadcast(_post: Post<Of>) -> Problem {
    Error::NotImplemented.into()
}

/// What became of a message, as a status with an empty body.
pub(super) struct Sent(Outcome);

impl IntoResponse for Sent {
    fn into_response(self) -> Response {
        match self.0 {
            Outcome::Delivered => StatusCode::OK.into_response(),
            Outcome::Held => StatusCode::ACCEPTED.into_response(),
        }
    }
}
