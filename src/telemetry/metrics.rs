//! All metrics, in one struct.

mod cluster_metrics;
mod hub_events;
mod register;
mod reloads;
mod text_format;

use std::{
    iter,
    sync::{Arc, OnceLock, atomic::AtomicI64},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use self::{cluster_metrics::ClusterMetrics, cluster_metrics::phase_name, text_format::TextFormat};
use self::{
    register::Register as _,
    reloads::{Reloads, reloads},
};
use crate::error::Limit;

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
    unsent_bytes: Gauge<i64, AtomicI64>,
    opened: Family<Label, Counter>,
    ended: Family<Label, Counter>,
    sends: Family<Label, Counter>,
    /// The counter of delivered messages in `sends`. It changes with every message, so it is not looked up by its label.
    delivered: Counter,
    send_latency: Histogram,
    requests: Family<[(&'static str, String); 2], Counter>,
    request_seconds: Histograms,
    replayed: Counter,
    expired: Counter,
    evicted: Family<Label, Counter>,
    refused_identities: Counter,
    limited: Family<Label, Counter>,
    connections: Counter,
    connections_over_limit: Counter,
    accept_errors: Counter,
    stalled_connections: Counter,
    stalled_streams: Counter,
    flooded_connections: Counter,
    certificate_reloads: Reloads,
    key_refreshes: Reloads,
    turn_secret_reloads: Reloads,
    panics: Counter,
    cluster: OnceLock<ClusterMetrics>,
}

/// One label, with its value.
type Label<V = &'static str> = [(&'static str, V); 1];

type Histograms = Family<Label<String>, Histogram, fn() -> Histogram>;

/// The metrics of a route whose requests come with every message, without a look-up by label.
pub struct BusyRoute {
    route: &'static str,
    /// Requests that were answered with 200.
    ok: Counter,
    seconds: Histogram,
    metrics: Metrics,
}

/// The values of the gauges at the time of a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Live streams.
    pub streams: usize,
    /// Mailboxes.
    pub mailboxes: usize,
    /// Bytes of messages, in mailboxes and until the last stream has written them.
    pub mailbox_bytes: usize,
    /// Bytes of held messages.
    pub held_bytes: usize,
    /// Watches of a user's devices.
    pub watches: usize,
    /// Bytes of responses that their peers have not taken.
    pub unsent_bytes: usize,
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("signal");
        let sends = Family::<Label, Counter>::default();
        Self(Arc::new(Families {
            streams: registry.zero("streams", "Live streams"),
            mailboxes: registry.zero("mailboxes", "Mailboxes, with and without a live stream"),
            mailbox_bytes: registry.zero("mailbox_bytes", MESSAGE_BYTES),
            held_bytes: registry.zero("held_bytes", "Bytes of memory that held messages and their mailboxes take"),
            watches: registry.zero("watches", "Watches of a user's devices"),
            unsent_bytes: registry.zero("unsent_bytes", "Bytes of responses that their peers have not taken"),
            opened: registry.zero("streams_opened", "Streams opened, by how they relate to the stream before"),
            ended: registry.zero("streams_ended", "Streams and watches that the server ended, by reason"),
            delivered: sends.get_or_create_owned(&[("outcome", "delivered")]),
            sends: registry.add("sends", "Attempts to send a message, by outcome", sends),
            requests: registry.zero("requests", REQUESTS),
            send_latency: registry.add("send_latency_seconds", SEND_LATENCY, histogram()),
            request_seconds: registry.add("request_seconds", REQUEST_SECONDS, histograms()),
            replayed: registry.zero("replayed", "Stored messages that new streams began with"),
            expired: registry.zero("expired", "Messages dropped because their device did not connect in time"),
            evicted: registry.zero("evicted", "Messages dropped early to make room, by kind"),
            refused_identities: registry.zero("refused_identities", REFUSED_IDENTITIES),
            limited: registry.zero("limited", LIMITED),
            connections: registry.zero("connections", "Connections accepted"),
            connections_over_limit: registry.zero("connections_without_place", CONNECTIONS_OVER_LIMIT),
            accept_errors: registry.zero("accept_errors", "Failures to accept a connection"),
            stalled_connections: registry.zero("stalled_connections", STALLED_CONNECTIONS),
            stalled_streams: registry.zero("stalled_streams", "HTTP/2 streams cut because their peer did not read"),
            flooded_connections: registry.zero("flooded_connections", "Connections cut for too many control frames"),
            certificate_reloads: registry.add("certificate_reloads", CERTIFICATE_RELOADS, reloads()),
            key_refreshes: registry.add("key_refreshes", KEY_REFRESHES, reloads()),
            turn_secret_reloads: registry.add("turn_secret_reloads", TURN_SECRET_RELOADS, reloads()),
            panics: registry.zero("panics", "Panics"),
            cluster: OnceLock::new(),
            registry,
        }))
    }

    /// The metrics of a node among other nodes. From now on they are in [`Metrics::render`].
    #[must_use]
    pub fn of_cluster(&self) -> ClusterMetrics {
        self.0.cluster.get_or_init(ClusterMetrics::new).clone()
    }

    /// The OpenMetrics text of all metrics. `None`, with a line in the log, when a metric cannot be written as text.
    #[must_use]
    pub fn render(&self, levels: Levels) -> Option<String> {
        let gauge = |gauge: &Gauge<i64, AtomicI64>, level| {
            gauge.set(i64::try_from(level).unwrap_or(i64::MAX));
        };
        gauge(&self.0.streams, levels.streams);
        gauge(&self.0.mailboxes, levels.mailboxes);
        gauge(&self.0.mailbox_bytes, levels.mailbox_bytes);
        gauge(&self.0.held_bytes, levels.held_bytes);
        gauge(&self.0.watches, levels.watches);
        gauge(&self.0.unsent_bytes, levels.unsent_bytes);
        let of_cluster = self.0.cluster.get().map(ClusterMetrics::registry);
        text_format::write(iter::once(&self.0.registry).chain(of_cluster))
    }

    /// Counts a request. `after` is the time from its head to the head of the response. `route` is a pattern, never a path.
    pub fn answered(&self, route: &str, status: &str, after: Duration) {
        if count_and_sample(&self.requests(route, status)) {
            self.request_seconds(route).observe(after.as_secs_f64());
        }
    }

    /// The metrics of a route whose requests come with every message.
    #[must_use]
    pub fn busy_route(&self, route: &'static str) -> BusyRoute {
        let (ok, seconds) = (self.requests(route, OK), self.request_seconds(route));
        BusyRoute { route, ok, seconds, metrics: self.clone() }
    }

    fn requests(&self, route: &str, status: &str) -> Counter {
        self.0.requests.get_or_create_owned(&[("route", route.to_owned()), ("status", status.to_owned())])
    }

    fn request_seconds(&self, route: &str) -> Histogram {
        self.0.request_seconds.get_or_create_owned(&[("route", route.to_owned())])
    }

    /// A request was refused for its identity.
    pub fn identity_refused(&self) {
        self.0.refused_identities.inc();
    }

    /// A limit refused a message, a stream, an identity or a connection, or held an answer back.
    pub fn limited(&self, limit: Limit) {
        self.0.limited.get_or_create(&[("limit", limit.name())]).inc();
    }

    /// Something panicked.
    pub fn panicked(&self) {
        self.0.panics.inc();
    }

    /// A connection was accepted.
    pub fn connected(&self) {
        self.0.connections.inc();
    }

    /// A connection was closed because its address has too many.
    pub fn connection_of_address_refused(&self) {
        self.limited(Limit::AddressConnections);
    }

    /// A connection was accepted over the limit.
    pub fn connected_over_limit(&self) {
        self.0.connections_over_limit.inc();
    }

    /// A connection was cut because its peer did not read.
    pub fn connection_stalled(&self) {
        self.0.stalled_connections.inc();
    }

    /// A stream of HTTP/2 was cut because its peer did not read.
    pub fn stream_stalled(&self) {
        self.0.stalled_streams.inc();
    }

    /// A connection was cut because its peer sent too many control frames.
    pub fn connection_flooded(&self) {
        self.0.flooded_connections.inc();
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self) {
        self.0.accept_errors.inc();
    }
}

