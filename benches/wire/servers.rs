//! The servers that are measured, each in a process of its own, and what the kernel says of it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Wishes, cores};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Daemon,
    /// hyper alone, answering empty posts.
    Bare,
    /// `axum::serve`, `Sse` and a channel for each stream.
    Axum,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "backend-signal",
            Self::Bare => "bare hyper",
            Self::Axum => "plain axum",
        }
    }
}

/// A running server, which ends with this value.
pub struct Running {
    child: Child,
    pub kind: Kind,
    pub address: SocketAddr,
    _log: BufReader<ChildStderr>,
}

impl Running {
    /// Starts a server on a free port; `options` are the daemon's.
    pub fn start(wishes: &Wishes, kind: Kind, options: &[&str]) -> io::Result<Self> {
        let mut command = match kind {
            Kind::Daemon => {
                let mut command = Command::new(&wishes.daemon);
                command.args(["--host", "127.0.0.1", "--port", "0", "--auth", "none"]);
                command.args(["--header-timeout", "600", "--drain-window", "0.001"]);
                command.args(options);
                command
            }
            Kind::Bare | Kind::Axum => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["--serve", if kind == Kind::Bare { "bare" } else { "axum" }]);
                command
            }
        };
        let mut child = cores::start(command.stderr(Stdio::piped()))?;
        let mut log = BufReader::new(child.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?);
        let mut line = String::new();
        log.read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| io::Error::other(line))?;
        Ok(Self { child, kind, address, _log: log })
    }

    /// Proportional set size, in bytes, as the kernel accounts it.
    pub fn memory(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
        Ok(kib.ok_or_else(|| io::Error::other("no Pss line"))? * 1_024)
    }

    /// Microseconds of CPU since it had used so much, for each of so many.
    pub fn cost(&self, before: Duration, count: f64) -> io::Result<f64> {
        Ok(self.cpu()?.saturating_sub(before).as_secs_f64() * 1e6 / count)
    }

    /// User and system time so far. The kernel's clock tick is 10 ms.
    pub fn cpu(&self) -> io::Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A server that is compiled to write a profile does so when it ends by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
