//! Plain connections on one side and TLS on the other, so that every client of the harness can speak to a server with TLS.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

/// A running tunnel, for a server that is called `localhost`.
pub struct Tunnel {
    /// The address for plain connections.
    pub address: SocketAddr,
    accepting: AbortHandle,
}

impl Tunnel {
    /// Closes a plain connection when its handshake fails.
    pub async fn open(server: SocketAddr, connector: TlsConnector) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let accepting = tokio::spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let socket = TcpStream::connect(server).await?;
                    let name = "localhost".try_into().expect("a name");
                    copy_bidirectional(&mut plain, &mut connector.connect(name, socket).await?).await
                });
            }
        });
        Self { address, accepting: accepting.abort_handle() }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Trusts one certificate. May present one of its own, with its key.
pub fn connector(
    root: &CertificateDer<'static>,
    client: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
    let config = match client {
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).expect("a key"),
        None => config.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}
