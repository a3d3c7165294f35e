//! The lines of `call-test`: one for each check, and the verdict.

use std::{fmt::Display, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use crate::cli::{
    exit::{Exit, Failure},
    printer::Printer,
};

/// What a check found out: a line with figures, or what is wrong.
pub(super) type Checked = Result<String, Failure>;

/// The state of a run.
pub(super) struct Verdict {
    printer: Printer,
    began: Instant,
    failed: Vec<&'static str>,
}

impl Verdict {
    pub(super) fn new(printer: Printer) -> Self {
        Self { printer, began: Instant::now(), failed: Vec::new() }
    }

    /// Writes the line of a check.
    pub(super) async fn record(
        &mut self,
        check: &'static str,
        began: Instant,
        checked: &Checked,
    ) -> Result<(), Failure> {
        let took = millis(began.elapsed());
        let (mark, detail) = match checked {
            Ok(detail) => ("ok", detail),
            Err(failure) => ("FAIL", &failure.line),
        };
        if checked.is_err() {
            self.failed.push(check);
        }
        let line = json!({"check": check, "ok": checked.is_ok(), "ms": took, "detail": detail});
        self.printer.result(&format!("{mark:<5} {check:<13} {detail} ({took:.1} ms)"), &line).await
    }

    /// Writes the verdict.
    pub(super) async fn end(self) -> Result<Exit, Failure> {
        let took = millis(self.began.elapsed());
        let line = json!({"verdict": self.failed.is_empty(), "failed": self.failed, "ms": took});
        let seconds = took / 1_000.0;
        let (exit, text) = if self.failed.is_empty() {
            (Exit::Done, format!("passed in {seconds:.1} s"))
        } else {
            (Exit::Fault, format!("failed in {seconds:.1} s: {}", self.failed.join(", ")))
        };
        self.printer.result(&text, &line).await?;
        Ok(exit)
    }
}

/// What is wrong with the daemon or with what stands before it.
pub(super) fn fault<T>(line: impl Display) -> Result<T, Failure> {
    Err(Failure::new(Exit::Fault, line))
}

/// With one digit after the point.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
