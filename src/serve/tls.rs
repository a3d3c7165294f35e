//! TLS, which offers HTTP/2 and HTTP/1.1 by ALPN.

use std::{io, path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server::TlsStream,
};
use tokio_util::either::Either;

use super::watched_socket::WatchedSocket;
use crate::wall_clock::RustlsClock;

/// A connection with or without TLS. TLS is boxed, because its state is large and most connections have none.
pub(super) type MaybeTls = Either<Box<TlsStream<WatchedSocket>>, WatchedSocket>;

/// The files with which the server proves its identity.
#[derive(Clone, Copy, Debug)]
pub struct CertificateFiles<'a> {
    /// The certificate and its chain, PEM.
    pub certificate: &'a Path,
    /// The private key of the certificate, PEM.
    pub key: &'a Path,
}

/// The TLS configuration of a server.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// When a file cannot be read, is not PEM, or the key does not belong to the certificate. The message names the file.
    pub fn read(files: CertificateFiles<'_>) -> io::Result<Self> {
        let (certificate, key) = (files.certificate, files.key);
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(certificate, &error))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
        // Names the crypto provider, because rustls panics when two are compiled in and none is named.
        let mut config = ServerConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(RustlsClock))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| unreadable(certificate, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Does the TLS handshake if the server has TLS.
pub(super) async fn accept(tls: Option<&Tls>, socket: WatchedSocket) -> io::Result<MaybeTls> {
    match tls {
        // The inner box: the future of the handshake is larger than the connection.
        Some(tls) => Ok(Either::Left(Box::new(Box::pin(tls.0.accept(socket)).await?))),
        None => Ok(Either::Right(socket)),
    }
}

fn unreadable(file: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}
