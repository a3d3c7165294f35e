//! What the daemon tells its operators: logs on standard error, and metrics.

mod metrics;

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use self::metrics::{BusyRoute, ClusterMetrics, Levels, Metrics, TextFormat, phase_name};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person at a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Faults of this server.
    Error,
    /// Also what an operator should look into.
    Warn,
    /// Also the start and the stop of the daemon.
    Info,
    /// Also a span for each request.
    Debug,
    /// Everything.
    Trace,
}

/// Starts logging to standard error. When nobody reads standard error, lines are dropped, so that no request waits for the log.
///
/// The level applies to this crate alone. Its dependencies log only errors: with warnings, a peer could cause a line for each odd
/// frame. At lower levels the HTTP libraries log whole headers, with claims and tokens.
#[must_use = "dropping the guard ends the log"]
pub fn start(level: LogLevel, format: LogFormat) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES).finish(std::io::stderr());
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let filter = Targets::new().with_default(tracing::Level::ERROR).with_target(env!("CARGO_CRATE_NAME"), level);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Human => registry.with(lines.with_ansi(false)).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    guard
}

/// Counts every panic and logs its location in the code, but not its message, which may contain data.
pub fn count_panics(metrics: Metrics) {
    let lines = LogThrottle::default();
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        if let Some(left_out) = lines.admit() {
            let location = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(location, left_out, "panic");
        }
    }));
}

/// Lets through one log line a second, for lines that a peer can cause. Tells how many lines were left out before.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<(Option<Instant>, u64)>);

impl LogThrottle {
    /// Returns the number of lines that were left out since the last one, or `None` when this line is left out, too.
    pub fn admit(&self) -> Option<u64> {
        let (last, left_out) = &mut *self.0.lock();
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < Duration::from_secs(1)) {
            *left_out += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(left_out))
    }
}

/// How many log lines wait for a slow reader before further lines are dropped.
const BUFFERED_LINES: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_that_a_peer_may_cause_is_written_once_a_second_with_the_count_of_the_others() {
        let lines = LogThrottle::default();
        assert_eq!([lines.admit(), lines.admit(), lines.admit()], [Some(0), None, None]);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(lines.admit(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([lines.admit(), lines.admit()], [Some(3), None]);
    }
}
