//! The accept loop: connections in, requests to one router, every limit of the transport; knows nothing of the domain.

mod account;
mod begun;
mod clock;
mod connection;
mod control_frames;
mod detect;
mod http1_body;
mod idle;
mod inbound;
mod lasting;
mod pieces;
mod quiet;
mod socket;
mod streams;
mod takeover;
mod tls;
mod turns;
mod waiter;
mod watched;
mod whole;
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
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};

use self::connection::Connections;
pub use self::tls::{Identity, Tls};
use crate::{budget::Budget, drain::Drain, telemetry::Metrics};

/// The limits of the transport that are options; the others are constants beside the code they bind.
#[derive(Clone)]
pub struct Settings {
    /// Speak TLS, if so.
    pub tls: Option<Tls>,
    /// Open connections; past it nothing is accepted until one closes.
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
    fn answer<B>(&self, peer: Peer, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static;
}

/// An answer on its way. Boxed, because it is large, what waits for it is moved about, and hyper keeps room for it as long as a
/// stream of HTTP/2 lives.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A bound listener that serves one handler.
pub struct Server {
    listener: TcpListener,
    settings: Settings,
    metrics: Metrics,
}

impl Server {
    /// Listens on an address; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is taken or not one of this machine.
    pub fn bind(address: SocketAddr, settings: Settings, metrics: Metrics) -> io::Result<Self> {
        Ok(Self { listener: socket::listen(address)?, settings, metrics })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts connections until the hard stop. Connections end themselves on the soft one.
    pub async fn run(self, handler: impl Handler, drain: Drain) {
        let places = Arc::new(Semaphore::new(self.settings.max_connections.min(Semaphore::MAX_PERMITS)));
        let mut backoff = Backoff::default();
        let connections = Connections::new(handler, self.settings, self.metrics.clone(), drain.clone());
        loop {
            let accepted = tokio::select! {
                accepted = async {
                    let place = places.clone().acquire_owned().await;
                    (place, self.listener.accept().await)
                } => accepted,
                () = drain.finished() => return,
            };
            match accepted {
                (Ok(place), Ok((socket, peer))) => {
                    backoff = Backoff::default();
                    self.metrics.connected();
                    drain.spawn(connections.clone().serve(socket, Peer(peer.ip()), place));
                }
                (_, Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                (_, Err(error)) => {
                    self.metrics.accept_failed();
                    backoff.wait(&error).await;
                }
                (Err(_closed), Ok(_)) => return,
            }
        }
    }
}

/// What to do when the system has no descriptor or memory for another connection: wait, longer each time.
struct Backoff {
    next: Duration,
    logged: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Duration::from_millis(10), logged: None }
    }
}

impl Backoff {
    async fn wait(&mut self, error: &io::Error) {
        if self.logged.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            tracing::warn!(%error, "cannot accept a connection");
            self.logged = Some(Instant::now());
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(1));
    }
}
