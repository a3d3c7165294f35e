//! Errors as gRPC statuses, and the only table of gRPC codes.

use tonic::{Code, Status};

use crate::{error::Error, model::EndReason};

pub(super) fn from(error: Error) -> Status {
    Status::new(code(error), error.detail())
}

/// What follows the last response of a stream that the server ends; nothing where that is OK.
pub(super) fn after(reason: EndReason) -> Option<Status> {
    match reason {
        EndReason::Draining => None,
        EndReason::Superseded => Some(Status::aborted("a newer stream of the same device took over")),
        EndReason::Expired => Some(Status::unauthenticated("the caller's token is over")),
    }
}

// No `_` arm: a new error has to choose its code here before it compiles.
pub(super) fn code(error: Error) -> Code {
    match error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::Unauthenticated(_) => Code::Unauthenticated,
        Error::Forbidden | Error::CrossSite => Code::PermissionDenied,
        Error::NotConnected => Code::NotFound,
        Error::TooLarge => Code::OutOfRange,
        Error::MailboxFull | Error::TooMany => Code::ResourceExhausted,
        Error::Draining | Error::NoPlace | Error::OverBudget | Error::Unreachable => Code::Unavailable,
        Error::SlowRequest | Error::UnknownOutcome => Code::DeadlineExceeded,
        Error::NoRoute | Error::MethodNotAllowed | Error::UnsupportedMedia | Error::UnsupportedCoding => {
            Code::Unimplemented
        }
        Error::Superseded => Code::Aborted,
        Error::Internal => Code::Internal,
    }
}
