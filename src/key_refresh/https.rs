//! Fetches one small document over https.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use http::{Request, StatusCode, Uri, header};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use tokio_rustls::rustls::{ClientConfig, crypto::ring};

use crate::{drain::Drain, wall_clock::RustlsClock};

/// A client that trusts the system's authorities, keeps no connection, and follows no redirect.
pub(super) struct HttpsClient(Client<HttpsConnector<HttpConnector>, String>);

impl HttpsClient {
    pub(super) fn new(drain: Drain) -> io::Result<Self> {
        let tls = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(RustlsClock));
        let tls = tls.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let tls = tls.with_native_roots()?.with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Ok(Self(Client::builder(drain).pool_max_idle_per_host(0).build(connector)))
    }

    /// Fetches a document. An error if it is larger than `largest` bytes or does not come in time.
    pub(super) async fn get(&self, uri: &Uri, largest: usize) -> Result<Vec<u8>, String> {
        let request = Request::get(uri).header(header::ACCEPT, "application/json").body(String::new());
        let request = request.map_err(|error| error.to_string())?;
        let fetch = async {
            let response = self.0.request(request).await.map_err(|error| with_causes(&error))?;
            if response.status() != StatusCode::OK {
                return Err(format!("the answer has the status {}", response.status()));
            }
            read(response.into_body(), largest).await
        };
        tokio::time::timeout(PATIENCE, fetch).await.map_err(|_| "no whole answer within 5 s".to_owned())?
    }
}

async fn read(mut body: Incoming, largest: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| with_causes(&error))?;
        bytes.extend(frame.into_data().unwrap_or_default());
        if bytes.len() > largest {
            return Err(format!("larger than {largest} bytes"));
        }
    }
    Ok(bytes)
}

/// An error with its causes: the outermost error says only that the connection failed.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// How long the whole answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
