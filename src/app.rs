//! The only place where rooms are joined: configuration in, a running daemon out.

mod front;
mod router;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use self::front::Front;
use crate::{
    admin::Admin,
    auth::{self, Auth},
    budget::Budget,
    config::{AuthMode, Config, RequireClaim},
    drain::Drain,
    grpc,
    http::{self, Api},
    hub::{Hub, Limits, Local},
    serve::{self, Identity, Server, Tls},
    telemetry::Metrics,
};

/// A bound daemon that does not serve yet.
pub struct App {
    server: Server,
    address: SocketAddr,
    front: Front,
    hub: Hub,
    health: tonic_health::server::HealthReporter,
    metrics: Metrics,
    drain: Drain,
    config: Config,
}

impl App {
    /// Joins the rooms and listens.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn bind(config: Config) -> io::Result<Self> {
        let (metrics, drain) = (Metrics::new(), Drain::new());
        let budget = Budget::new(config.memory_budget);
        let server = Server::bind(resolve(&config)?, serving(&config, budget.clone())?, metrics.clone())?;
        let address = server.local_addr()?;
        let limits = Limits {
            stall: Duration::from_secs(86_400),
            resume_window: config.resume_window,
            hold: config.hold_limit,
            memory_budget: config.memory_budget,
        };
        let hub = Hub::new(limits, Local, metrics.clone());
        let auth = Arc::new(authentication(&config));
        let (health, health_service) = tonic_health::server::health_reporter();
        let settings = http::Settings {
            body_limit: config.body_limit as usize,
            body_timeout: config.body_timeout,
            heartbeat: config.heartbeat,
        };
        let api = Api { hub: hub.clone(), auth: auth.clone(), metrics: metrics.clone(), settings };
        let service = grpc::Service {
            hub: hub.clone(),
            auth,
            metrics: metrics.clone(),
            heartbeat: config.heartbeat,
            drain: drain.clone(),
        };
        let signal = grpc::signal(service, config.body_limit as usize);
        let grpc = grpc::routes(signal.clone(), health_service).map_err(io::Error::other)?;
        let admin = Admin { hub: hub.clone(), metrics: metrics.clone(), budget, drain: drain.clone() };
        let front = router::join(api, signal, grpc, admin, &config.cors_origins);
        Ok(Self { server, address, front, hub, health, metrics, drain, config })
    }

    /// The address that is listened on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Every metric of this daemon.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The handle that stops this daemon.
    #[must_use]
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Serves until [`Drain::start`] was called and everything has ended.
    pub async fn run(self) {
        let Self { server, front, hub, health, drain, config, .. } = self;
        grpc::report(&health, true).await;
        drain.spawn_endless(hub.clone().tend(config.heartbeat));
        drain.spawn(server.run(front, drain.clone()));
        drain.started().await;
        tracing::info!(streams = hub.census().streams, "draining");
        grpc::report(&health, false).await;
        // The rest of the window is for the last streams to be written.
        hub.drain(config.drain_window.mul_f64(0.9)).await;
        drain.finish();
        let whole = drain.wait(config.drain_window.mul_f64(0.1).max(LAST_BYTES)).await;
        tracing::info!(whole, "stopped");
    }
}

fn resolve(config: &Config) -> io::Result<SocketAddr> {
    let mut addresses = (config.host.as_str(), config.port).to_socket_addrs()?;
    addresses.next().ok_or_else(|| io::Error::other("the host has no address"))
}

/// Raises the soft limit of descriptors to the hard one, and leaves some to everything that is no connection.
fn serving(config: &Config, budget: Budget) -> io::Result<serve::Settings> {
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
    let most = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX).max(1);
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::read(Identity { certificate, key })?),
        _ => None,
    };
    Ok(serve::Settings {
        tls,
        max_connections: config.max_connections.unwrap_or(most),
        http1_takeover: config.http1_takeover,
        max_streams: config.max_streams,
        header_timeout: config.header_timeout,
        stall: config.stall_timeout,
        http2_idle: HTTP2_IDLE,
        budget,
    })
}

fn authentication(config: &Config) -> Auth {
    Auth {
        mode: match config.auth {
            AuthMode::None => auth::Mode::None,
            // A configuration with `jwt` does not come this far.
            AuthMode::Claim | AuthMode::Jwt => auth::Mode::Claim,
        },
        require_all: config.require_claim == RequireClaim::All,
        trusted_proxies: config.trusted_proxies.clone(),
    }
}

/// How long a connection of HTTP/2 may stand without a stream; a browser's own is shorter or as long.
const HTTP2_IDLE: Duration = Duration::from_secs(60);

/// Descriptors for the log, the listener and whatever a library opens.
const OTHER_DESCRIPTORS: u64 = 512;

/// How long connections may take to write what is in hand after all streams have ended, at least.
const LAST_BYTES: Duration = Duration::from_secs(1);
