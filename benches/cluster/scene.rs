//! A Redis, the nodes that use it, and a daemon without either.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
    time::Instant,
};

use crate::{Wishes, servers::Running};

/// The processes of a run.
pub struct Scene {
    pub nodes: Vec<Running>,
    pub alone: Running,
    // Last, so that it ends last.
    pub redis: Running,
}

impl Scene {
    /// Starts them. The nodes know which devices are nowhere.
    pub fn start(wishes: &Wishes, nodes: usize) -> io::Result<Self> {
        let redis = redis()?;
        let url = format!("redis://{}", redis.address);
        let nodes = (0..nodes).map(|_| daemon(wishes, &["--redis", &url])).collect::<io::Result<Vec<_>>>()?;
        let scene = Self { nodes, alone: daemon(wishes, &[])?, redis };
        runtime()?.block_on(async {
            for node in &scene.nodes {
                certain(node.address).await?;
            }
            Ok(scene)
        })
    }

    /// What all processes of the cluster have used so far.
    pub fn cpu(&self) -> io::Result<Duration> {
        self.nodes.iter().chain([&self.redis]).map(Running::cpu).sum()
    }
}

/// A daemon that the load may leave alone for longer than a client should.
pub fn daemon(wishes: &Wishes, options: &[&str]) -> io::Result<Running> {
    Running::daemon(&wishes.daemon, &[&["--header-timeout", "600", "--heartbeat", "600"], options].concat())
}

fn redis() -> io::Result<Running> {
    // Another program may take the port first. Then Redis ends, and the run with it.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new("redis-server");
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let mut redis = Running::adopt(command.stdin(Stdio::null()).stdout(Stdio::null()), address)?;
    redis.until(|_| TcpStream::connect(address).ok())?;
    Ok(redis)
}

/// Waits until a node says of a device that is nowhere that it is not connected.
async fn certain(address: SocketAddr) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let mut connection = tokio::net::TcpStream::connect(address).await?;
        let head = "POST /user/nobody/device/nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: 6\r\n\r\ndata=x";
        connection.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        if answer.starts_with(b"HTTP/1.1 404") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(io::Error::other("the node did not link with Redis"))
}

/// One thread for the load, which sleeps when it has nothing to do: the servers need the processors.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
