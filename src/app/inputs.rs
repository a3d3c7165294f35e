//! Reads what options point to: files, and the addresses of the host. This happens before the daemon listens, so
//! that `check-config` finds the same faults as a start.

use std::{fmt::Display, io, net::SocketAddr, sync::Arc};

use super::{max_connections::MaxConnections, redis_setup::Redis, start_report, token_setup};
use crate::{
    auth::Tokens,
    config::{Endpoint, IceOptions, ServeOptions},
    drain::Drain,
    ice::{IceServers, Turn, TurnSecret},
    key_refresh::KeyRefresh,
    serve::{CertificateFile, CertificateFiles, Tls},
};

/// Everything that is read before the daemon listens.
pub(super) struct Inputs {
    pub(super) tls: Option<Tls>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) max_connections: MaxConnections,
    /// What verifies tokens, and the task that reads its keys again.
    pub(super) tokens: Option<(Tokens, KeyRefresh)>,
    pub(super) ice: Arc<IceServers>,
    /// Where other nodes are met.
    pub(super) redis: Option<Redis>,
}

impl Inputs {
    /// The error names the option, so that the reader also learns which variable its value came from.
    pub(super) async fn read(options: &ServeOptions, drain: &Drain) -> io::Result<Self> {
        let max_connections = MaxConnections::new(options.max_connections)?;
        let tls = certificate_files(options).map(read_tls).transpose()?;
        let tokens = token_setup::tokens(options, drain)?;
        let ice = Arc::new(ice_servers(&options.ice)?);
        let addresses = resolve(&options.endpoint).await?;
        if let Some(address) = addresses.iter().find(|address| options.dev && !is_loopback(address)) {
            let address = address.ip().to_canonical();
            return Err(io::Error::other(format!(
                "--dev identifies nobody, so it serves only this machine: --host must be a loopback address, and {address} is none"
            )));
        }
        // Last, because it can take a second.
        let redis = Redis::read(&options.nodes).await?;
        Ok(Self { tls, addresses, max_connections, tokens, ice, redis })
    }

    /// Everything that an operator should look into.
    pub(super) fn warnings(&self, options: &ServeOptions) -> Vec<String> {
        let mut warnings = start_report::warnings(options, &self.addresses);
        warnings.extend(self.max_connections.warning());
        warnings.extend(self.tokens.as_ref().and_then(|(_, refresh)| refresh.warning()).map(str::to_owned));
        warnings.extend(self.ice.turn.as_ref().filter(|turn| turn.secret.is_short()).map(|_| SHORT_SECRET.to_owned()));
        warnings.extend(self.redis.iter().flat_map(|redis| redis.warnings.clone()));
        warnings
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The addresses of the host, each once.
async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    let host = endpoint.host.as_str();
    let found = tokio::net::lookup_host((host, endpoint.port))
        .await
        .map_err(|error| about(&format!("--host {host}"), &error))?;
    for address in found {
        // A hosts file may name an address several times.
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn certificate_files(options: &ServeOptions) -> Option<CertificateFiles> {
    let (certificate, key) = (options.endpoint.tls_cert.clone()?, options.tls_key.clone()?);
    Some(CertificateFiles { certificate, key, client_ca: options.tls_client_ca.clone() })
}

/// The error of a file names its option.
fn read_tls(files: CertificateFiles) -> io::Result<Tls> {
    Tls::read(files).map_err(|error| {
        let option = match error.file() {
            CertificateFile::Certificate => "--tls-cert",
            CertificateFile::Key => "--tls-key",
            CertificateFile::ClientCa => "--tls-client-ca",
        };
        about(option, &error)
    })
}

fn ice_servers(options: &IceOptions) -> io::Result<IceServers> {
    let secret = options.turn_secret_file.clone().map(TurnSecret::read).transpose();
    let secret = secret.map_err(|error| about("--turn-secret-file", &error))?;
    let turn = secret.map(|secret| Turn { urls: options.turn.clone(), secret, ttl: options.turn_ttl });
    Ok(IceServers { stun: options.stun.clone(), turn })
}

/// The error of a start that cannot listen.
pub(super) fn cannot_listen(Endpoint { host, port, .. }: &Endpoint, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on --host {host} --port {port}: {error}"))
}

/// The error of what an option names. It names the option, so that the reader also learns which variable its value came from.
pub(super) fn about(option: &str, error: &dyn Display) -> io::Error {
    io::Error::other(format!("{option}: {error}"))
}

const SHORT_SECRET: &str = "the secret in --turn-secret-file is shorter than 16 bytes: whoever gets credentials once can find it by \
                            trying, and then make credentials without end. `openssl rand -hex 32` makes a good one";