impl BusyRoute {
    /// The pattern of the route.
    #[must_use]
    pub fn pattern(&self) -> &'static str {
        self.route
    }

    /// As [`Metrics::answered`].
    pub fn answered(&self, status: &str, after: Duration) {
        if status != OK {
            self.metrics.answered(self.route, status, after);
        } else if count_and_sample(&self.ok) {
            self.seconds.observe(after.as_secs_f64());
        }
    }
}

/// Counts a request. Says whether its time is observed: of each route and status, the first request and then every 16th.
fn count_and_sample(requests: &Counter) -> bool {
    requests.inc().is_multiple_of(SAMPLED_REQUESTS)
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

fn histograms() -> Histograms {
    Family::new_with_constructor(histogram)
}

const MESSAGE_BYTES: &str =
    "Bytes of memory that messages take, in mailboxes and until the last stream has written them";
const REFUSED_IDENTITIES: &str =
    "Requests refused because the identity is not valid or the peer is not a trusted proxy";
const LIMITED: &str = "What limits refused or held back: messages, streams, failed identities, connections";
const CONNECTIONS_OVER_LIMIT: &str = "Connections accepted over the limit, for a health check or a 503";
const STALLED_CONNECTIONS: &str = "Connections cut because their peer did not read";
const CERTIFICATE_RELOADS: &str =
    "Times that the files of TLS were read again because they changed or on SIGHUP, by outcome";
const KEY_REFRESHES: &str = "Times that the keys of tokens were read again, by outcome";
const TURN_SECRET_RELOADS: &str =
    "Times that the secret of TURN was read again because it changed or on SIGHUP, by outcome";
const REQUESTS: &str = "Requests, by route and status: the HTTP status or, for a gRPC error, its name";
const SEND_LATENCY: &str =
    "Time from the acceptance of a message until its stream has written it; of one live message in 16";
const REQUEST_SECONDS: &str =
    "Time from the head of a request to the head of its response, by route; of one request in 16";

/// In seconds.
const BUCKETS: [f64; 17] =
    [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The time of one request in this many is observed: a histogram has a lock, which all requests would share.
const SAMPLED_REQUESTS: u64 = 16;

const OK: &str = "200";

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
