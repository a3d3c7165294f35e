//! Errors as `application/problem+json` (RFC 9457), and the only table of HTTP statuses.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::error::Error;

/// An error on its way to an HTTP client.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    error: Error,
    close: bool,
}

/// RFC 9457, section 3.1, and `code`, our stable name. There is no `type`: it is `about:blank`, so `title` is the status's.
#[derive(Serialize)]
struct Document {
    status: u16,
    title: &'static str,
    detail: &'static str,
    code: &'static str,
}

impl Problem {
    /// Says that the connection ends after the answer, because the rest of the request is not read (HTTP/1.1 only).
    #[must_use]
    pub fn closing(self, version: http::Version) -> Self {
        Self { close: version <= http::Version::HTTP_11, ..self }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { error, close: false }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = status(self.error);
        let mut response =
            Response::new(if status == StatusCode::NO_CONTENT { Body::empty() } else { document(self.error) });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        }
        if let Some(seconds) = retry_after(self.error) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn document(error: Error) -> Body {
    let status = status(error);
    let title = status.canonical_reason().unwrap_or_default();
    let document = Document { status: status.as_u16(), title, detail: error.detail(), code: error.code() };
    Body::from(serde_json::to_vec(&document).unwrap_or_default())
}

// No `_` arm: a new error has to choose its status here before it compiles.
fn status(error: Error) -> StatusCode {
    match error {
        Error::Invalid(_) => StatusCode::BAD_REQUEST,
        Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Error::Forbidden | Error::CrossSite => StatusCode::FORBIDDEN,
        Error::NotConnected | Error::NoRoute => StatusCode::NOT_FOUND,
        Error::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Error::SlowRequest => StatusCode::REQUEST_TIMEOUT,
        Error::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Error::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::UnsupportedCoding => StatusCode::NOT_IMPLEMENTED,
        Error::MailboxFull | Error::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Error::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Draining | Error::NoPlace | Error::OverBudget | Error::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
        Error::UnknownOutcome => StatusCode::GATEWAY_TIMEOUT,
        // The polite stop: it ends an EventSource's reconnecting.
        Error::Superseded => StatusCode::NO_CONTENT,
    }
}

/// Seconds after which it is worth trying again.
fn retry_after(error: Error) -> Option<u64> {
    match error {
        Error::MailboxFull => Some(1),
        // Random, so that clients do not come back in step.
        Error::TooMany => Some(fastrand::u64(2..=6)),
        Error::Draining | Error::NoPlace | Error::OverBudget | Error::Unreachable => Some(5),
        _ => None,
    }
}
