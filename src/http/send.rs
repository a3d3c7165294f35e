//! `POST /user/{user}/device/{device}` and `POST /user/{user}/devices`: hand a message to one device, or to all of a user's.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};

use super::{
    Api, Problem,
    extract::{Incoming, Of, To},
};
use crate::{
    auth::Caller,
    error::{Error, Invalid},
    model::Outcome,
};

pub(super) async fn send(
    State(api): State<Api>,
    caller: Caller,
    To(to): To,
    headers: HeaderMap,
    Incoming(draft): Incoming,
) -> Result<Sent, Problem> {
    if ttl(&headers)? > 0 {
        return Err(Error::NotImplemented.into());
    }
    Ok(Sent(api.hub.send(&caller, &to, draft).await?))
}

pub(super) async fn broadcast(_caller: Caller, Of(_user): Of) -> Problem {
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

/// The `TTL` header (RFC 8030, section 5.2): whole seconds, 0 when absent.
fn ttl(headers: &HeaderMap) -> Result<u64, Error> {
    let mut lines = headers.get_all("ttl").iter();
    let Some(line) = lines.next() else { return Ok(0) };
    let digits = line.as_bytes();
    if lines.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Invalid::Ttl.into());
    }
    // More than fits is as good as for ever, and the server caps it anyway.
    Ok(line.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}
