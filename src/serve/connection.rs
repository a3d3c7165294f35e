//! Serves one connection: TLS if configured, then HTTP/1.1 or HTTP/2, as its first bytes show.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Handler, Peer, Settings, http1, http2,
    protocol_detection::{Protocol, Rewound, detect},
    tls::{self, MaybeTls},
    watched_socket,
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
    let first_head_by = Instant::now() + state.settings.header_timeout;
    let Some((protocol, io)) = first_bytes(&state, socket, first_head_by).await else { return };
    let ended = match protocol {
        // Boxed: tokio moves a new task several times, and an unboxed future would make every task as large as the largest.
        Protocol::Http1 => Box::pin(http1::serve(state, io, peer, permit, first_head_by)).await,
        Protocol::Http2 => Box::pin(http2::serve(state, io, peer)).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

/// Waits for the first bytes. `None`: the connection is over. A connection that has asked nothing ends with the next stop of the drain.
async fn first_bytes<H>(
    state: &ServerState<H>,
    socket: TcpStream,
    deadline: Instant,
) -> Option<(Protocol, Rewound<MaybeTls>)> {
    let socket = watched_socket::wrap(socket, state.watchdog.clone());
    let first_bytes = async { detect(tls::accept(state.settings.tls.as_ref(), socket).await?).await };
    let mut first_bytes = pin!(timeout_at(deadline, first_bytes));
    let detected = tokio::select! {
        detected = &mut first_bytes => detected,
        () = state.drain.next_stop() => timeout(UNREAD_BYTES, first_bytes).await.unwrap_or(Ok(Ok(None))),
    };
    match detected {
        Ok(Ok(detected)) => return detected,
        Ok(Err(error)) => tracing::debug!(%error, "a connection failed before its first request"),
        Err(_) => tracing::debug!("the first bytes of a connection did not come in time"),
    }
    None
}

/// A request that was sent before the stop may not be read yet. It gets this time.
const UNREAD_BYTES: Duration = Duration::from_millis(100);
