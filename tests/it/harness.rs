//! A server on a free port, and clients that speak its protocols.

pub mod balancer;
pub mod cli;
pub mod cut_proxy;
pub mod door;
pub mod event_stream;
pub mod every_protocol;
pub mod frames;
pub mod free_address;
pub mod grpc;
pub mod http1;
pub mod http2;
pub mod nginx;
pub mod nodes;
pub mod process;
pub mod proxy;
pub mod redis_server;
pub mod routes;
pub mod sentinels;
pub mod several;
pub mod sse;
pub mod tokens;
pub mod tunnel;
pub mod turn;

use std::{net::SocketAddr, ops::Deref, time::Duration};

use backend_signal::{
    app::App,
    config::{Arguments, Command},
    drain::{Died, Drain},
    reload::Reload,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

pub use self::{
    door::Door,
    event_stream::Event,
    free_address::{free_address, lasting_port},
    http1::{Connection, Response},
    process::Process,
    several::Several,
    sse::Sse,
};

/// How long a test waits for something that must come. Far longer than it takes, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running daemon, in this process. Several nodes behind a balancer, if [`several`] is told so.
pub struct Server {
    door: Door,
    pub drain: Drain,
    pub reload: Reload,
    running: JoinHandle<Result<(), Died>>,
    several: Option<Box<Several>>,
}

impl Server {
    /// With the default options.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With some options.
    pub async fn with(options: &[&str]) -> Self {
        let Some(mut several) = Box::pin(Several::start(options)).await else { return Self::alone(options).await };
        let (first, door) = (&several.nodes[0], *several.balancer);
        let (drain, reload) = (first.drain.clone(), first.reload.clone());
        let running = std::mem::replace(&mut several.nodes[0].running, tokio::spawn(async { Ok(()) }));
        Self { door, drain, reload, running, several: Some(Box::new(several)) }
    }

    async fn alone(options: &[&str]) -> Self {
        let options = [&["--port", "0", "--host", "127.0.0.1"], options].concat();
        let Ok(Command::Serve(options)) = Arguments::parse_args(options) else { panic!("options of serving") };
        let app = App::bind(*options).await.expect("a free port");
        let (door, drain, reload) = (Door { address: app.local_addrs()[0] }, app.drain(), app.reload());
        let running = tokio::spawn(app.run());
        Self { door, drain, reload, running, several: None }
    }

    /// Waits until the drain is complete.
    pub async fn stopped(self) {
        let others = self.several.map(|several| several.nodes).into_iter().flatten().map(|node| node.running);
        for running in others.chain([self.running]) {
            within(running).await.expect("no panic").expect("every task that must not die lives");
        }
    }
}

impl Deref for Server {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

/// A connection with a small receive buffer: when the test does not read, the server's socket is soon full.
pub async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a size");
    within(socket.connect(address)).await.expect("listens")
}

/// Waits for the future, at most for [`PATIENCE`].
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Asks again until the answer is as wished, at most for [`PATIENCE`].
pub async fn until<T, F: Future<Output = T>>(mut ask: impl FnMut() -> F, wish: impl Fn(&T) -> bool) -> T {
    within(async {
        loop {
            let answer = ask().await;
            if wish(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// The value of a counter or a gauge.
pub async fn metric(server: &Door, name: &str) -> u64 {
    let text = server.metrics().await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// The claim of `user/device`.
pub fn claim(device: &str) -> String {
    let (user, device) = device.split_once('/').expect("user/device");
    serde_json::json!({"userid": user, "clientid": device}).to_string()
}

/// The path that posts to `user/device`.
pub fn path(device: &str) -> String {
    let (user, device) = device.split_once('/').expect("user/device");
    format!("/user/{user}/device/{device}")
}

pub const FORM: &str = "application/x-www-form-urlencoded";
pub const JSON: &str = "application/json";
pub const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
