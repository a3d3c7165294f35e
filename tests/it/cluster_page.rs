//! The commands of `docs/cluster.md` and of the README's part about more than one node, run as they are written.

use std::{os::unix::process::CommandExt as _, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};

use crate::harness::{Door, lasting_port, redis_server::RedisServer, until, within};

const PAGE: &str = include_str!("../../docs/cluster.md");
const README: &str = include_str!("../../README.md");

/// The blocks of a kind in a page.
fn blocks(page: &'static str, kind: &str) -> Vec<&'static str> {
    let starts = page.split("```").skip(1).step_by(2);
    starts.filter_map(|block| block.strip_prefix(kind)?.strip_prefix('\n')).collect()
}

/// The section that starts a Redis and two nodes.
fn set_up(page: &'static str) -> &'static str {
    let blocks = blocks(page, "sh");
    blocks.into_iter().find(|block| block.contains("--redis redis://localhost")).expect("two commands")
}

/// The nodes of the page, in a group of processes that ends with this value.
struct Started {
    shell: std::process::Child,
}

impl Started {
    fn new(commands: &str) -> Self {
        let mut shell = std::process::Command::new("/bin/sh");
        // The shell stays, so that its group stays.
        shell.args(["-c", &format!("{commands}\nwait")]).env_remove("PORT").process_group(0);
        Self { shell: shell.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell") }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let group = format!("-{}", self.shell.id());
        let _ = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.shell.wait();
    }
}

struct Running {
    output: BufReader<ChildStdout>,
    _child: Child,
}

impl Running {
    fn start(command: &str) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = shell.spawn().expect("a shell");
        Self { output: BufReader::new(child.stdout.take().expect("standard output")), _child: child }
    }

    /// Waits for these lines, in this order. `...` stands for anything.
    async fn expect(&mut self, expected: &[&str]) {
        let mut seen = String::new();
        for wanted in expected {
            let mut from = seen.len();
            let has = |line: &str| {
                let mut parts = wanted.split("...");
                parts.try_fold(line, |rest, part| Some(rest.split_once(part.trim())?.1)).is_some()
            };
            while !has(&seen[from..]) {
                from = seen.len();
                let length = within(self.output.read_line(&mut seen)).await.expect("UTF-8");
                assert!(length > 0, "ended without {wanted:?} after\n{seen}");
            }
        }
    }
}

#[test]
fn the_readme_starts_two_nodes_as_the_page_does() {
    assert_eq!(set_up(README), set_up(PAGE));
    let first = set_up(PAGE).lines().next().expect("a command");
    assert_eq!(first, r#"redis-server --save "" --daemonize yes && cargo build --release"#);
}

#[tokio::test]
async fn every_command_of_the_page_does_what_it_says() {
    let Some(redis) = RedisServer::start().await else { return };
    let ports = [lasting_port(), lasting_port()].map(|port| port.to_string());
    let here = |text: &str| {
        let text = text.replace("target/release/backend-signal", env!("CARGO_BIN_EXE_backend-signal"));
        let text = text.replace("redis://localhost", &redis.url());
        text.replace("1837", &ports[0]).replace("1838", &ports[1]).replace("localhost", "127.0.0.1")
    };
    // The test has its own Redis and its own build.
    let (_, nodes) = set_up(PAGE).split_once('\n').expect("two commands");
    let nodes = Started::new(&here(nodes));
    for port in &ports {
        let door = Door { address: format!("127.0.0.1:{port}").parse().expect("an address") };
        within(async {
            while tokio::net::TcpStream::connect(door.address).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        door.linked().await;
        until(|| door.metrics(), |text| text.contains(r#"signal_cluster_nodes{phase="up"} 2"#)).await;
        door.certain().await;
    }
    let (mut streams, examples) = (Vec::new(), blocks(PAGE, "console"));
    assert_eq!(examples.len(), 5);
    for example in examples {
        let mut lines = example.lines();
        let command = here(lines.next().and_then(|line| line.strip_prefix("$ ")).expect("a command after `$ `"));
        let expected: Vec<_> = lines.collect();
        let mut running = Running::start(&command);
        if command.contains("/subscribe") {
            // Its last line is a message that a later command sends.
            let (message, opening) = expected.split_last().expect("lines");
            running.expect(opening).await;
            streams.push((running, *message));
        } else {
            running.expect(&expected).await;
        }
    }
    assert_eq!(streams.len(), 1);
    for (mut stream, message) in streams {
        stream.expect(&[message]).await;
    }
    drop(nodes);
    everything_is_deleted(&redis);
}

/// The command that deletes the keys, with a space, a quotation mark and the zero byte of a tenant in them.
fn everything_is_deleted(redis: &RedisServer) {
    let client = format!("redis-cli -p {}", redis.address.port());
    let command = blocks(PAGE, "sh").into_iter().find(|block| block.contains("UNLINK")).expect("a command");
    let command = command.replace("redis-cli", &client);
    let script = format!(
        "{client} set 'bs:d:a \"b' 1\n{client} eval \"redis.call('SET', 'bs:d:shop\\\\0bob', 1)\" 0\n{command}{client} dbsize"
    );
    let output = std::process::Command::new("/bin/sh").args(["-ec", &script]).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("OK\n") && said.ends_with("\n0\n"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
