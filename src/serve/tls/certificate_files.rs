//! The files with which the server proves its identity, and what rustls makes of them.

use std::{
    fmt::{self, Display},
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    Error, ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

use crate::wall_clock::RustlsClock;

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// The private key of the certificate, PEM.
    pub key: PathBuf,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFile {
    /// [`CertificateFiles::certificate`].
    Certificate,
    /// [`CertificateFiles::key`].
    Key,
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
}

impl CertificateFiles {
    pub(super) fn read(&self) -> Result<Contents, CertificateFileError> {
        let content = |file| self.read_pem(file);
        Ok(Contents { certificate: content(CertificateFile::Certificate)?, key: content(CertificateFile::Key)? })
    }

    /// The configuration of a server with these contents.
    pub(super) fn config(&self, contents: &Contents) -> Result<ServerConfig, CertificateFileError> {
        let chain = read_chain(&contents.certificate);
        let chain = chain.map_err(|reason| self.error(CertificateFile::Certificate, &reason))?;
        let private = read_key(&contents.key).map_err(|reason| self.error(CertificateFile::Key, &reason))?;
        // Names the crypto provider, because rustls panics when two are compiled in and none is named.
        let mut config = ServerConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(RustlsClock))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| self.mismatch(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
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

    /// Both files are PEM with the right sections, but rustls does not accept them together.
    fn mismatch(&self, error: &Error) -> CertificateFileError {
        match error {
            Error::InconsistentKeys(_) => self.error(
                CertificateFile::Key,
                &format!("the private key does not belong to the certificate {}", self.certificate.display()),
            ),
            Error::InvalidCertificate(error) => {
                self.error(CertificateFile::Certificate, &format!("the certificate is damaged: {error}"))
            }
            // rustls says so of a key that it cannot parse.
            error => self.error(CertificateFile::Key, error),
        }
    }

    fn path(&self, file: CertificateFile) -> &Path {
        match file {
            CertificateFile::Certificate => &self.certificate,
            CertificateFile::Key => &self.key,
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

/// Far more than any bundle of certificates. Without it `/dev/zero` would fill the memory.
const LARGEST: u64 = 4 << 20;
