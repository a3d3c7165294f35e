//! TLS, which offers HTTP/2, HTTP/1.1 and HTTP/1.0 by ALPN.

mod certificate_files;
mod client_certificate;
mod handshake;
mod shares;

use std::{io, pin::pin, sync::Arc, time::Duration};

use http::Request;
use parking_lot::RwLock;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tokio_util::either::Either;

pub(super) use self::shares::HandshakeClient;
use self::{certificate_files::Contents, handshake::Turns};
pub use self::{
    certificate_files::{CertificateFile, CertificateFileError, CertificateFiles},
    client_certificate::ClientCertificate,
};
use super::{protocol_detection::Rewound, watched_socket::WatchedSocket};
use crate::{
    reload::Reload,
    telemetry::{LogThrottle, Metrics},
};

/// A connection with or without TLS. TLS is boxed, because its state is large and most connections have none.
pub(super) type MaybeTls = Either<Box<TlsStream<WatchedSocket>>, WatchedSocket>;

/// The TLS configuration of a server, which changes when its files change. A cheap handle.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: CertificateFiles,
    /// For new connections. Each connection keeps the configuration of its handshake.
    current: RwLock<Current>,
    turns: Turns,
    /// For the line about refused client certificates, which a peer can cause.
    refusals: LogThrottle,
}

struct Current {
    config: Arc<ServerConfig>,
    /// The contents of the files that `config` was made from.
    contents: Contents,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read, is empty or not PEM, lacks the certificate or the key, or the key does not belong to the
    /// certificate.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn read(files: CertificateFiles) -> Result<Self, CertificateFileError> {
        let current = Current::of(&files, files.read()?)?;
        let (current, turns) = (RwLock::new(current), Turns::for_this_runtime());
        Ok(Self(Arc::new(Inner { files, current, turns, refusals: LogThrottle::default() })))
    }

    /// Reads the files every few seconds, and when a request comes. Never ends. If new files cannot be used, the old
    /// certificate and key stay in use.
    ///
    /// Compares contents and not times, so it notices a symbolic link that points elsewhere and a copy with an old time. Reads in a
    /// worker of the runtime: the files are small, and whatever is not a regular file is not read again.
    pub async fn keep_current(self, reload: Reload, metrics: Metrics) {
        let Inner { files, current, .. } = &*self.0;
        let mut requests = reload.requests();
        let mut tried = Ok(current.read().contents.clone());
        loop {
            let is_requested = requests.next().await;
            let read = files.read_again(&current.read().contents);
            if !is_requested && read == tried {
                continue;
            }
            tried.clone_from(&read);
            let reloaded = read.and_then(|contents| Current::of(files, contents));
            metrics.certificates_reloaded(reloaded.is_ok());
            match reloaded {
                Ok(new) => {
                    *current.write() = new;
                    tracing::info!("new connections get the certificate that was read again");
                }
                Err(error) => {
                    tracing::error!(%error, "a changed TLS file is not used; the ones from before stay in use");
                }
            }
        }
    }
}

impl Current {
    fn of(files: &CertificateFiles, contents: Contents) -> Result<Self, CertificateFileError> {
        Ok(Self { config: Arc::new(files.config(&contents)?), contents })
    }
}

/// Does the TLS handshake if the server has TLS.
pub(super) async fn accept(tls: Option<&Tls>, client: HandshakeClient, socket: WatchedSocket) -> io::Result<MaybeTls> {
    let Some(Tls(tls)) = tls else { return Ok(Either::Right(socket)) };
    let stream = timeout(HANDSHAKE, async {
        // Waits for the first byte before it spends memory on the handshake.
        socket.get_ref().readable().await?;
        let acceptor = TlsAcceptor::from(tls.current.read().config.clone());
        // Boxed: the future of the handshake is larger than the connection.
        Box::pin(async { tls.turns.run(client, pin!(acceptor.accept(socket))).await }).await
    });
    let stream = stream.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    Ok(Either::Left(Box::new(stream.inspect_err(|error| tls.warn_of_refusal(error))?)))
}

