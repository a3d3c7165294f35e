//! The connections of a client command: gRPC over HTTP/2, and HTTP/1.1, each with or without TLS.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response, Uri};
use hyper::body::{Body, Incoming};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Builder, Client, connect::HttpConnector},
    rt::TokioTimer,
};
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tonic::metadata::MetadataMap;

use super::{
    exit::{Exit, Failure, last_cause},
    server_options::ServerOptions,
};
use crate::{drain::Drain, grpc::proto::signal_client::SignalClient, wall_clock::RustlsClock};

/// A daemon, and the identity with which to talk to it.
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) options: ServerOptions,
    tls: ClientConfig,
    drain: Drain,
}

/// A gRPC client with a connection of its own.
pub(super) type Signal = SignalClient<HttpClient<tonic::body::Body>>;

type HttpClient<B> = Client<HttpsConnector<HttpConnector>, B>;

impl Channel {
    /// Reads the certificates. Does not connect.
    pub(super) fn new(options: ServerOptions, drain: Drain) -> Result<Self, Failure> {
        let tls = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(RustlsClock))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Exit::Fault, error))?;
        let tls = match &options.ca {
            Some(path) => tls.with_root_certificates(authorities(path)?),
            // Reading those of the system takes milliseconds, so only when they are needed.
            None if options.url.scheme_str() == Some("https") => {
                tls.with_native_roots().map_err(|error| Failure::new(Exit::Usage, error).context("no authorities"))?
            }
            None => tls.with_root_certificates(RootCertStore::empty()),
        };
        let tls = match options.cert.as_deref().zip(options.key.as_deref()) {
            Some((certificate, key)) => {
                let unusable = |error| Failure::new(Exit::Usage, error).context("--cert and --key do not fit");
                tls.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(unusable)?
            }
            None => tls.with_no_client_auth(),
        };
        Ok(Self { options, tls, drain })
    }

    /// A gRPC client. It connects with its first call, and once more after a connection is lost.
    pub(super) fn signal(&self) -> Signal {
        let connector = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone()).https_or_http().enable_http2();
        let client = self.builder().http2_only(true).build(connector.wrap_connector(tcp()));
        SignalClient::with_origin(client, self.options.url.clone())
    }

    /// One request over HTTP/1.1. `path` begins with a slash.
    pub(super) async fn http(
        &self,
        method: http::Method,
        path: &str,
        headers: HeaderMap,
        body: String,
    ) -> Result<Response<Incoming>, Failure> {
        let connector = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone()).https_or_http().enable_http1();
        let client = self.builder().build::<_, String>(connector.wrap_connector(tcp()));
        let url = format!("{}{path}", self.options.url.to_string().trim_end_matches('/'));
        let url: Uri = url.parse().map_err(|error| Failure::new(Exit::Fault, error))?;
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, url, headers);
        request.headers_mut().extend(self.options.identity()?);
        let lost = |error: hyper_util::client::legacy::Error| Failure::new(Exit::Unavailable, last_cause(&error));
        within(async { client.request(request).await.map_err(lost) }).await
    }

    /// A gRPC request with the caller's identity.
    pub(super) fn request<T>(&self, message: T) -> Result<tonic::Request<T>, Failure> {
        let metadata = MetadataMap::from_headers(self.options.identity()?);
        Ok(tonic::Request::from_parts(metadata, tonic::Extensions::default(), message))
    }

    fn builder(&self) -> Builder {
        let mut builder = Client::builder(self.drain.clone());
        builder.timer(TokioTimer::new()).http2_keep_alive_interval(PING).http2_keep_alive_timeout(PATIENCE);
        builder
    }
}

/// The frames of a body as text; `None` at its end.
pub(super) async fn next_text(body: &mut Incoming) -> Result<Option<String>, Failure> {
    let frame = std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context)).await;
    let lost = |error: hyper::Error| Failure::new(Exit::Unavailable, last_cause(&error));
    let data = frame.transpose().map_err(lost)?.map(|frame| frame.into_data().unwrap_or_default());
    Ok(data.map(|data| String::from_utf8_lossy(&data).into_owned()))
}

/// Waits for an answer, for 10 s at most.
pub(super) async fn within<T, E: Into<Failure>>(answer: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answered) => answered.map_err(Into::into),
        Err(_) => Err(Failure::new(Exit::Unavailable, format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp
}

fn authorities(path: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let damaged = |error| unusable(path, format!("a certificate is damaged: {error}"));
        roots.add(certificate).map_err(damaged)?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = std::fs::read(path).map_err(|error| unusable(path, error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|_| unusable(path, "the PEM is damaged"))?;
    if certificates.is_empty() { Err(unusable(path, "the file has no certificate")) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    let pem = std::fs::read(path).map_err(|error| unusable(path, error))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable(path, "the file has no private key that can be read"))
}

fn unusable(path: &Path, reason: impl fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("{}: {reason}", path.display()))
}

/// How long an answer, the beginning of a stream or the acknowledgement of a PING may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The silence after which an HTTP/2 connection with a call is checked.
const PING: Duration = Duration::from_secs(15);
