//! Opens the socket to a server, with the options that make a dead one known soon, and TLS.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UnixStream, lookup_host},
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::redis_url::HostPort;
use crate::wall_clock::RustlsClock;

/// A connection of any kind.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// Connects to a host, within [`PATIENCE`].
pub(super) async fn tcp(address: &HostPort, tls: Option<&Arc<ClientConfig>>) -> Result<Box<dyn Socket>, String> {
    let connect = async {
        let stream = connect(address).await?;
        let Some(tls) = tls else { return Ok(Box::new(stream) as Box<dyn Socket>) };
        let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| format!("TLS: {error}"))?) as Box<dyn Socket>)
    };
    let connected = timeout(PATIENCE, connect).await.unwrap_or_else(|_| Err(SILENT.to_owned()));
    connected.map_err(|why| format!("{address}: {why}"))
}

/// Connects to a socket of this machine.
pub(super) async fn unix(path: &Path) -> Result<Box<dyn Socket>, String> {
    let stream = UnixStream::connect(path).await.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Box::new(stream))
}

async fn connect(address: &HostPort) -> Result<TcpStream, String> {
    let end = Instant::now() + PATIENCE;
    let addresses = lookup_host((address.host.as_str(), address.port)).await.map_err(|error| error.to_string())?;
    connect_to_any(&addresses.collect::<Vec<_>>(), end).await
}

/// Tries the addresses of a host one after the other. Each gets its share of the time that is left: packets to the first one may be
/// dropped, as when IPv6 leads nowhere.
async fn connect_to_any(addresses: &[SocketAddr], end: Instant) -> Result<TcpStream, String> {
    let mut last = "the host has no address".to_owned();
    for (left, address) in (1..=u32::try_from(addresses.len()).unwrap_or(u32::MAX)).rev().zip(addresses) {
        let share = (end.saturating_duration_since(Instant::now()) / left).max(LEAST_SHARE);
        match timeout(share, connect_to(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => SILENT.clone_into(&mut last),
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    // What was not sent when a connection ends must not arrive later.
    socket.set_zero_linger()?;
    #[cfg(target_os = "linux")]
    SockRef::from(&socket).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.connect(address).await
}

/// The configuration of TLS. `ca`: PEM with the only authorities to trust. `None`: those of the system.
///
/// # Errors
/// When there is no certificate, or a damaged one.
pub(super) fn tls(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(RustlsClock));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match ca {
        Some(pem) => builder.with_root_certificates(authorities(pem)?),
        None => hyper_rustls::ConfigBuilderExt::with_native_roots(builder).map_err(|error| error.to_string())?,
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("a damaged PEM: {error}"))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate in PEM".to_owned()) } else { Ok(roots) }
}

/// How long connecting may take, with TLS.
const PATIENCE: Duration = Duration::from_millis(500);
const SILENT: &str = "no connection within 500 ms";
/// How long each address of a host may take at least. With more than five addresses, the last ones may not be tried.
const LEAST_SHARE: Duration = Duration::from_millis(100);
/// The system breaks a connection when what was sent is not acknowledged for so long.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_sends_at_once_and_leaves_nothing_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect_to(listener.local_addr().unwrap()).await.unwrap();
        let options = SockRef::from(&stream);
        assert!(options.tcp_nodelay().unwrap());
        assert_eq!(options.linger().unwrap(), Some(Duration::ZERO));
        #[cfg(target_os = "linux")]
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    /// A listener that answers no more: its queue is full, so the system drops what else comes. Returns what fills it, too.
    #[cfg(target_os = "linux")]
    async fn full_listener() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let (address, mut queued) = (listener.local_addr().unwrap(), Vec::new());
        while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        (address, listener, queued)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_time_for_the_next_one() {
        let (silent, _listener, _queued) = full_listener().await;
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = there.local_addr().unwrap();
        let end = Instant::now() + PATIENCE;
        let stream = timeout(PATIENCE, connect_to_any(&[silent, there], end)).await;
        assert_eq!(stream.expect("in time").expect("a connection").peer_addr().unwrap(), there);
        let none = timeout(PATIENCE * 2, connect_to_any(&[silent], Instant::now() + PATIENCE)).await;
        assert_eq!(none.expect("in time").unwrap_err(), SILENT);
    }

    #[test]
    fn a_private_authority_must_be_a_certificate() {
        for pem in [&b""[..], b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(tls(Some(pem)).is_err(), "{pem:?}");
        }
    }
}