impl Inner {
    /// Logs that a client certificate was refused: its owner only sees that the connection fails.
    fn warn_of_refusal(&self, handshake: &io::Error) {
        if let Some(reason) = client_certificate::refusal(handshake)
            && let Some(left_out) = self.refusals.admit()
        {
            tracing::warn!(reason, left_out, "a client certificate was refused");
        }
    }
}

/// What the client of a connection has proven in the handshake.
pub(super) struct TlsClient(Option<ClientCertificate>);

impl TlsClient {
    pub(super) fn of(io: &Rewound<MaybeTls>) -> Self {
        let Either::Left(stream) = io.get_ref() else { return Self(None) };
        Self(ClientCertificate::of_chain(stream.get_ref().1.peer_certificates()))
    }

    /// Lets the handler of a request know the certificate of its connection.
    pub(super) fn attach<B>(&self, mut request: Request<B>) -> Request<B> {
        if let Some(certificate) = &self.0 {
            request.extensions_mut().insert(certificate.clone());
        }
        request
    }
}

/// How long a handshake may take, also when `--header-timeout` is longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::{
        net::{TcpListener, TcpStream},
        time::{Instant, sleep},
    };

    use super::*;
    use crate::{
        budget::Budget,
        limits::AddressKey,
        serve::{watched_socket, write_watchdog::Watchdog},
        telemetry::Levels,
    };

    /// Files of this test, with a new certificate.
    fn files(test: &str) -> CertificateFiles {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, text: String| {
            let path = std::env::temp_dir().join(format!("backend-signal-{}-{test}-{name}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = (file("cert", identity.cert.pem()), file("key", identity.signing_key.serialize_pem()));
        CertificateFiles { certificate, key, client_ca: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_10_s_whether_its_peer_sends_nothing_or_a_part() {
        let tls = Tls::read(files("handshake")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = HandshakeClient::Counted(AddressKey::of([192, 0, 2, 1].into()));
        for first in [&b""[..], b"\x16\x03\x01"] {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            peer.try_write(first).unwrap();
            let watchdog = Watchdog::new(Duration::from_secs(60), Budget::new(0), Metrics::new());
            let socket = watched_socket::wrap(listener.accept().await.unwrap().0, watchdog);
            let began = Instant::now();
            let error = accept(Some(&tls), client, socket).await.err().expect("no handshake");
            assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10), "{first:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_stays_unusable_is_counted_once_and_a_request_counts_it_again() {
        let files = files("unusable");
        let (tls, metrics, reload) = (Tls::read(files.clone()).unwrap(), Metrics::new(), Reload::default());
        let levels = Levels { streams: 0, mailboxes: 0, mailbox_bytes: 0, held_bytes: 0, watches: 0, unsent_bytes: 0 };
        let counts = || {
            let text = metrics.render(levels).unwrap();
            ["used", "refused"].map(|outcome| {
                let name = format!("signal_certificate_reloads_total{{outcome=\"{outcome}\"}} ");
                text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
            })
        };
        let steps = async {
            let many_intervals = Duration::from_secs(60);
            sleep(many_intervals).await;
            assert_eq!(counts(), [0, 0], "nothing has changed");
            let good = std::fs::read(&files.certificate).unwrap();
            std::fs::write(&files.certificate, &good[..good.len() / 2]).unwrap();
            sleep(many_intervals).await;
            assert_eq!(counts(), [0, 1], "half-written");
            std::fs::remove_file(&files.certificate).unwrap();
            sleep(many_intervals).await;
            assert_eq!(counts(), [0, 2], "removed");
            reload.request();
            sleep(many_intervals).await;
            assert_eq!(counts(), [0, 3], "requested");
            std::fs::write(&files.certificate, &good).unwrap();
            sleep(many_intervals).await;
            assert_eq!(counts(), [1, 3], "restored");
        };
        tokio::select! {
            () = tls.keep_current(reload.clone(), metrics.clone()) => {}
            () = steps => {}
        }
    }
}
