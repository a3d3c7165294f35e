//! Every command of curl, grpcurl and `backend-signal` in the README and the pages in `docs`, run as it is written.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout},
};

use crate::harness::{Process, process, within};

/// Pages whose commands need a set-up of their own, and what runs them.
const ELSEWHERE: &[(&str, &str)] =
    &[("docs/cluster.md", "tests/it/cluster_page.rs"), ("docs/production.md", "tests/it/production/alone.rs")];

const DAEMON: &str = "backend-signal";

/// One `console` block of a page: a command, and lines that must appear in its output in this order.
struct Example {
    command: String,
    expected: Vec<String>,
}

impl Example {
    fn is_stream(&self) -> bool {
        self.command.contains("ubscribe") || self.command.starts_with("curl -sN")
    }

    /// How many lines come before another command sends something.
    fn opening(&self) -> usize {
        match self.tool() {
            _ if !self.is_stream() => self.expected.len(),
            DAEMON => 1,
            _ => 3,
        }
    }

    fn tool(&self) -> &str {
        self.command.split(' ').next().unwrap_or_default()
    }
}

/// The README and the pages in `docs`: name and text.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("docs")).expect("docs");
    let files = entries.map(|entry| format!("docs/{}", entry.expect("an entry").file_name().display()));
    let mut names: Vec<_> = files
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"))
        .chain(["README.md".to_owned()])
        .collect();
    names.sort();
    let page = |name: String| (name.clone(), fs::read_to_string(root.join(name)).expect("UTF-8"));
    names.into_iter().map(page).collect()
}

/// The `console` blocks of a page.
fn examples(page: &str) -> Vec<Example> {
    let blocks = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let examples = blocks.map(|block| {
        let mut lines = block.lines();
        let command = lines.next().and_then(|line| line.strip_prefix("$ ")).expect("a command after `$ `");
        Example { command: command.to_owned(), expected: lines.map(str::to_owned).collect() }
    });
    examples.collect()
}

/// The options with which a page starts the daemon: what its first `cargo run --release -- ...` says, or none.
fn options(page: &str) -> Vec<&str> {
    let command = page.lines().find_map(|line| line.strip_prefix("cargo run --release -- "));
    command.unwrap_or_default().split_whitespace().collect()
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
        let address = process.address.to_string();
        let command = example.command.replace("localhost:1837", &address);
        let mut child = tokio::process::Command::new("/bin/sh")
            // `exec` replaces the shell, so killing the child kills the command.
            .args(["-c", &format!("exec {command}")])
            .env("PATH", path)
            // For the client commands, whose default is `http://localhost:1837`.
            .env("SIGNAL_URL", format!("http://{address}"))
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

/// A PATH with the folder of the daemon.
fn with_daemon(path: &str) -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_backend-signal")).parent().expect("a folder");
    format!("{}:{path}", folder.display())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a tool is installed. If not, prints that its commands were skipped; fails if CI is set.
pub fn is_there(tool: &str, path: &str) -> bool {
    let found = Command::new("/bin/sh").args(["-c", &format!("command -v {tool}")]).env("PATH", path).output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(found || variable("CI").is_none(), "{tool} is not installed");
    if !found {
        // Written directly, because the test harness hides what a passing test prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {tool} commands of README.md and docs: {tool} is not installed");
    }
    found
}

#[tokio::test]
async fn every_command_of_the_readme_and_the_docs_does_what_it_says() {
    let path = with_daemon(&path());
    let tools: Vec<_> = ["curl", "grpcurl", DAEMON].into_iter().filter(|tool| is_there(tool, &path)).collect();
    let mut run = 0;
    for (name, page) in pages().iter().filter(|(name, _)| ELSEWHERE.iter().all(|(page, _)| page != name)) {
        let examples = examples(page);
        // Other commands of the page send to its streams. So without their tool none of them can run.
        let missing = |example: &Example| !tools.contains(&example.tool());
        if examples.is_empty() || examples.iter().any(|example| example.is_stream() && missing(example)) {
            continue;
        }
        println!("{name}");
        let process = Process::start(&options(page));
        run += run_page(examples.into_iter().filter(|example| !missing(example)), &process, &path).await;
    }
    assert!(tools.len() < 3 || run >= 12, "only {run} commands");
}

/// Runs the commands of one page, and gives their number.
async fn run_page(examples: impl Iterator<Item = Example>, process: &Process, path: &str) -> usize {
    let (mut streams, mut run) = (Vec::new(), 0);
    for example in examples {
        run += 1;
        let (is_stream, first) = (example.is_stream(), example.opening());
        let mut running = Running::start(example, process, path);
        running.expect(first).await;
        if is_stream {
            streams.push(running);
        }
    }
    // What the other commands have sent.
    for mut stream in streams {
        let rest = stream.example.expected.len();
        stream.expect(rest).await;
    }
    run
}

/// The options of every command in a page that starts the daemon with some.
fn starts(page: &str) -> Vec<Vec<&str>> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let words = blocks.flat_map(str::lines).filter_map(|line| {
        let prefixes = ["cargo run --release -- ", "backend-signal "];
        Some(prefixes.iter().find_map(|prefix| line.strip_prefix(prefix))?.split_whitespace().collect::<Vec<_>>())
    });
    // Another first word is a subcommand.
    words.filter(|words| words[0].starts_with("--")).collect()
}

#[test]
fn every_command_that_starts_the_daemon_has_options_that_it_takes() {
    let mut count = 0;
    // The page makes the file `secret` first.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("secret"), "0123456789abcdef".repeat(4)).expect("a file");
    for (name, page) in pages().iter().filter(|(name, _)| ELSEWHERE.iter().all(|(page, _)| page != name)) {
        for options in starts(page) {
            count += 1;
            let output = process::command()
                .arg("check-config")
                .args(&options)
                .current_dir(&folder)
                .output()
                .expect("the executable");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}: {}: {said}", options.join(" "));
        }
    }
    assert!(count >= 3, "only {count} commands");
}

#[test]
fn every_other_command_of_the_page_of_the_command_line_runs() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("command-line");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("secret"), "0123456789abcdef".repeat(4)).expect("a file");
    let pages = pages();
    let (_, page) = pages.iter().find(|(name, _)| name == "docs/cli.md").expect("the page");
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    // Not into the folder of this machine, and without the reader of manuals.
    let script = blocks.collect::<String>().replace("/etc/bash_completion.d/", "").replace("man -l -", "cat");
    assert_eq!(script.matches(DAEMON).count(), 4, "{script}");
    let output = Command::new("/bin/sh")
        .args(["-ec", &format!("{script}\necho \"token $SIGNAL_TOKEN\"")])
        .current_dir(&folder)
        .env_clear()
        .env("PATH", with_daemon(&path()))
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Send a message to a device") && said.contains("\ntoken ey"), "{said}");
    let completions = fs::read_to_string(folder.join(DAEMON)).expect("the completions");
    assert!(completions.contains("complete -F"), "{completions}");
}

#[test]
fn every_page_whose_commands_run_elsewhere_exists_and_has_some() {
    let pages = pages();
    for (name, test) in ELSEWHERE {
        let page = pages.iter().find(|(page, _)| page == name).unwrap_or_else(|| panic!("{name} does not exist"));
        assert!(!examples(&page.1).is_empty(), "{name} has no commands");
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(test).exists(), "{test} does not exist");
    }
}
