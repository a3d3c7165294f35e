//! How a client command ends: its exit code, and the line that says why.

use std::{error::Error, fmt, io, time::Duration};

use tonic::{Code, Status};

/// The exit code of a client command. `docs/cli.md` and the help of each command list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Delivered, or done.
    Done = 0,
    /// A check of `call-test` failed, or standard output could not be written.
    Fault = 1,
    /// The command line is wrong, or a file that it names cannot be used.
    Usage = 2,
    /// The message is held for a device that is not connected.
    Held = 3,
    /// The device is not connected, or no device of the user is.
    NotConnected = 4,
    /// The request or the identity was refused.
    Refused = 5,
    /// A mailbox is full, or a limit is reached.
    Full = 6,
    /// The daemon cannot be reached or is stopping, or nobody knows what came of the request.
    Unavailable = 7,
    /// A newer stream of the same device has taken over.
    Superseded = 8,
}

/// Why a command ends without its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// One line for people. Empty: there is nothing to say.
    pub(super) line: String,
    /// When the server says that it is worth trying again.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(exit: Exit, line: impl fmt::Display) -> Self {
        Self { exit, line: one_line(&line.to_string()), retry_after: None }
    }

    /// The same with what was done before the cause.
    pub(super) fn context(mut self, doing: &str) -> Self {
        self.line = format!("{doing}: {}", self.line);
        self
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self.exit, Exit::Full | Exit::Unavailable)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let retry_after = status.metadata().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        // Only an error of the connection has a source. Its last cause says most: refused, unknown host, bad certificate.
        let mut line = match status.source() {
            Some(source) => format!("no connection to the daemon: {}", last_cause(source)),
            None if status.message().contains(NOT_GRPC) => {
                "the answer is not gRPC; is the URL that of a daemon?".to_owned()
            }
            None if status.message().is_empty() => status.code().description().to_owned(),
            None => status.message().to_owned(),
        };
        if let Some(seconds) = retry_after {
            line = format!("{line} Retry after {seconds} s.");
        }
        let retry_after = retry_after.map(Duration::from_secs);
        Self { retry_after, ..Self::new(exit_of(status.code()), line) }
    }
}

impl From<io::Error> for Failure {
    /// An error of standard output. Whoever closed the pipe, such as `head`, has read enough.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Done, ""),
            _ => Self::new(Exit::Fault, format!("cannot write: {error}")),
        }
    }
}

// No `_` arm: a new code has to choose its exit code here.
fn exit_of(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Done,
        Code::NotFound => Exit::NotConnected,
        Code::InvalidArgument | Code::OutOfRange | Code::Unauthenticated | Code::PermissionDenied => Exit::Refused,
        Code::ResourceExhausted => Exit::Full,
        Code::Aborted => Exit::Superseded,
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Exit::Unavailable,
    }
}

/// The outermost errors say only that the connection failed.
pub(super) fn last_cause(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the library says of the page of another server, whose first character it takes for a flag.
const NOT_GRPC: &str = "invalid compression flag";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_has_its_exit_code() {
        for (code, exit) in [
            (Code::NotFound, 4),
            (Code::InvalidArgument, 5),
            (Code::OutOfRange, 5),
            (Code::Unauthenticated, 5),
            (Code::PermissionDenied, 5),
            (Code::ResourceExhausted, 6),
            (Code::Unavailable, 7),
            (Code::DeadlineExceeded, 7),
            (Code::Unknown, 7),
            (Code::Unimplemented, 7),
            (Code::Aborted, 8),
        ] {
            assert_eq!(Failure::from(Status::new(code, "why")).exit as u8, exit, "{code:?}");
        }
    }

    #[test]
    fn a_failure_is_one_line_that_says_when_to_try_again() {
        let mut status = Status::resource_exhausted("Too\nmany.");
        status.metadata_mut().insert("retry-after", 3.into());
        let failure = Failure::from(status);
        assert_eq!(failure.line, "Too many. Retry after 3 s.");
        assert_eq!(failure.retry_after, Some(Duration::from_secs(3)));
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(
            Failure::from(Status::from_error(Box::new(refused))).line,
            "no connection to the daemon: connection refused"
        );
    }
}
