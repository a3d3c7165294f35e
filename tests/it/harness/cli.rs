//! The client commands of the real executable, against a server of the tests.

use std::{
    net::SocketAddr,
    process::{ExitStatus, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::within;

/// A command without the variables of this machine. The first argument is the subcommand.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backend-signal"));
    command.env_clear().args(arguments).kill_on_drop(true).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The same against a server.
pub fn against(server: SocketAddr, arguments: &[&str]) -> Command {
    let url = format!("http://{server}");
    command(&[&arguments[..1], &["--url", &url], &arguments[1..]].concat())
}

/// Runs a command to its end. Gives the exit code, standard output and standard error.
pub async fn output(command: &mut Command) -> (i32, String, String) {
    let output = within(command.output()).await.expect("the executable");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit"), text(output.stdout), text(output.stderr))
}

/// Runs a command against a server to its end.
pub async fn run(server: SocketAddr, arguments: &[&str]) -> (i32, String, String) {
    output(&mut against(server, arguments)).await
}

/// The same with a text on standard input.
pub async fn run_with_input(server: SocketAddr, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = against(server, arguments).stdin(Stdio::piped()).spawn().expect("the executable");
    let mut stdin = child.stdin.take().expect("standard input");
    stdin.write_all(input).await.expect("reads");
    drop(stdin);
    let output = within(child.wait_with_output()).await.expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit"), text(output.stdout), text(output.stderr))
}

/// A command that runs.
pub struct Running {
    child: Child,
    out: Option<Lines<BufReader<ChildStdout>>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the executable");
        let out = child.stdout.take().map(|out| BufReader::new(out).lines());
        let err = BufReader::new(child.stderr.take().expect("standard error")).lines();
        Self { child, out, err }
    }

    /// The next line of standard output.
    pub async fn line(&mut self) -> String {
        let out = self.out.as_mut().expect("not closed");
        within(out.next_line()).await.expect("UTF-8").expect("a line of standard output")
    }

    /// The next line of standard error.
    pub async fn state(&mut self) -> String {
        within(self.err.next_line()).await.expect("UTF-8").expect("a line of standard error")
    }

    /// The next line of standard error, which is JSON.
    pub async fn json_state(&mut self) -> Value {
        let line = self.state().await;
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"))
    }

    /// Closes the pipe that standard output is.
    pub fn close_output(&mut self) {
        self.out = None;
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("runs").to_string();
        let status = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill").success());
    }

    /// Whether the process handles SIGTERM, from Linux.
    pub fn handles_signals(&self) -> bool {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id().expect("runs"))).expect("Linux");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask").trim().to_owned();
        u64::from_str_radix(&caught, 16).expect("hexadecimal") & (1 << 14) != 0
    }

    /// Waits for the end. Gives the exit code and the rest of standard error.
    pub async fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let mut lines = Vec::new();
        while let Some(line) = within(self.err.next_line()).await.expect("UTF-8") {
            lines.push(line);
        }
        let status: ExitStatus = within(self.child.wait()).await.expect("a child");
        (status.code(), lines)
    }
}
