//! Builds the daemon from its options: makes each room and hands it what it needs. No other room does this.

mod caching;
mod clustering;
mod cors;
mod cross_site;
mod dispatch;
mod failed_identities;
mod head_checks;
mod inputs;
mod link_log;
mod max_connections;
mod node_table;
mod redis_setup;
mod room_settings;
mod router;
mod start_report;
mod token_setup;

use std::{io, net::SocketAddr, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use self::{
    clustering::OtherNodes, dispatch::Dispatch, failed_identities::FailedIdentities, inputs::Inputs,
    start_report::SetUp,
};
use crate::{
    admin::Admin,
    budget::Budget,
    config::{Given, ServeOptions},
    drain::{Died, Drain},
    grpc,
    hub::Hub,
    ice::IceServers,
    key_refresh::KeyRefresh,
    limits::{ClientAddresses, IdentityFailures},
    reload::Reload,
    rest::Api,
    serve::Server,
    telemetry::Metrics,
    terminal,
};

/// A bound daemon that does not serve yet.
pub struct App {
    server: Server,
    addresses: Vec<SocketAddr>,
    dispatch: Dispatch,
    hub: Hub,
    health: tonic_health::server::HealthReporter,
    metrics: Metrics,
    drain: Drain,
    reload: Reload,
    warnings: Vec<String>,
    key_refresh: Option<KeyRefresh>,
    ice: Arc<IceServers>,
    nodes: Option<OtherNodes>,
    options: ServeOptions,
}

/// A configuration that is valid.
pub struct Checked {
    /// One line that says what decides who can use the daemon.
    pub set_up: String,
    /// A line for each thing that an operator should look into.
    pub warnings: Vec<String>,
}

impl Checked {
    /// Writes it for a person.
    #[must_use]
    pub fn confirm(self) -> ExitCode {
        terminal::confirm(&self.set_up, &self.warnings)
    }
}

impl App {
    /// Joins the rooms and listens on every address of the host.
    ///
    /// # Errors
    /// When an address cannot be listened on, or a certificate or key cannot be read.
    pub async fn bind(options: ServeOptions) -> io::Result<Self> {
        let given = options.given.clone();
        Self::listen(options).await.map_err(|error| with_variables(&given, &error))
    }

    async fn listen(options: ServeOptions) -> io::Result<Self> {
        let (metrics, drain, budget) = (Metrics::new(), Drain::new(), Budget::new(options.memory_budget));
        let mut inputs = Inputs::read(&options, &drain).await?;
        let (warnings, ice) = (inputs.warnings(&options), inputs.ice.clone());
        let (tokens, key_refresh) = inputs.tokens.take().unzip();
        let nodes = inputs.redis.take().map(|redis| OtherNodes::new(redis.server, &drain, &metrics));
        let keys = key_refresh.as_ref().map(KeyRefresh::keys);
        let clients =
            ClientAddresses::new(options.trusted_proxies.clone(), options.client_address, options.address_limits);
        let hosts = inputs.addresses.clone();
        let server = Server::bind(
            &hosts,
            room_settings::of_serve(&options, inputs, budget.clone(), clients.clone()),
            metrics.clone(),
        );
        let server = server.map_err(|error| inputs::cannot_listen(&options.endpoint, &error))?;
        let addresses = server.local_addrs()?;
        let limits = room_settings::of_hub(&options, clients.clone());
        let hub = clustering::hub(nodes.as_ref(), limits, budget.clone(), metrics.clone());
        if let (Some(nodes), Some(tokens)) = (&nodes, &tokens) {
            tokens.tickets.share_with(Arc::new(nodes.clone()));
        }
        let auth = Arc::new(room_settings::of_auth(&options, tokens, metrics.clone()));
        let (health, health_service) = grpc::health_service();
        let settings = room_settings::of_rest(&options);
        let api = Api { hub: hub.clone(), ice: ice.clone(), auth: auth.clone(), metrics: metrics.clone(), settings };
        let service = grpc::SignalMethods {
            hub: hub.clone(),
            ice: ice.clone(),
            heartbeat: options.heartbeat,
            drain: drain.clone(),
        };
        let signal = grpc::signal_service(service, auth, options.body_limit as usize);
        let grpc = grpc::routes(signal.clone(), health_service).map_err(io::Error::other)?;
        let cluster = nodes.as_ref().map(OtherNodes::cluster);
        let admin = Admin { hub: hub.clone(), metrics: metrics.clone(), budget, drain: drain.clone(), keys, cluster };
        let failed = FailedIdentities {
            failures: IdentityFailures::new(options.identity_failures, clients.clone()),
            metrics: metrics.clone(),
            drain: drain.clone(),
        };
        let dispatch = router::join(api, signal, grpc, admin, &options, clients, failed);
        let reload = Reload::default();
        Ok(Self {
            server,
            addresses,
            dispatch,
            hub,
            health,
            metrics,
            drain,
            reload,
            warnings,
            key_refresh,
            ice,
            nodes,
            options,
        })
    }

    /// Does what [`App::bind`] does up to the point where it would listen. Returns what a start would log.
    ///
    /// # Errors
    /// When a host name has no address, or a certificate or key cannot be read.
    pub fn check(options: &ServeOptions) -> io::Result<Checked> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inputs = runtime.block_on(Inputs::read(options, &Drain::new()));
        let inputs = inputs.map_err(|error| with_variables(&options.given, &error))?;
        let mut set_up = SetUp::of(options).to_string();
        if let Some(name) = inputs.redis.as_ref().and_then(|redis| redis.name.as_ref()) {
            set_up = format!("{set_up} redis={name:?}");
        }
        Ok(Checked { set_up, warnings: inputs.warnings(options) })
    }

    /// Logs how the daemon is set up, what an operator should look into, and where it listens.
    pub fn report(&self) {
        SetUp::of(&self.options).log();
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if let Some(console) = start_report::console(&self.options, &self.addresses) {
            tracing::info!("the console is at {console}");
        }
        self.addresses.iter().for_each(|address| tracing::info!("listening on {address}"));
    }

    /// The addresses that are listened on: at least one, and all with the same port.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
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

    /// The handle that has certificates and keys read again.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Serves until the drain starts. Then waits for all tasks to end, for about the drain window.
    ///
    /// # Errors
    /// When a task that must not die died. The daemon has drained by then.
    pub async fn run(self) -> Result<(), Died> {
        Box::pin(self.run_with(|_, task| task)).await
    }

    /// Tests pass a `replace` that makes a supervised task end or panic.
    async fn run_with(self, replace: impl Fn(&'static str, Task) -> Task) -> Result<(), Died> {
        let Self { server, dispatch, hub, health, drain, metrics, reload, key_refresh, ice, nodes, options, .. } = self;
        grpc::set_health(&health, true).await;
        let mut supervised: Vec<(&str, Task)> =
            vec![(TIMEKEEPER, Box::pin(hub.clone().keep_time())), (WATCHDOG, Box::pin(server.run_watchdog()))];
        if let Some(task) = server.keep_certificates_current(reload.clone()) {
            supervised.push((CERTIFICATES, Box::pin(task)));
        }
        if let Some(turn) = &ice.turn {
            let task = turn.secret.clone().keep_current(reload.clone(), metrics.clone());
            supervised.push((TURN_SECRET, Box::pin(task)));
        }
        supervised.extend(nodes.clone().map(|nodes| (LINK, Box::pin(nodes.run()) as Task)));
        supervised.push((ACCEPT_LOOP, Box::pin(accept(server, dispatch, nodes.clone(), drain.clone()))));
        supervised.extend(key_refresh.map(|refresh| (KEY_REFRESH, Box::pin(refresh.run(reload, metrics)) as Task)));
        for (name, task) in supervised {
            drain.supervise(name, replace(name, task));
        }
        drain.started().await;
        tracing::info!(streams = hub.census().streams, "draining");
        grpc::set_health(&health, false).await;
        let end = Instant::now() + options.drain_window;
        if let Some(nodes) = &nodes {
            nodes.begin_leaving().await;
        }
        hub.drain(end.saturating_duration_since(Instant::now())).await;
        // Requests that came before the drain have the whole window, also when no stream is open.
        let _window_is_over = tokio::join!(timeout_at(end, drain.wait_for_work()), async {
            if let Some(nodes) = nodes {
                nodes.leave(end.saturating_duration_since(Instant::now()) + LAST_BYTES).await;
            }
        });
        drain.begin_hard_stop();
        let all_tasks_ended = drain.wait_for_tasks(LAST_BYTES).await;
        tracing::info!(all_tasks_ended, "stopped");
        drain.died().map_or(Ok(()), Err)
    }
}

async fn accept(server: Server, dispatch: Dispatch, nodes: Option<OtherNodes>, drain: Drain) {
    if let Some(nodes) = nodes {
        nodes.wait_for_link().await;
    }
    server.run(dispatch, drain).await;
}

fn with_variables(given: &Given, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), given.with_variables(&error.to_string()))
}

