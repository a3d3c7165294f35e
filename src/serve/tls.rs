//! TLS, which offers HTTP/2 and HTTP/1.1 by ALPN.

mod certificate_files;

use std::{io, sync::Arc};

use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

pub use self::certificate_files::{CertificateFile, CertificateFileError, CertificateFiles};
use super::watched_socket::WatchedSocket;

/// A connection with or without TLS. TLS is boxed, because its state is large and most connections have none.
pub(super) type MaybeTls = Either<Box<TlsStream<WatchedSocket>>, WatchedSocket>;

/// The TLS configuration of a server.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read, is empty or not PEM, lacks the certificate or the key, or the key does not belong to the
    /// certificate.
    pub fn read(files: &CertificateFiles) -> Result<Self, CertificateFileError> {
        Ok(Self(TlsAcceptor::from(Arc::new(files.config(&files.read()?)?))))
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
