//! The files with which the server proves its identity and checks that of its clients, and what rustls makes of them.

use std::{
    fmt::{self, Display},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::wall_clock::RustlsClock;

/// Where the certificate and its key are, and the certificates that sign those of clients.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// The private key of the certificate, PEM.
    pub key: PathBuf,
    /// The certificates of the authorities that sign the certificates of clients, PEM. Without them, clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFile {
    /// [`CertificateFiles::certificate`].
    Certificate,
    /// [`CertificateFiles::key`].
    Key,
    /// [`CertificateFiles::client_ca`].
    ClientCa,
}

/// Why a file cannot be used. The text names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFileError {
    file: CertificateFile,
    path: PathBuf,
    reason: String,
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl CertificateFiles {
    pub(super) fn read(&self) -> Result<Contents, CertificateFileError> {
        Ok(Contents {
            certificate: self.read_pem(CertificateFile::Certificate)?,
            key: self.read_pem(CertificateFile::Key)?,
            client_ca: self.client_ca.as_ref().map(|_| self.read_pem(CertificateFile::ClientCa)).transpose()?,
        })
    }

    /// Like [`CertificateFiles::read`], but takes from `before` what is not a regular file: a pipe gives its
    /// content only once, and opening it again would block.
    pub(super) fn read_again(&self, before: &Contents) -> Result<Contents, CertificateFileError> {
        let read = |file, before: &[u8]| {
            let is_other = self.path(file).metadata().is_ok_and(|metadata| !metadata.is_file());
            if is_other { Ok(before.to_vec()) } else { self.read_pem(file) }
        };
        Ok(Contents {
            certificate: read(CertificateFile::Certificate, &before.certificate)?,
            key: read(CertificateFile::Key, &before.key)?,
            client_ca: before.client_ca.as_deref().map(|ca| read(CertificateFile::ClientCa, ca)).transpose()?,
        })
    }

    /// The configuration of a server with these contents.
    pub(super) fn config(&self, contents: &Contents) -> Result<ServerConfig, CertificateFileError> {
        let chain = read_certificates(&contents.certificate);
        let chain = chain.map_err(|reason| self.error(CertificateFile::Certificate, &reason))?;
        let private = read_key(&contents.key).map_err(|reason| self.error(CertificateFile::Key, &reason))?;
        // Names the crypto provider, because rustls panics when two are compiled in and none is named.
        let provider = Arc::new(ring::default_provider());
        let verifier = match &contents.client_ca {
            Some(pem) => {
                let verifier = client_verifier(pem, provider.clone());
                verifier.map_err(|reason| self.error(CertificateFile::ClientCa, &reason))?
            }
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(RustlsClock))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, private))
            .map_err(|error| self.mismatch(&error))?;
        config.alpn_protocols = ["h2", "http/1.1", "http/1.0"].map(|name| name.as_bytes().to_vec()).into();
        if contents.client_ca.is_some() {
            // rustls does not check the client certificate of a resumed session again, so an expired one would still be accepted.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }

    fn read_pem(&self, file: CertificateFile) -> Result<Vec<u8>, CertificateFileError> {
        let mut text = Vec::new();
        let read = File::open(self.path(file)).and_then(|open| open.take(LARGEST + 1).read_to_end(&mut text));
        read.map_err(|error| self.error(file, &error))?;
        if text.trim_ascii().is_empty() {
            return Err(self.error(file, &"the file is empty"));
        }
        if text.len() as u64 > LARGEST {
            return Err(self.error(file, &"the file is larger than 4 MiB"));
        }
        // Every section of PEM begins with this.
        if !contains(&text, "-----BEGIN ") {
            return Err(self.error(file, &"the file is not PEM"));
        }
        Ok(text)
    }

    /// The error when rustls refuses a certificate and a key that were both parsed.
    fn mismatch(&self, error: &Error) -> CertificateFileError {
        match error {
            Error::InconsistentKeys(_) => self.error(
                CertificateFile::Key,
                &format!("the private key does not belong to the certificate {}", self.certificate.display()),
            ),
            Error::InvalidCertificate(error) => {
                self.error(CertificateFile::Certificate, &format!("the certificate is damaged: {error}"))
            }
            // This is rustls's error for a key that it cannot parse.
            error => self.error(CertificateFile::Key, error),
        }
    }

    fn path(&self, file: CertificateFile) -> &Path {
        match file {
            CertificateFile::Certificate => &self.certificate,
            CertificateFile::Key => &self.key,
            CertificateFile::ClientCa => self.client_ca.as_deref().unwrap_or(Path::new("")),
        }
    }

    fn error(&self, file: CertificateFile, reason: &dyn Display) -> CertificateFileError {
        CertificateFileError { file, path: self.path(file).to_owned(), reason: reason.to_string() }
    }
}

impl CertificateFileError {
    /// The file that cannot be used.
    #[must_use]
    pub fn file(&self) -> CertificateFile {
        self.file
    }
}

impl Display for CertificateFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for CertificateFileError {}

/// Asks clients for a certificate. One that has none is served as well.
fn client_verifier(pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("a certificate is damaged: {error}"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
    builder.build().map_err(|error| error.to_string())
}

fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
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
        // Not the library's own text: it prints the line as a list of numbers.
        pem::Error::MissingSectionEnd { .. } => "the PEM is cut off: it has no END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "the PEM has a malformed BEGIN line".to_owned(),
        other => format!("the PEM is damaged: {other}"),
    }
}

/// Far more than any bundle of certificates. Without this limit, `/dev/zero` would fill the memory.
const LARGEST: u64 = 4 << 20;
