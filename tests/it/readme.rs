//! Every curl and grpcurl command of the README, run as it is written.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout},
};

use crate::harness::{Process, within};

/// One block of the README: a command, and lines that must appear in its output in this order.
struct Example {
    command: String,
    expected: Vec<String>,
}

/// The `console` blocks of the README.
fn examples() -> Vec<Example> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let examples = blocks.map(|block| {
        let mut lines = block.lines();
        let command = lines.next().and_then(|line| line.strip_prefix("$ ")).expect("a command after `$ `");
        Example { command: command.to_owned(), expected: lines.map(str::to_owned).collect() }
    });
    examples.collect()
}

/// `...` stands for anything.
fn matches(expected: &str, line: &str) -> bool {
    let mut rest = Some(line);
    for part in expected.split("...") {
        rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
    }
    rest.is_some()
}

struct Running {
    example: Example,
    output: BufReader<ChildStdout>,
    #[expect(dead_code, reason = "killed when dropped")]
    child: Child,
}

impl Running {
    fn start(example: Example, process: &Process, path: &str) -> Self {
        let command = example.command.replace("localhost:1837", &process.address.to_string());
        let mut child = tokio::process::Command::new("/bin/sh")
            // `exec` replaces the shell, so killing the child kills the command.
            .args(["-c", &format!("exec {command}")])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a shell");
        let output = BufReader::new(child.stdout.take().expect("standard output"));
        Self { example, output, child }
    }

    /// Reads until this many of the expected lines have appeared.
    async fn expect(&mut self, count: usize) {
        let mut expected = self.example.expected.drain(..count).peekable();
        let mut seen = String::new();
        while let Some(wanted) = expected.peek() {
            let from = seen.len();
            let length = within(self.output.read_line(&mut seen)).await.expect("UTF-8");
            assert!(length > 0, "{}\nended without {wanted:?} after\n{seen}", self.example.command);
            if matches(wanted, &seen[from..]) {
                expected.next();
            }
        }
    }
}

/// The PATH of this machine, and the folder where Go installs programs.
pub fn path() -> String {
    let output = Command::new("go").args(["env", "GOPATH"]).output();
    let gopath = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let gopath = gopath.map(|path| PathBuf::from(path.trim()).join("bin").display().to_string());
    let home = variable("HOME").map(|home| format!("{home}/go/bin"));
    [gopath, home, variable("PATH")].into_iter().flatten().collect::<Vec<_>>().join(":")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a tool is installed. If not, prints that its commands were skipped; fails if CI is set.
fn is_there(tool: &str, path: &str) -> bool {
    let found = Command::new("/bin/sh").args(["-c", &format!("command -v {tool}")]).env("PATH", path).output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(found || variable("CI").is_none(), "{tool} is not installed");
    if !found {
        // Written directly, because the test harness hides what a passing test prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED: the README's {tool} commands: {tool} is not installed");
    }
    found
}

#[tokio::test]
async fn every_command_of_the_readme_does_what_it_says() {
    let (process, path) = (Process::start(&[]), path());
    let tools: Vec<_> = ["curl", "grpcurl"].into_iter().filter(|tool| is_there(tool, &path)).collect();
    // Without grpcurl the laptop does not subscribe, so the examples with the laptop cannot run.
    let complete = tools.len() == 2;
    let (mut streams, mut run) = (Vec::new(), 0);
    for example in examples() {
        let about_the_laptop = example.command.contains("laptop") || example.expected.concat().contains("laptop");
        if !tools.iter().any(|tool| example.command.starts_with(tool)) || (!complete && about_the_laptop) {
            continue;
        }
        run += 1;
        let is_stream = example.command.contains("ubscribe");
        let first = if is_stream { 3 } else { example.expected.len() };
        let mut running = Running::start(example, &process, &path);
        running.expect(first).await;
        if is_stream {
            streams.push(running);
        }
    }
    if complete {
        assert!(run >= 12, "only {run} commands");
        for mut stream in streams {
            let rest = stream.example.expected.len();
            stream.expect(rest).await;
        }
    }
}
