//! The gRPC status of every error: the only table of gRPC codes.

use tonic::{Code, Status};

use crate::{error::Error, model::EndReason};

/// The status of a call that fails with this error.
#[must_use]
pub fn from(error: Error) -> Status {
    Status::new(code(error), error.detail())
}

/// The status of a stream that the server ends. `None` for OK.
pub(super) fn at_end(reason: EndReason) -> Option<Status> {
    match reason {
        EndReason::Draining => None,
        EndReason::Superseded => {
            Some(Status::aborted("A newer stream of the same device is connected. Do not reconnect."))
        }
        EndReason::Expired => {
            Some(Status::unauthenticated("The caller's token has expired. Reconnect with a new token."))
        }
    }
}

// No `_` arm: the compiler demands a code for every new error.
pub(super) fn code(error: Error) -> Code {
    match error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::Unauthenticated(_) => Code::Unauthenticated,
        Error::Forbidden | Error::CrossSite => Code::PermissionDenied,
        Error::NotConnected => Code::NotFound,
        Error::TooLarge => Code::OutOfRange,
        Error::MailboxFull(_) | Error::TooMany(_) => Code::ResourceExhausted,
        Error::Draining(_) | Error::TooManyConnections(_) | Error::OverBudget(_) | Error::Unreachable(_) => {
            Code::Unavailable
        }
        Error::SlowRequest | Error::UnknownOutcome => Code::DeadlineExceeded,
        Error::NoRoute | Error::MethodNotAllowed | Error::UnsupportedMedia | Error::UnsupportedCoding => {
            Code::Unimplemented
        }
        Error::Superseded => Code::Aborted,
        Error::Internal => Code::Internal,
    }
}
