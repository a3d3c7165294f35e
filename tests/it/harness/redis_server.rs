//! A real Redis server, which a test can kill, freeze and start again.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::{lasting_port, process, within};

const IN_MEMORY: [&str; 6] = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];

/// A running server. It ends with this value.
pub struct RedisServer {
    pub address: SocketAddr,
    folder: String,
    options: Vec<String>,
    child: Child,
}

impl RedisServer {
    /// Starts an empty server on a free port. It writes no data to disk. `None`, with a line on standard error, if `redis-server` is
    /// not installed.
    pub async fn start() -> Option<Self> {
        Self::with(&[]).await
    }

    /// The same with more options.
    pub async fn with(options: &[&str]) -> Option<Self> {
        Self::run("redis", [&IN_MEMORY, options].concat(), "", lasting_port).await
    }

    /// Starts an empty server on this port of [`lasting_port`].
    pub async fn on(port: u16) -> Option<Self> {
        Self::run("redis", IN_MEMORY.to_vec(), "", || port).await
    }

    /// Starts a Sentinel with a configuration file.
    pub async fn sentinel(file: &str) -> Option<Self> {
        Self::run("sentinel", vec!["--sentinel"], file, lasting_port).await
    }

    async fn run(kind: &str, options: Vec<&str>, file: &str, port: impl Fn() -> u16) -> Option<Self> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            skipped();
            return None;
        }
        within(async {
            loop {
                let port = port();
                let folder = format!("{}/{kind}-{port}", env!("CARGO_TARGET_TMPDIR"));
                let _ = std::fs::remove_dir_all(&folder);
                std::fs::create_dir_all(&folder).expect("writable");
                std::fs::write(format!("{folder}/configuration"), file).expect("writable");
                let address = ([127, 0, 0, 1], port).into();
                let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
                let child = spawn(&folder, address, &options);
                let mut server = Self { address, folder, options, child };
                if server.answers().await {
                    return Some(server);
                }
            }
        })
        .await
    }

    /// The URL for a node.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Sends a command. Gives its answer as words.
    pub async fn command(&self, words: &[&str]) -> String {
        within(async {
            let stream = TcpStream::connect(self.address).await.expect("listens");
            command(stream, words).await.expect("an answer")
        })
        .await
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        process::signal(&self.child, name);
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }

    /// Starts it again on the same port, with what it has saved last.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.folder, self.address, &self.options);
        assert!(within(self.answers()).await, "the port is free");
    }

    /// Starts it again on the same port without data.
    pub async fn restart_empty(&mut self) {
        let _ = std::fs::remove_file(format!("{}/dump.rdb", self.folder));
        self.restart().await;
    }

    /// Waits until it answers. False when it has ended.
    async fn answers(&mut self) -> bool {
        loop {
            if let Ok(stream) = TcpStream::connect(self.address).await
                && command(stream, &["PING"]).await.is_ok_and(|answer| answer == "PONG" || answer.starts_with("NOAUTH"))
            {
                return true;
            }
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(folder: &str, address: SocketAddr, options: &[String]) -> Child {
    let log = std::fs::File::options().append(true).create(true).open(format!("{folder}/log")).expect("writable");
    let mut command = Command::new("redis-server");
    command.arg(format!("{folder}/configuration")).args(["--port", &address.port().to_string()]);
    command.args(["--bind", "127.0.0.1", "--dir", folder]).args(options);
    command.stdin(Stdio::null()).stdout(log).spawn().expect("redis-server")
}

/// One command and its answer.
async fn command(mut stream: TcpStream, words: &[&str]) -> std::io::Result<String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.extend([&format!("${}\r\n", word.len()), *word, "\r\n"]);
    }
    stream.write_all(request.as_bytes()).await?;
    answer(&mut BufReader::new(stream)).await
}

/// Reads an answer (RESP2). Arrays become words; nothing becomes an empty word.
async fn answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let (mut words, mut left) = (Vec::new(), 1_usize);
    while left > 0 {
        left -= 1;
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        match (kind, rest.parse::<usize>()) {
            ("*", count) => left += count.unwrap_or(0),
            ("$", Err(_)) => words.push(String::new()),
            ("$", Ok(length)) => {
                let mut text = vec![0; length + 2];
                stream.read_exact(&mut text).await?;
                words.push(String::from_utf8_lossy(&text[..length]).into_owned());
            }
            _ => words.push(rest.to_owned()),
        }
    }
    Ok(words.join(" "))
}

fn skipped() {
    #[expect(clippy::disallowed_methods, reason = "CI must have the tools")]
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must, "with CI=true this test must run: redis-server is not installed");
    // Not `eprint!`: the test harness hides its output.
    let _ = std::io::stderr().write_all(b"\nSKIPPED: a test with Redis: redis-server is not installed\n");
}
