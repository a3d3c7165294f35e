//! What the daemon tells its operators: logs on standard error, and every metric it has.

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::Instant;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    error::Error,
    model::{Continuity, EndReason, Outcome},
};

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
    /// And what an operator should look into.
    Warn,
    /// And a line per start and stop.
    Info,
    /// And a span per request.
    Debug,
    /// Everything.
    Trace,
}

/// Starts logging to standard error. Lines that nobody takes are dropped, so no request ever waits for a log.
///
/// The level applies to this crate alone. Its dependencies say nothing but errors: their warnings are a line for every odd frame
/// of a peer, and below that the HTTP libraries write out whole headers, which hold claims and tokens.
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

/// Counts every panic and logs where it happened, but not its message, which may hold data.
pub fn watch_panics(metrics: Metrics) {
    let lines = Sparingly::default();
    std::panic::set_hook(Box::new(move |panic| {
        metrics.0.panics.inc();
        if let Some(left_out) = lines.next() {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, left_out, "panic");
        }
    }));
}

/// Log lines that a peer may cause: one a second, with the count of those that were left out before it.
#[derive(Debug, Default)]
pub struct Sparingly(Mutex<(Option<Instant>, u64)>);

impl Sparingly {
    /// Whether it is time for a line, and how many there were none for.
    pub fn next(&self) -> Option<u64> {
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

/// Every metric of the daemon, behind one cheap handle.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    streams: Gauge<i64, AtomicI64>,
    mailboxes: Gauge<i64, AtomicI64>,
    mailbox_bytes: Gauge<i64, AtomicI64>,
    held_bytes: Gauge<i64, AtomicI64>,
    watches: Gauge<i64, AtomicI64>,
    opened: Family<ContinuityLabel, Counter>,
    ended: Family<ReasonLabel, Counter>,
    sends: Family<OutcomeLabel, Counter>,
    /// One of `sends`, at hand, because it moves with every message.
    delivered: Counter,
    requests: Family<RequestLabels, Counter>,
    replayed: Counter,
    expired: Counter,
    evicted: Family<EvictedLabel, Counter>,
    refused_identities: Counter,
    connections: Counter,
    connections_without_place: Counter,
    accept_errors: Counter,
    stalled_connections: Counter,
    panics: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ContinuityLabel {
    continuity: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictedLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: String,
}

/// What the gauges show at the moment somebody asks.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Live streams.
    pub streams: usize,
    /// Mailboxes.
    pub mailboxes: usize,
    /// Bytes of messages in mailboxes.
    pub mailbox_bytes: usize,
    /// Bytes of held messages.
    pub held_bytes: usize,
    /// Watches of a user's devices.
    pub watches: usize,
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("signal");
        macro_rules! register {
            ($name:literal, $help:literal) => {{
                let metric = Default::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        let families = Families {
            streams: register!("streams", "Live streams"),
            mailboxes: register!("mailboxes", "Mailboxes, with and without a live stream"),
            mailbox_bytes: register!("mailbox_bytes", "Bytes of memory that messages in all mailboxes take"),
            held_bytes: register!("held_bytes", "Bytes of memory that held messages and their mailboxes take"),
            watches: register!("watches", "Watches of a user's devices"),
            opened: register!("streams_opened", "Streams opened, by how they relate to the one before"),
            ended: register!("streams_ended", "Streams that the server ended, by reason"),
            sends: register!("sends", "Messages sent, by what became of them"),
            requests: register!("requests", "Requests, by route and status (for gRPC: its status name)"),
            replayed: register!("replayed", "Stored messages that streams began with"),
            expired: register!("expired", "Messages whose device did not come in time"),
            evicted: register!("evicted", "Messages that went early to make room, by kind"),
            refused_identities: register!("refused_identities", "Requests refused for an invalid identity"),
            connections: register!("connections", "Connections accepted"),
            connections_without_place: register!("connections_without_place", "Connections past the places for them"),
            accept_errors: register!("accept_errors", "Failures to accept a connection"),
            stalled_connections: register!("stalled_connections", "Connections cut because their peer read nothing"),
            panics: register!("panics", "Panics caught"),
            delivered: Counter::default(),
            registry: Registry::default(),
        };
        let delivered = families.sends.get_or_create_owned(&OutcomeLabel { outcome: "delivered" });
        Self(Arc::new(Families { registry, delivered, ..families }))
    }

    /// The Prometheus text of all metrics.
    #[must_use]
    pub fn render(&self, levels: Levels) -> String {
        let gauge = |gauge: &Gauge<i64, AtomicI64>, level| {
            gauge.set(i64::try_from(level).unwrap_or(i64::MAX));
        };
        gauge(&self.0.streams, levels.streams);
        gauge(&self.0.mailboxes, levels.mailboxes);
        gauge(&self.0.mailbox_bytes, levels.mailbox_bytes);
        gauge(&self.0.held_bytes, levels.held_bytes);
        gauge(&self.0.watches, levels.watches);
        let mut text = String::new();
        if encode(&mut text, &self.0.registry).is_err() {
            text.clear();
            let _ = writeln!(text, "# EOF");
        }
        text
    }

    /// A stream was opened, with so many stored messages to begin with.
    pub fn stream_opened(&self, continuity: Continuity, replayed: u32) {
        let continuity = match continuity {
            Continuity::New => "new",
            Continuity::Resumed => "resumed",
            Continuity::Broken => "broken",
        };
        self.0.opened.get_or_create(&ContinuityLabel { continuity }).inc();
        self.0.replayed.inc_by(u64::from(replayed));
    }

    /// Messages waited for their device until their time was over.
    pub fn expired(&self, messages: usize) {
        if messages > 0 {
            self.0.expired.inc_by(messages as u64);
        }
    }

    /// Messages of a kind went before their time to make room.
    pub fn evicted(&self, kind: &'static str, messages: usize) {
        if messages > 0 {
            self.0.evicted.get_or_create(&EvictedLabel { kind }).inc_by(messages as u64);
        }
    }

    /// The server ended a stream.
    pub fn stream_ended(&self, reason: EndReason) {
        let reason = match reason {
            EndReason::Superseded => "superseded",
            EndReason::Draining => "draining",
            EndReason::Expired => "expired",
        };
        self.0.ended.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A send was answered.
    pub fn sent(&self, answer: Result<Outcome, Error>) {
        let outcome = match answer {
            Ok(Outcome::Delivered) => {
                self.0.delivered.inc();
                return;
            }
            Ok(Outcome::Held) => "held",
            Err(error) => error.code(),
        };
        self.0.sends.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// The count of requests with this route and answer. `route` is a pattern, never a path.
    #[must_use]
    pub fn requests(&self, route: &str, status: &str) -> Counter {
        self.0.requests.get_or_create_owned(&RequestLabels { route: route.to_owned(), status: status.to_owned() })
    }

    /// A request was refused for its identity.
    pub fn identity_refused(&self) {
        self.0.refused_identities.inc();
    }

    /// A connection was accepted.
    pub fn connected(&self) {
        self.0.connections.inc();
    }

    /// A connection was accepted without a place for it.
    pub fn connected_without_place(&self) {
        self.0.connections_without_place.inc();
    }

    /// A connection was cut because its peer left written bytes unread.
    pub fn connection_stalled(&self) {
        self.0.stalled_connections.inc();
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self) {
        self.0.accept_errors.inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Log lines that wait for a slow reader before further ones are dropped.
const BUFFERED_LINES: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_that_a_peer_may_cause_is_written_once_a_second_with_the_count_of_the_others() {
        let lines = Sparingly::default();
        assert_eq!([lines.next(), lines.next(), lines.next()], [Some(0), None, None]);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(lines.next(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([lines.next(), lines.next()], [Some(3), None]);
    }
}