/// A task that must not die.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The names of the tasks that must not die.
const TIMEKEEPER: &str = "timekeeper of the hub";
const WATCHDOG: &str = "write watchdog";
const CERTIFICATES: &str = "reader of changed certificates";
const LINK: &str = "link to other nodes";
const TURN_SECRET: &str = "reader of a changed secret of TURN";
const ACCEPT_LOOP: &str = "accept loop";
const KEY_REFRESH: &str = "refresh of the keys of tokens";

/// After the drain window, connections get this long to write their last bytes and to close.
const LAST_BYTES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::Notify,
    };

    use super::*;
    use crate::config::{Arguments, Command};

    /// Sends a request on a new connection; gives the connection and the beginning of the response.
    async fn ask(address: SocketAddr, request: &str) -> (TcpStream, String) {
        let mut connection = TcpStream::connect(address).await.expect("listens");
        connection.write_all(format!("{request}\r\nhost: x\r\n\r\n").as_bytes()).await.expect("open");
        let mut status = [0; 12];
        connection.read_exact(&mut status).await.expect("an answer");
        (connection, String::from_utf8_lossy(&status).into_owned())
    }

    /// How a daemon with 20 streams ends when one of its supervised tasks panics or returns.
    async fn outcome(victim: &'static str, panics: bool) -> Result<(), Died> {
        let options = ["--port", "0", "--host", "127.0.0.1", "--drain-window", "1"];
        let Ok(Command::Serve(options)) = Arguments::parse_args(options) else { panic!("options of serving") };
        let app = App::bind(*options).await.expect("a free port");
        let (address, drain, kill) = (app.local_addrs()[0], app.drain(), Arc::new(Notify::new()));
        let killed = kill.clone();
        let running = app.run_with(move |name, task| {
            let killed = killed.clone();
            let dies = async move {
                tokio::select! {
                    () = task => {}
                    () = killed.notified(), if name == victim => assert!(!panics, "as if by a bug"),
                }
            };
            Box::pin(dies)
        });
        let seen = async {
            let mut streams = Vec::new();
            for user in 0..20 {
                let claim = format!(r#"x-user-claim: {{"userid":{user},"clientid":1}}"#);
                let (stream, status) = ask(address, &format!("GET /subscribe HTTP/1.1\r\n{claim}")).await;
                assert_eq!(status, "HTTP/1.1 200");
                streams.push(stream);
            }
            assert_eq!(ask(address, "GET /readyz HTTP/1.1").await.1, "HTTP/1.1 200");
            kill.notify_one();
            drain.started().await;
            if victim != ACCEPT_LOOP {
                assert_eq!(ask(address, "GET /readyz HTTP/1.1").await.1, "HTTP/1.1 503");
            }
            let mut rest = String::new();
            streams.swap_remove(0).read_to_string(&mut rest).await.expect("UTF-8");
            assert!(rest.contains("draining"), "{rest}");
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(running, seen).0 }).await.expect("in time")
    }

    #[tokio::test]
    async fn a_daemon_drains_and_ends_with_an_error_when_a_task_that_must_not_die_panics() {
        for task in [TIMEKEEPER, WATCHDOG, ACCEPT_LOOP] {
            assert_eq!(outcome(task, true).await, Err(Died { task }));
        }
    }

    #[tokio::test]
    async fn a_daemon_drains_and_ends_with_an_error_when_a_task_that_must_not_die_ends() {
        for task in [TIMEKEEPER, WATCHDOG, ACCEPT_LOOP] {
            assert_eq!(outcome(task, false).await, Err(Died { task }));
        }
    }
}
