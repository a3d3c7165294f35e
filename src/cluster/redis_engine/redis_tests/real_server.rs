//! A real server of Redis or Valkey on a free port, with an administrator and with the user of the documentation.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::PathBuf,
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
    folder: PathBuf,
    child: Child,
}

impl RealServer {
    /// Starts a server with these lines in its configuration. `None`, with a line on standard error: it is not installed.
    pub(super) async fn start(program: &'static str, configuration: &str) -> Option<Self> {
        if Command::new(program).arg("--version").output().is_err() {
            #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
            let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!must, "with CI=true this test must run: {program} is not installed");
            // Not `eprint!`: the test harness hides its output.
            let _ = writeln!(std::io::stderr(), "\nSKIPPED: a test with {program}: it is not installed");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("backend-signal-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // A server cannot choose a free port itself. Another program may take this one first; then this tries again.
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = folder.join("server.conf");
            let text = format!(
                "bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\nuser {ACL}\n{configuration}\n",
                folder.display()
            );
            fs::write(&file, text).unwrap();
            let mut server = Self { port, program, child: spawn(program, &file), folder: folder.clone() };
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
        self.child = spawn(self.program, &self.folder.join("server.conf"));
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

fn spawn(program: &str, configuration: &std::path::Path) -> Child {
    let mut command = Command::new(program);
    command.arg(configuration).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// The rights of the documentation.
const ACL: &str = "node on >secret resetkeys ~bs:* resetchannels &bs:* -@all +evalsha +script|load +hget +hset +hdel +hgetall +hlen \
                   +expire +time +publish +subscribe +unsubscribe +info +ping +set";
