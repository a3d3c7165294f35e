//! TLS, which offers HTTP/2, HTTP/1.1 and HTTP/1.0 by ALPN.

use std::{fmt::Display, io, path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        Error, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
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
    /// When a file cannot be read, is empty or not PEM, lacks the certificate or the key, or the key does not belong to the
    /// certificate. The message names the file.
    pub fn read(files: CertificateFiles<'_>) -> io::Result<Self> {
        let (certificate, key) = (files.certificate, files.key);
        let chain = read_chain(&read_pem(certificate)?).map_err(|reason| unusable(certificate, &reason))?;
        let private = read_key(&read_pem(key)?).map_err(|reason| unusable(key, &reason))?;
        // Names the crypto provider, because rustls panics when two are compiled in and none is named.
        let mut config = ServerConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(RustlsClock))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| mismatch(files, &error))?;
        config.alpn_protocols = ["h2", "http/1.1", "http/1.0"].map(|name| name.as_bytes().to_vec()).into();
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

fn read_pem(file: &Path) -> io::Result<Vec<u8>> {
    let text = std::fs::read(file).map_err(|error| unusable(file, &error))?;
    if text.trim_ascii().is_empty() {
        return Err(unusable(file, &"the file is empty"));
    }
    // Every section of PEM begins with this.
    if !contains(&text, "-----BEGIN ") {
        return Err(unusable(file, &"the file is not PEM"));
    }
    Ok(text)
}

fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    if chain.is_empty() {
        let has_key = if contains(pem, "PRIVATE KEY-----") { ", but a private key" } else { "" };
        return Err(format!("the file has no certificate{has_key}"));
    }
    Ok(chain)
}

fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Err(pem::Error::NoItemsFound) if contains(pem, "ENCRYPTED PRIVATE KEY-----") => {
            Err("the private key is encrypted; decrypt it first".to_owned())
        }
        Err(pem::Error::NoItemsFound) => Err("the file has no private key".to_owned()),
        read => read.map_err(damaged),
    }
}

fn contains(pem: &[u8], mark: &str) -> bool {
    memchr::memmem::find(pem, mark.as_bytes()).is_some()
}

fn damaged(error: pem::Error) -> String {
    match error {
        // The library writes the lines as lists of numbers.
        pem::Error::MissingSectionEnd { .. } => "the PEM is cut off: it has no END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "the PEM has a malformed BEGIN line".to_owned(),
        other => format!("the PEM is damaged: {other}"),
    }
}

/// Both files are PEM with the right sections, but rustls does not accept them together.
fn mismatch(files: CertificateFiles<'_>, error: &Error) -> io::Error {
    match error {
        Error::InconsistentKeys(_) => unusable(
            files.key,
            &format!("the private key does not belong to the certificate {}", files.certificate.display()),
        ),
        Error::InvalidCertificate(error) => {
            unusable(files.certificate, &format!("the certificate is damaged: {error}"))
        }
        // rustls says so of a key that it cannot parse.
        error => unusable(files.key, error),
    }
}

fn unusable(file: &Path, reason: &dyn Display) -> io::Error {
    io::Error::other(format!("{}: {reason}", file.display()))
}
