//! The transport: accepts connections, gives their requests to one handler, applies the limits. Knows nothing of the domain.
//!
//! Connections: `listeners`, `connection`, `http1`, `http2`, `connection_limit`, `over_limit`, `socket`. Layers of I/O: `filtered_io`,
//! `tls`, `protocol_detection`, `proxy_protocol`, `discard`. Peers that do not read: `watched_socket`, `write_watchdog`.

mod connection;
mod connection_limit;
mod discard;
mod filtered_io;
mod http1;
mod http2;
mod listeners;
mod over_limit;
mod protocol_detection;
mod proxy_protocol;
mod socket;
mod tls;
mod watched_socket;
mod write_watchdog;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
};
use http::{Request, Response};

use self::{
    connection::ServerState,
    connection_limit::{Permit, Permits},
    listeners::Listeners,
    write_watchdog::Watchdog,
};
pub use self::{
    http2::{UnreadResponses, expects_continue},
    tls::{CertificateFile, CertificateFileError, CertificateFiles, ClientCertificate, Tls},
};
use crate::{
    budget::Budget,
    drain::Drain,
    limits::{AddressCounts, ClientAddresses},
    reload::Reload,
    telemetry::{LogThrottle, Metrics},
};

/// What `app` decides: options, and limits that a test changes. All other limits are constants beside the code that they limit.
#[derive(Clone)]
pub struct Settings {
    /// Speaks TLS with this configuration, if there is one.
    pub tls: Option<Tls>,
    /// Most open connections. A few more are accepted, for health checks and to answer 503. Then accepting waits.
    pub max_connections: usize,
    /// Most open connections of one address. 0: no limit.
    pub address_connections: usize,
    /// Finds the address of a connection, and says whether it counts.
    pub addresses: ClientAddresses,
    /// Write streaming responses of HTTP/1.1 without hyper, which keeps large buffers for a connection.
    pub http1_takeover: bool,
    /// Concurrent streams of one HTTP/2 connection.
    pub max_streams: u32,
    /// How long the first bytes and a request's head may take, and how long HTTP/1.1 may be idle between two requests.
    pub header_timeout: Duration,
    /// How long the body of a request may take to arrive, also the part that no handler reads.
    pub body_timeout: Duration,
    /// How long a peer may take to read a piece of a response. After that its stream or connection is cut.
    pub stall_timeout: Duration,
    /// How long an HTTP/2 connection may have no stream.
    pub http2_idle_timeout: Duration,
    /// Counts the unsent bytes of all connections.
    pub budget: Budget,
}

/// Who sends a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The IP address of the TCP peer, which may be a proxy.
    pub tcp: IpAddr,
    /// The IP address of the client, as far as it is known. Without a proxy, that of the TCP peer.
    pub client: IpAddr,
}

/// The body of a request.
pub trait RequestBody: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static {}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static> RequestBody for B {}

/// Turns requests into responses.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Handles one request.
    fn handle(&self, peer: Peer, request: Request<impl RequestBody>) -> ResponseFuture;

    /// Handles one request of a connection over the connection limit: health checks get their answer, all else is refused.
    fn handle_over_limit(&self, peer: Peer, request: Request<impl RequestBody>) -> ResponseFuture;
}

/// The future of a response. Boxed, because hyper keeps space for this future for as long as an HTTP/2 stream lives, and moves it
/// several times.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Bound listeners that serve one handler.
pub struct Server {
    listeners: Listeners,
    settings: Settings,
    watchdog: Watchdog,
    metrics: Metrics,
}

impl Server {
    /// Listens on all addresses. Port 0 picks a free port, the same for all of them. Leaves out addresses that this machine does not
    /// have, unless it has none of them.
    ///
    /// # Errors
    /// When an address is taken, or none is an address of this machine.
    pub fn bind(addresses: &[SocketAddr], settings: Settings, metrics: Metrics) -> io::Result<Self> {
        let watchdog = Watchdog::new(settings.stall_timeout, settings.budget.clone(), metrics.clone());
        Ok(Self { listeners: Listeners::bind(addresses)?, settings, watchdog, metrics })
    }

    /// The addresses that the server listens on.
    ///
    /// # Errors
    /// When the system does not give an address.
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.local_addrs()
    }

    /// Cuts peers that do not read; never ends.
    pub fn run_watchdog(&self) -> impl Future<Output = ()> + Send + use<> {
        self.watchdog.clone().run()
    }

    /// Reads the files of TLS again when they change; never ends. `None` without TLS.
    #[must_use]
    pub fn keep_certificates_current(&self, reload: Reload) -> Option<impl Future<Output = ()> + Send + use<>> {
        Some(self.settings.tls.clone()?.keep_current(reload, self.metrics.clone()))
    }

    /// Accepts connections; never ends. A connection closes after its current requests when the next stop of the drain begins.
    pub async fn run(self, handler: impl Handler, drain: Drain) {
        let Self { mut listeners, settings, watchdog, metrics } = self;
        listeners.warn_absent();
        let permits = Permits::new(settings.max_connections);
        let mut backoff = Backoff::default();
        let drain = Arc::new(drain);
        let connections = Some(settings.address_connections).filter(|most| *most > 0).map(AddressCounts::new);
        let state =
            ServerState { handler, settings, connections, watchdog, metrics: metrics.clone(), drain: drain.clone() };
        let state = Arc::new(state);
        loop {
            let permit = permits.acquire().await;
            match listeners.accept().await {
                Ok((socket, peer)) => {
                    backoff.reset();
                    metrics.connected();
                    let tcp = peer.ip().to_canonical();
                    match permits.upgrade(permit) {
                        Permit::Regular(permit) => {
                            drain.spawn_connection(connection::serve(state.clone(), socket, tcp, permit));
                        }
                        Permit::OverLimit(permit) => {
                            metrics.connected_over_limit();
                            drain.spawn_connection(over_limit::serve(state.clone(), socket, tcp, permit));
                        }
                    }
                }
                // The peer left before its connection was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    metrics.accept_failed();
                    drop(permit);
                    backoff.wait(&error).await;
                }
            }
        }
    }
}

/// The wait after a failed accept. Doubles from 10 ms to 1 s, so a lack of descriptors or memory does not make the loop spin.
struct Backoff {
    next: Duration,
    log_limit: LogThrottle,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST_BACKOFF, log_limit: LogThrottle::default() }
    }
}

impl Backoff {
    /// Makes the next wait short again, but keeps the log limit: a peer that connects between two failures would cause a line
    /// each time.
    fn reset(&mut self) {
        self.next = SHORTEST_BACKOFF;
    }

    async fn wait(&mut self, error: &io::Error) {
        if let Some(left_out) = self.log_limit.admit() {
            tracing::warn!(%error, left_out, "cannot accept a connection");
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(1));
    }
}

const SHORTEST_BACKOFF: Duration = Duration::from_millis(10);
