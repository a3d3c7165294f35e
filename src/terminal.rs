//! What the process writes to standard output and standard error: before it exits, or as a client command.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::FileTypeExt as _,
    process::ExitCode,
};

use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::unix::pipe,
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

/// Says how the daemon is set up and that this is valid, after a line on standard error for each warning.
#[must_use]
pub fn confirm(set_up: &str, warnings: &[String]) -> ExitCode {
    for warning in warnings {
        let _ = writeln!(std::io::stderr(), "backend-signal: warning: {warning}");
    }
    print(&format!("{set_up}\nthe configuration is valid\n"))
}

/// Writes one line to standard error. Returns `code`, even if the write fails.
#[must_use]
pub fn fail(code: u8, reason: impl Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "backend-signal: {reason}");
    ExitCode::from(code)
}

/// Writes one line to standard output, and waits until it is written. The runtime goes on meanwhile, so a signal is not lost when
/// nobody reads.
///
/// # Errors
/// When the line cannot be written.
pub async fn write_line(line: &str) -> io::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(format!("{line}\n").as_bytes()).await?;
    out.flush().await
}

/// Writes one line about the state of a command to standard error, with the name of the program before it.
pub fn note(line: &str) {
    note_raw(&format!("backend-signal: {line}"));
}

/// Writes one line about the state of a command to standard error, as it is.
pub fn note_raw(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Waits until the reader of standard output has closed its pipe, as `head` does. Never ends if standard output is no pipe.
///
/// A write would notice it too, but a stream may be silent for hours.
pub async fn reader_gone() {
    if !std::fs::metadata(STDOUT).is_ok_and(|stdout| stdout.file_type().is_fifo()) {
        return std::future::pending().await;
    }
    // Opened once more: setting standard output itself to non-blocking would also change it for the other programs that have it.
    // A pipe without a reader cannot be opened: then there is nothing to wait for.
    if let Ok(pipe) = pipe::OpenOptions::new().open_sender(STDOUT) {
        let _closed = pipe.ready(Interest::ERROR).await;
    }
}

/// Standard output, which Linux lets a process open by this name.
const STDOUT: &str = "/proc/self/fd/1";
