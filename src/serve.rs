//! The accept loop: connections in, requests to one router, every limit of the transport; knows nothing of the domain.

mod connection;
mod connection_io;
mod connection_limit;
mod http1;
mod http2;
mod over_limit;
mod protocol_detection;
mod socket;
mod tls;
mod watched_socket;
mod write_watchdog;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
};
use http::{Request, Response};
use tokio::net::TcpListener;

pub use self::tls::{Identity, Tls};
use self::{
    connection::Connections,
    connection_limit::{Permit, Permits},
    over_limit::OverLimit,
    write_watchdog::Watchdog,
};
use crate::{
    budget::Budget,
    drain::Drain,
    telemetry::{Metrics, Sparingly},
};

/// The limits of the transport that are options; the others are constants beside the code they bind.
#[derive(Clone)]
pub struct Settings {
    /// Speak TLS, if so.
    pub tls: Option<Tls>,
    /// Open connections; a few more are told that there is no place, and past those nothing is accepted until one closes.
    pub max_connections: usize,
    /// Write responses of HTTP/1.1 that go on past hyper, which keeps large buffers for a connection.
    pub http1_takeover: bool,
    /// Concurrent streams of one HTTP/2 connection.
    pub max_streams: u32,
    /// For the first bytes, for a request's head, and for the idle time between two requests of HTTP/1.1.
    pub header_timeout: Duration,
    /// How long a peer may take for a piece of a response before it is cut.
    pub stall: Duration,
    /// How long a connection of HTTP/2 may stand without a stream.
    pub http2_idle: Duration,
    /// Where the bytes are counted that peers have not taken.
    pub budget: Budget,
}

/// The address that a connection came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// What answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request from a peer.
    fn handle<B>(&self, peer: Peer, request: Request<B>) -> ResponseFuture
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static;

    /// Answers one request from a peer for which there is no place: whether the server is healthy, or that it is full.
    fn handle_over_limit<B>(&self, peer: Peer, request: Request<B>) -> ResponseFuture
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static;
}

/// An answer on its way. Boxed, because it is large, what waits for it is moved about, and hyper keeps room for it as long as a
/// stream of HTTP/2 lives.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A bound listener that serves one handler.
pub struct Server {
    listener: TcpListener,
    settings: Settings,
    watchdog: Watchdog,
    metrics: Metrics,
}

impl Server {
    /// Listens on an address; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is taken or not one of this machine.
    pub fn bind(address: SocketAddr, settings: Settings, metrics: Metrics) -> io::Result<Self> {
        let watchdog = Watchdog::new(settings.stall, settings.budget.clone(), metrics.clone());
        Ok(Self { listener: socket::listen(address)?, settings, watchdog, metrics })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Cuts peers that do not read, without end.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        self.watchdog.clone().run()
    }

    /// Accepts connections without end. Connections end themselves when the server stops.
    pub async fn run(self, handler: impl Handler, drain: Drain) {
        let places = Permits::new(self.settings.max_connections);
        let mut backoff = Backoff::default();
        let (tls, watchdog) = (self.settings.tls.clone(), self.watchdog);
        let spare = OverLimit { handler: handler.clone(), tls, watchdog: watchdog.clone(), drain: drain.clone() };
        let connections = Connections::new(handler, self.settings, watchdog, self.metrics.clone(), drain.clone());
        loop {
            let place = places.next().await;
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    backoff.reset();
                    self.metrics.connected();
                    let peer = Peer(peer.ip());
                    match places.improve(place) {
                        Permit::Regular(place) => drain.spawn(connections.clone().serve(socket, peer, place)),
                        Permit::OverLimit(place) => {
                            self.metrics.connected_without_place();
                            drain.spawn(spare.clone().serve(socket, peer, place))
                        }
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.metrics.accept_failed();
                    drop(place);
                    backoff.wait(&error).await;
                }
            }
        }
    }
}

/// What to do when the system has no descriptor or memory for another connection: wait, longer each time.
struct Backoff {
    next: Duration,
    lines: Sparingly,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST_BACKOFF, lines: Sparingly::default() }
    }
}

impl Backoff {
    /// The next wait is short again. A peer that comes and goes may make the system run out all the time, so the log keeps to its
    /// line a second.
    fn reset(&mut self) {
        self.next = SHORTEST_BACKOFF;
    }

    async fn wait(&mut self, error: &io::Error) {
        if let Some(left_out) = self.lines.next() {
            tracing::warn!(%error, left_out, "cannot accept a connection");
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(1));
    }
}

const SHORTEST_BACKOFF: Duration = Duration::from_millis(10);
