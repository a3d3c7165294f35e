//! What the process writes to standard output and standard error before it exits.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

/// Writes a text to standard output. Returns the exit code: 0 also when the reader has closed the pipe.
#[must_use]
pub fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(1, format!("cannot write: {error}")),
        // Whoever closed the pipe, such as `head`, has read enough.
        _ => ExitCode::SUCCESS,
    }
}

/// Says how the daemon is set up, that this is valid, and whether the console is on, after a line on standard error for each warning.
#[must_use]
pub fn confirm(set_up: &str, warnings: &[String], has_console: bool) -> ExitCode {
    for warning in warnings {
        let _ = writeln!(std::io::stderr(), "backend-signal: warning: {warning}");
    }
    let console = if has_console { "; the console is on" } else { "" };
    print(&format!("{set_up}\nthe configuration is valid{console}\n"))
}

/// Writes one line to standard error. Returns `code`, even if the write fails.
#[must_use]
pub fn fail(code: u8, reason: impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "backend-signal: {reason}");
    ExitCode::from(code)
}
