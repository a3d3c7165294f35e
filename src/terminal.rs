//! What the process says on its standard output and standard error before it exits. Neither may be there.

use std::{
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

/// Writes what was asked for.
#[must_use]
pub fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(&format!("cannot write: {error}"));
            ExitCode::FAILURE
        }
        // Whoever closed the pipe has read enough.
        _ => ExitCode::SUCCESS,
    }
}

/// Says why nothing was done, in one line.
#[must_use]
pub fn fail(reason: &str) -> ExitCode {
    complain(reason);
    ExitCode::from(2)
}

/// The exit code stands, also when nobody can read why.
fn complain(reason: &str) {
    let _ = writeln!(std::io::stderr(), "backend-signal: {reason}");
}
