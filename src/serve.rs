//! The accept loop: connections in, requests to one router, every limit of the transport; knows nothing of the domain.

mod clock;
mod connection;
mod cut;
mod detect;
mod lasting;
mod paced;
mod quiet;
mod socket;
mod takeover;
mod tls;
mod turns;
mod watch;
mod whole;

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
use tokio::{net::TcpListener, sync::Semaphore};

use self::connection::Connections;
pub use self::{
    cut::Cut,
    tls::{Identity, Tls},
};
use crate::{
    drain::Drain,
    telemetry::{Metrics, Sparingly},
};

/// The limits of the transport that are options; the others are constants beside the code they bind.
#[derive(Clone)]
pub struct Settings {
    /// Speak TLS, if so.
    pub tls: Option<Tls>,
    /// Open connections; past it nothing is accepted until one closes.
    pub max_connections: usize,
    /// Write lasting responses of HTTP/1.1 past hyper, which keeps large buffers for a connection.
    pub http1_takeover: bool,
    /// Concurrent streams of one HTTP/2 connection.
    pub max_streams: u32,
    /// For the first bytes, for a request's head, and for the idle time between two requests of HTTP/1.1.
    pub header_timeout: Duration,
    /// How long a peer may leave written bytes unread before its connection is cut.
    pub stall: Duration,
}

/// The address that a connection came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Response extension: the body goes on for as long as its peer listens. Such a peer is watched for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// Nothing of the request is waited for. An idle connection of HTTP/1.1 keeps no buffers for it.
    ServerStreaming,
    /// The request is read meanwhile.
    Bidirectional,
}

impl Lasting {
    /// What a response is; none if it just ends, as the empty one to a HEAD does.
    fn of(response: &Response<Body>) -> Option<Self> {
        response.extensions().get().copied().filter(|_| !response.body().is_end_stream())
    }
}

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
                    backoff.reset();
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
