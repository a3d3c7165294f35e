//! Opens the socket to a server, with the options that make a dead one known soon, and TLS.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UnixStream, lookup_host},
    time::timeout,
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
    let connected = timeout(PATIENCE, connect).await.unwrap_or_else(|_| Err("no connection within 500 ms".to_owned()));
    connected.map_err(|why| format!("{address}: {why}"))
}

/// Connects to a socket of this machine.
pub(super) async fn unix(path: &Path) -> Result<Box<dyn Socket>, String> {
    let stream = UnixStream::connect(path).await.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Box::new(stream))
}

/// Tries the addresses of a host one after the other.
async fn connect(address: &HostPort) -> Result<TcpStream, String> {
    let addresses = lookup_host((address.host.as_str(), address.port)).await.map_err(|error| error.to_string())?;
    let mut last = "the host has no address".to_owned();
    for address in addresses {
        match connect_to(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
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
/// The system breaks a connection when what was sent is not acknowledged for so long.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_sends_at_once_and_leaves_nothing_behind() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect_to(listener.local_addr().unwrap()).await.unwrap();
        let options = SockRef::from(&stream);
        assert!(options.tcp_nodelay().unwrap());
        assert_eq!(options.linger().unwrap(), Some(Duration::ZERO));
        #[cfg(target_os = "linux")]
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[test]
    fn a_private_authority_must_be_a_certificate() {
        for pem in [&b""[..], b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(tls(Some(pem)).is_err(), "{pem:?}");
        }
    }
}
