//! Serves one connection: TLS if configured, then HTTP/1.1 or HTTP/2, as its first bytes show.

use std::sync::Arc;

use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Handler, Peer, Settings, http1, http2,
    protocol_detection::{Protocol, detect},
    tls, watched_socket,
    write_watchdog::Watchdog,
};
use crate::{drain::Drain, telemetry::Metrics};

/// What all connections share.
pub(super) struct ServerState<H> {
    pub(super) handler: H,
    pub(super) settings: Settings,
    pub(super) watchdog: Watchdog,
    pub(super) metrics: Metrics,
    pub(super) drain: Arc<Drain>,
}

/// Serves a connection. Failures are logged for debugging only, because a peer can cause them.
pub(super) async fn serve<H: Handler>(
    state: Arc<ServerState<H>>,
    socket: TcpStream,
    peer: Peer,
    permit: OwnedSemaphorePermit,
) {
    let settings = &state.settings;
    let socket = watched_socket::wrap(socket, state.watchdog.clone());
    let first_bytes = async { detect(tls::accept(settings.tls.as_ref(), socket).await?).await };
    let first_head_by = Instant::now() + settings.header_timeout;
    let (protocol, io) = match tokio::time::timeout_at(first_head_by, first_bytes).await {
        Ok(Ok(Some(detected))) => detected,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection failed before its first request"),
        Err(_) => return tracing::debug!("the first bytes of a connection did not come in time"),
    };
    let ended = match protocol {
        // Boxed: tokio moves a new task several times, and an unboxed future would make every task as large as the largest.
        Protocol::Http1 => Box::pin(http1::serve(state, io, peer, permit, first_head_by)).await,
        Protocol::Http2 => Box::pin(http2::serve(state, io, peer)).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}
