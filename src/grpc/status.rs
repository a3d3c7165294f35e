//! The gRPC status of every error: the only table from errors to gRPC codes.

use std::time::SystemTime;

use http::HeaderMap;
use hyper::body::Frame;
use tonic::{Code, Status};

use crate::{error::Error, model::EndReason, wall_clock};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Self::new(code(error), error.detail());
        if let Some(after) = error.retry_after() {
            status.metadata_mut().insert("retry-after", after.seconds().into());
        }
        status
    }
}

/// Waits until a token has expired. Gives the status of a call that ends then.
pub(super) async fn when_expired(expires: Option<SystemTime>) -> Status {
    match expires {
        Some(expires) => wall_clock::sleep_until(expires).await,
        None => std::future::pending().await,
    }
    expired()
}

/// The status of a stream that the server ends. `None` for OK.
pub(super) fn at_end(reason: EndReason) -> Option<Status> {
    match reason {
        EndReason::Draining => None,
        EndReason::Superseded => Some(Error::Superseded.into()),
        EndReason::Expired => Some(expired()),
    }
}

fn expired() -> Status {
    Status::unauthenticated("The caller's token has expired. Reconnect with a new token.")
}

/// The trailers that end a call with a status.
pub(super) fn trailers<D>(status: &Status) -> Frame<D> {
    let mut trailers = HeaderMap::new();
    // Cannot fail: only invalid metadata could, and this has a number at most.
    let _ = status.add_header(&mut trailers);
    Frame::trailers(trailers)
}

/// What a person should know, with the time to wait: an answer of `SendStream` has no metadata.
pub(super) fn text(error: Error) -> String {
    match error.retry_after() {
        Some(after) => format!("{} Retry after {} s.", error.detail(), after.seconds()),
        None => error.detail().to_owned(),
    }
}

// No `_` arm: the compiler demands a code for every new error.
pub(super) fn code(error: Error) -> Code {
    match error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::Unauthenticated(_) => Code::Unauthenticated,
        Error::Forbidden | Error::NoTenant | Error::NotListed | Error::CrossSite => Code::PermissionDenied,
        Error::NotConnected | Error::NoIceServers => Code::NotFound,
        Error::TooLarge => Code::OutOfRange,
        Error::MailboxFull(_) | Error::TooMany(..) | Error::RateLimited(..) | Error::UnreadResponses => {
            Code::ResourceExhausted
        }
        Error::Draining(_)
        | Error::TooManyConnections(_)
        | Error::OverBudget(..)
        | Error::Unreachable(_)
        | Error::NoKeys(_) => Code::Unavailable,
        Error::SlowRequest | Error::UnknownOutcome => Code::DeadlineExceeded,
        Error::NoRoute
        | Error::NoTickets
        | Error::MethodNotAllowed
        | Error::UnsupportedMedia
        | Error::UnsupportedCoding
        | Error::ExpectationFailed => Code::Unimplemented,
        Error::Superseded => Code::Aborted,
        Error::Internal => Code::Internal,
    }
}
