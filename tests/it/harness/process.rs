//! The real executable, for tests of its log, its signals, its exit code and its memory.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    ops::Deref,
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use super::{Door, within};

/// A running daemon, in a process of its own.
pub struct Process {
    child: Child,
    log: BufReader<ChildStderr>,
    /// The lines of its log before the one that says where it listens.
    pub preface: String,
    /// The line that says where it listens; of several, the first.
    pub first_line: String,
    door: Door,
}

impl Process {
    pub fn start(options: &[&str]) -> Self {
        Self::spawn(command().args([&["--port", "0", "--host", "127.0.0.1"], options].concat()))
    }

    /// Runs a command that starts the daemon in the end.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the executable");
        let log = BufReader::new(child.stderr.take().expect("standard error"));
        let door = Door { address: ([0, 0, 0, 0], 0).into() };
        // Made before anything can fail, because dropping it ends the child.
        let (preface, first_line) = (String::new(), String::new());
        let mut process = Self { child, log, preface, first_line, door };
        while process.log.read_line(&mut process.first_line).expect("UTF-8") > 0 {
            if process.first_line.contains("listening on ") {
                break;
            }
            process.preface.push_str(&std::mem::take(&mut process.first_line));
        }
        let address = process.first_line.split("listening on ").nth(1);
        let address = address.and_then(|rest| rest.split(|c: char| c.is_whitespace() || c == '"').next()?.parse().ok());
        process.door.address = address.unwrap_or_else(|| panic!("{}", process.preface));
        process
    }

    /// The names of its threads, from Linux.
    #[cfg(feature = "jemalloc")]
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("Linux");
        let name =
            |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
        tasks.filter_map(name).map(|name| name.trim().to_owned()).collect()
    }

    /// The most bytes of memory that it has had so far, from Linux.
    pub fn peak_memory(&self) -> usize {
        self.memory_of("VmHWM")
    }

    /// The bytes of memory that it has now, from Linux.
    pub fn memory(&self) -> usize {
        self.memory_of("VmRSS")
    }

    fn memory_of(&self, kind: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(':')?.strip_suffix("kB"));
        line.and_then(|kib| kib.trim().parse::<usize>().ok()).expect("a size") * 1024
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Reads its log up to a line with this text, which must come.
    pub fn log_until(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.log.read_line(&mut line).expect("UTF-8") > 0, "no line has {text}");
        }
    }

    /// Waits for the exit without reading the log. Gives the code.
    pub async fn exited_unread(mut self) -> Option<i32> {
        within(async {
            loop {
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    /// Waits for the exit. Gives the code and the rest of the log.
    pub fn exited(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("UTF-8");
        (self.child.wait().expect("a child").code(), rest)
    }
}

impl Deref for Process {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name. After `STOP`, no thread runs any more.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill").success());
    while name == "STOP" && !is_stopped(child) {
        std::thread::yield_now();
    }
}

/// Whether all threads are stopped, from Linux.
fn is_stopped(child: &Child) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("Linux");
    tasks.flatten().all(|task| {
        let text = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything. A thread that has just ended has no text.
        text.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('T'))
    })
}

/// The executable, without the port that the environment may set.
pub fn command() -> Command {
    command_of(env!("CARGO_BIN_EXE_backend-signal"))
}

/// The same for another program that starts the daemon.
pub fn command_of(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove("PORT");
    command
}

/// Runs the daemon to its exit. Gives the code, standard output and standard error.
pub fn run(options: &[&str]) -> (Option<i32>, String, String) {
    let output = command().args(options).output().expect("the executable");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}
