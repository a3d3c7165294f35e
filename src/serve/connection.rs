//! Serves one connection: reads a PROXY header if configured, does TLS if configured, then speaks HTTP/1.1 or HTTP/2.

use std::{io, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Handler, Peer, Settings,
    connection_limit::ConnectionPermit,
    http1, http2,
    protocol_detection::{Protocol, Rewound, detect},
    proxy_protocol,
    tls::{self, HandshakeClient, MaybeTls},
    watched_socket,
    write_watchdog::Watchdog,
};
use crate::{
    drain::Drain,
    limits::{AddressCounts, AddressKey, Counted},
    telemetry::Metrics,
};

/// What all connections share.
pub(super) struct ServerState<H> {
    pub(super) handler: H,
    pub(super) settings: Settings,
    /// Counts the connections of each address. `None`: no limit.
    pub(super) connections: Option<AddressCounts>,
    pub(super) watchdog: Watchdog,
    pub(super) metrics: Metrics,
    pub(super) drain: Arc<Drain>,
}

impl<H> ServerState<H> {
    /// Finds out who a connection comes from, and counts it. An error closes it: its address has too many, or a header of the PROXY
    /// protocol is missing, not valid, or not allowed. Has no deadline: the caller must set one.
    pub(super) async fn admit(&self, socket: &mut TcpStream, tcp: IpAddr) -> io::Result<(Peer, Option<Counted>)> {
        let addresses = &self.settings.addresses;
        if !addresses.uses_proxy_protocol() {
            return Ok((Peer { tcp, client: tcp }, self.count(tcp)?));
        }
        if addresses.is_trusted(tcp) {
            let client = proxy_protocol::read(socket).await?.unwrap_or(tcp);
            return Ok((Peer { tcp, client }, self.count(client)?));
        }
        let counted = self.count(tcp)?;
        if proxy_protocol::is_next(socket).await? {
            addresses.warn_of_closed(tcp);
            return Err(io::Error::other("a header of the PROXY protocol from a peer that is not trusted"));
        }
        Ok((Peer { tcp, client: tcp }, counted))
    }

    /// Does the TLS handshake if the server has TLS. From now on a peer that does not read is cut.
    ///
    /// Not `async`: its future would keep the arguments a second time, and the task of each idle stream would be larger.
    pub(super) fn handshake(
        &self,
        socket: TcpStream,
        peer: Peer,
    ) -> impl Future<Output = io::Result<MaybeTls>> + Send + use<'_, H> {
        let client = match self.settings.addresses.counted(peer.client) {
            Some(key) => HandshakeClient::Counted(key),
            None => HandshakeClient::Uncounted(AddressKey::of(peer.client)),
        };
        tls::accept(self.settings.tls.as_ref(), client, watched_socket::wrap(socket, self.watchdog.clone()))
    }

    fn count(&self, client: IpAddr) -> io::Result<Option<Counted>> {
        let (Some(connections), Some(key)) = (&self.connections, self.settings.addresses.counted(client)) else {
            return Ok(None);
        };
        let counted = connections.add(key).ok_or_else(|| {
            self.metrics.connection_of_address_refused();
            io::Error::other("the address has too many connections")
        });
        counted.map(Some)
    }
}

/// Serves a connection. Failures are logged for debugging only, because a peer can cause them.
pub(super) async fn serve<H: Handler>(
    state: Arc<ServerState<H>>,
    socket: TcpStream,
    tcp: IpAddr,
    permit: OwnedSemaphorePermit,
) {
    let first_head_by = Instant::now() + state.settings.header_timeout;
    let Some(FirstBytes { protocol, io, peer, counted }) = first_bytes(&state, socket, tcp, first_head_by).await else {
        return;
    };
    let permit = ConnectionPermit::new(permit, counted);
    let ended = match protocol {
        // Boxed: tokio moves a new task several times, and an unboxed future would make every task as large as the largest.
        Protocol::Http1 => Box::pin(http1::serve(state, io, peer, permit, first_head_by)).await,
        Protocol::Http2 => Box::pin(http2::serve(state, io, peer)).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

/// A connection whose first bytes have come.
struct FirstBytes {
    protocol: Protocol,
    io: Rewound<MaybeTls>,
    peer: Peer,
    counted: Option<Counted>,
}

/// Waits for the first bytes. `None`: the connection is over. Without a request it ends at the drain's next stop.
async fn first_bytes<H>(
    state: &ServerState<H>,
    mut socket: TcpStream,
    tcp: IpAddr,
    deadline: Instant,
) -> Option<FirstBytes> {
    let first_bytes = async {
        let (peer, counted) = state.admit(&mut socket, tcp).await?;
        let detected = detect(state.handshake(socket, peer).await?).await?;
        Ok::<_, io::Error>(detected.map(|(protocol, io)| FirstBytes { protocol, io, peer, counted }))
    };
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
