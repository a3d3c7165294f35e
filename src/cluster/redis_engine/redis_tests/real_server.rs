//! A real server of Redis or Valkey on a free port, with an administrator and with the user of the documentation.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use redis::{Cmd, Value, aio::MultiplexedConnection};

use super::within;

/// The programs that the tests run on.
pub(super) const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// A running server. It ends with this value.
pub(super) struct RealServer {
    pub(super) port: u16,
    program: &'static str,
    option: Option<&'static str>,
    folder: PathBuf,
    child: Child,
}

impl RealServer {
    /// Starts a server with these lines in its configuration. `None`, with a line on standard error: it is not installed.
    pub(super) async fn start(program: &'static str, configuration: &str) -> Option<Self> {
        Self::launch(program, &format!("save \"\"\n{}\n{configuration}", user_line()), None).await
    }

    /// Starts a Sentinel.
    pub(super) async fn sentinel(program: &'static str, configuration: &str) -> Option<Self> {
        Self::launch(program, configuration, Some("--sentinel")).await
    }

    async fn launch(program: &'static str, configuration: &str, option: Option<&'static str>) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !is_installed(program) {
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("backend-signal-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // A server cannot choose a free port itself. Another program may take this one first; then this tries again.
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = folder.display();
            let text = format!("bind 127.0.0.1\nport {port}\ndir {dir}\nlogfile {dir}/log\n{configuration}\n");
            fs::write(folder.join("server.conf"), text).unwrap();
            let child = spawn(program, &folder, option);
            let mut server = Self { port, program, option, folder: folder.clone(), child };
            if within(server.is_up()).await {
                return Some(server);
            }
        }
    }

    /// The URL of the user that has only the rights of the documentation.
    pub(super) fn url(&self) -> String {
        format!("redis://node:secret@127.0.0.1:{}", self.port)
    }

    pub(super) async fn admin(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Runs a command as the administrator.
    pub(super) async fn run(&self, command: &[&str]) -> Value {
        let mut words = Cmd::new();
        words.arg(command);
        words.query_async(&mut self.admin().await).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// The texts of the answer.
    pub(super) async fn text(&self, command: &[&str]) -> String {
        format!("{:?}", self.run(command).await)
    }

    /// Waits until so many replicas follow.
    pub(super) async fn replicas(&self, count: usize) {
        within(async {
            while self.text(&["INFO", "replication"]).await.matches("state=online").count() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    pub(super) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "{signal}");
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again on the same port, after [`RealServer::kill`].
    pub(super) async fn restart(&mut self) {
        self.child = spawn(self.program, &self.folder, self.option);
        assert!(within(self.is_up()).await, "the port is taken");
    }

    /// `false`: the process has ended.
    async fn is_up(&mut self) -> bool {
        loop {
            let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
            if client.get_multiplexed_async_connection().await.is_ok() {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spawn(program: &str, folder: &Path, option: Option<&str>) -> Child {
    let mut command = Command::new(program);
    command.arg(folder.join("server.conf")).args(option).stdin(Stdio::null());
    command.spawn().unwrap()
}

fn is_installed(program: &str) -> bool {
    let is_installed = Command::new(program).arg("--version").output().is_ok();
    if !is_installed {
        #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
        let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!must, "with CI=true this test must run: {program} is not installed");
        // Not `eprint!`: the test harness hides its output.
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: a test with {program}: it is not installed");
    }
    is_installed
}

/// The line of the documentation that makes the user, with a password.
fn user_line() -> String {
    let page = include_str!("../../../../docs/cluster.md");
    let line = page.lines().find(|line| line.starts_with("user node ")).expect("the rights");
    line.replace(">PASSWORD", ">secret")
}
