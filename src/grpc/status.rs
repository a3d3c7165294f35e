//! The gRPC status of every error: the only table from errors to gRPC codes.

use std::time::SystemTime;

use http::HeaderMap;
use hyper::body::Frame;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tonic::{Code, Status};

use crate::{
    error::Error,
    hub::BroadcastFault,
    model::{DeviceId, EndReason},
    wall_clock,
};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Self::new(code(error), error.detail());
        if let Some(after) = error.retry_after() {
            status.metadata_mut().insert("retry-after", after.seconds().into());
        }
        status
    }
}

/// A broadcast whose outcome is unknown carries the devices that are known to have the message: their ids, percent-encoded, with a
/// comma between each two.
impl From<BroadcastFault> for Status {
    fn from(BroadcastFault { error, delivered }: BroadcastFault) -> Self {
        let mut status = Self::from(error);
        let encoded = |device: &DeviceId| utf8_percent_encode(device.as_str(), NON_ALPHANUMERIC).to_string();
        let text = delivered.iter().map(encoded).collect::<Vec<_>>().join(",");
        if error == Error::UnknownOutcome
            && let Ok(value) = text.parse()
        {
            status.metadata_mut().insert("delivered", value);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_with_an_unknown_outcome_says_which_devices_have_the_message() {
        let delivered = ["phone", "a,b", "ü"].map(|id| DeviceId::new(id).expect("an id")).to_vec();
        let status = Status::from(BroadcastFault { error: Error::UnknownOutcome, delivered });
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.metadata().get("delivered").expect("ids"), "phone,a%2Cb,%C3%BC");
        assert!(Status::from(BroadcastFault::from(Error::UNREACHABLE)).metadata().get("delivered").is_none());
    }
}
