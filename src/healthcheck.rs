//! The subcommand `healthcheck`: requests `/healthz` from the daemon that was started with the same options.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use crate::wall_clock;

/// Succeeds when the daemon answers 200 within 3 s. `host` and `port` are the daemon's own options. `tls`: it speaks TLS. Fails when
/// `stop` is ready before.
///
/// # Errors
/// In every other case; the error says what is wrong.
pub fn run(host: &str, port: u16, tls: bool, stop: impl Future<Output = ()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async {
        tokio::select! {
            asked = tokio::time::timeout(TIMEOUT, ask(host, port, tls)) => asked,
            () = stop => Ok(Err(io::Error::other("stopped by a signal"))),
        }
    });
    // Dropping the runtime would wait for its thread that may still resolve the host name.
    runtime.shutdown_background();
    asked.unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {} s", TIMEOUT.as_secs()))))
}

async fn ask(host: &str, port: u16, tls: bool) -> io::Result<()> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.map(reachable).collect();
    let socket = TcpStream::connect(&addresses[..]).await?;
    if tls { get_healthz(handshake(socket).await?).await } else { get_healthz(socket).await }
}

/// 0.0.0.0 and `::` are addresses to listen on. Not every system connects to them, but a daemon that listens there also listens on
/// the loopback address of the same family.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Reads only the status line, so it needs no HTTP client.
async fn get_healthz(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    connection.take("HTTP/1.1 200".len() as u64).read_to_end(&mut answer).await?;
    match answer.strip_prefix(b"HTTP/1.1 ") {
        Some(b"200") => Ok(()),
        None if answer.is_empty() => Err(io::Error::other("the connection was closed without an answer")),
        Some(status) => Err(io::Error::other(format!("/healthz answered {}", status.escape_ascii()))),
        None => Err(io::Error::other("the answer is not HTTP; if the daemon speaks TLS, --tls-cert is missing here")),
    }
}

async fn handshake(socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = AnyCertificate(provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_details(provider, Arc::new(wall_clock::RustlsClock))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let name = ServerName::IpAddress(socket.peer_addr()?.ip().into());
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// Trusts every certificate: the check sends no secret, and asks whether the daemon is alive, not who it is.
///
/// A certificate that has expired, is for another name or was renewed on disk a moment ago must not get a container killed.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// For everything together: resolving the host name, the connection, TLS and the answer.
const TIMEOUT: Duration = Duration::from_secs(3);
