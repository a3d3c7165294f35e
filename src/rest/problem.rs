//! The HTTP response of every error: the only table from errors to statuses. The body is `application/problem+json` (RFC 9457), or
//! empty for a 204.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::sse::ids;
use crate::{error::Error, hub::BroadcastFault, model::DeviceId};

/// An error as an HTTP answer.
#[derive(Clone, Debug)]
pub struct Problem {
    error: Error,
    close: bool,
    /// Of a broadcast whose outcome is unknown: the devices that are known to have the message.
    delivered: Option<Vec<DeviceId>>,
}

/// The members of RFC 9457, section 3.1, `code`, the stable name of the error, and what a broadcast reached. There is no `type`, so `title` must be the
/// reason phrase of the status (section 4.2.1).
#[derive(Serialize)]
struct Document<'a> {
    status: u16,
    title: &'static str,
    detail: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<Vec<&'a str>>,
}

impl Problem {
    /// Adds `Connection: close` for HTTP/1.1, because the server does not read the rest of the request.
    #[must_use]
    pub fn and_close(self, version: http::Version) -> Self {
        Self { close: version <= http::Version::HTTP_11, ..self }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { error, close: false, delivered: None }
    }
}

impl From<BroadcastFault> for Problem {
    fn from(BroadcastFault { error, delivered }: BroadcastFault) -> Self {
        Self { error, close: false, delivered: (error == Error::UnknownOutcome).then_some(delivered) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = status(self.error);
        let mut response = Response::new(Body::empty());
        // For `app/dispatch.rs`, which writes the error in the protocol of the request.
        response.extensions_mut().insert(self.error);
        *response.status_mut() = status;
        if status != StatusCode::NO_CONTENT {
            *response.body_mut() = document(status, &self);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        }
        let headers = response.headers_mut();
        if let Some(after) = self.error.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.seconds()));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn document(status: StatusCode, Problem { error, delivered, .. }: &Problem) -> Body {
    let title = status.canonical_reason().unwrap_or_default();
    let delivered = delivered.as_deref().map(ids);
    let document = Document { status: status.as_u16(), title, detail: error.detail(), code: error.code(), delivered };
    Body::from(serde_json::to_vec(&document).unwrap_or_default())
}

// No `_` arm: the compiler demands a status for every new error.
fn status(error: Error) -> StatusCode {
    match error {
        Error::Invalid(_) => StatusCode::BAD_REQUEST,
        Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Error::Forbidden | Error::NoTenant | Error::NotListed | Error::CrossSite => StatusCode::FORBIDDEN,
        Error::NotConnected | Error::NoIceServers | Error::NoRoute | Error::NoTickets => StatusCode::NOT_FOUND,
        Error::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Error::SlowRequest => StatusCode::REQUEST_TIMEOUT,
        Error::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Error::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
        Error::UnsupportedCoding => StatusCode::NOT_IMPLEMENTED,
        Error::MailboxFull(_) | Error::TooMany(..) | Error::RateLimited(..) | Error::UnreadResponses => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Error::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Draining(_)
        | Error::TooManyConnections(_)
        | Error::OverBudget(..)
        | Error::Unreachable(_)
        | Error::NoKeys(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::UnknownOutcome => StatusCode::GATEWAY_TIMEOUT,
        // An EventSource stops reconnecting on 204.
        Error::Superseded => StatusCode::NO_CONTENT,
    }
}

#[cfg(test)]
mod tests {
    use axum::body;

    use super::*;

    async fn json(problem: impl Into<Problem>) -> (u16, serde_json::Value) {
        let response = problem.into().into_response();
        let status = response.status().as_u16();
        let bytes = body::to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[tokio::test]
    async fn a_broadcast_with_an_unknown_outcome_says_which_devices_have_the_message() {
        let delivered = || vec![DeviceId::new("phone").expect("an id"), DeviceId::new("ü, \"2\"").expect("an id")];
        let (status, document) = json(BroadcastFault { error: Error::UnknownOutcome, delivered: delivered() }).await;
        assert_eq!((status, &document["code"]), (504, &"unknown_outcome".into()));
        assert_eq!(document["delivered"], serde_json::json!(["phone", "ü, \"2\""]));
        let (_, nobody) = json(BroadcastFault::from(Error::UnknownOutcome)).await;
        assert_eq!(nobody["delivered"], serde_json::json!([]));
        for other in [json(BroadcastFault::from(Error::UNREACHABLE)).await, json(Error::UnknownOutcome).await] {
            assert_eq!(other.1.get("delivered"), None, "{other:?}");
        }
    }
}
