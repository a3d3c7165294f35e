//! The servers that are measured, each in a process of its own, and what the kernel says of it.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::{Wishes, cores};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Daemon,
    /// Another build of the daemon, for comparison.
    Old,
    /// hyper alone, answering empty posts.
    Bare,
    /// `axum::serve`, `Sse` and a channel for each stream.
    Axum,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "backend-signal",
            Self::Old => "backend-signal, --old",
            Self::Bare => "bare hyper",
            Self::Axum => "plain axum",
        }
    }
}

/// A running server, which ends with this value.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    log: File,
}

impl Running {
    /// Starts a server on a free port; `options` are the daemon's.
    pub fn start(wishes: &Wishes, kind: Kind, options: &[&str]) -> io::Result<Self> {
        // The load may leave a connection alone for longer than a client should.
        let patient = [&["--header-timeout", "600"], options].concat();
        match kind {
            Kind::Daemon => Self::daemon(&wishes.daemon, &patient),
            Kind::Old => {
                let program = wishes.old.as_deref().ok_or_else(|| io::Error::other("--old names no program"))?;
                Self::daemon(program, &patient)
            }
            Kind::Bare | Kind::Axum => {
                let mut command = Command::new(std::env::current_exe()?);
                Self::spawn(command.args(["--serve", if kind == Kind::Bare { "bare" } else { "axum" }]))
            }
        }
    }

    /// Starts a build of the daemon as it is out of the box, but for these options.
    pub fn daemon(program: &Path, options: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", "0", "--auth", "none", "--drain-window", "0.001"]);
        Self::spawn(command.args(options))
    }

    fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut running = Self::adopt(command, ([0, 0, 0, 0], 0).into())?;
        running.address = running.until(|log| {
            let line = log.lines().find(|line| line.contains("listening on"))?;
            line.rsplit(' ').next().and_then(|address| address.parse().ok())
        })?;
        Ok(running)
    }

    /// Starts a program that listens at this address some time later.
    pub fn adopt(command: &mut Command, address: SocketAddr) -> io::Result<Self> {
        let (log, writer) = log()?;
        Ok(Self { child: cores::start(command.stderr(writer))?, address, log })
    }

    /// Waits until its log, or whatever else is asked, gives something.
    pub fn until<T>(&mut self, mut ask: impl FnMut(&str) -> Option<T>) -> io::Result<T> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let mut text = vec![0; 4_096];
            let length = self.log.read_at(&mut text, 0)?;
            let text = String::from_utf8_lossy(&text[..length]);
            // A line that was written in part has no end yet.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(answer) = ask(whole) {
                return Ok(answer);
            }
            if self.child.try_wait()?.is_some() || Instant::now() > end {
                return Err(io::Error::other(format!("the server did not start: {text}")));
            }
            pause();
        }
    }

    /// Bytes that it has logged.
    pub fn logged(&self) -> io::Result<u64> {
        Ok(self.log.metadata()?.len())
    }

    /// Proportional set size, in bytes, as the kernel accounts it.
    pub fn memory(&self) -> io::Result<u64> {
        self.kib("smaps_rollup", "Pss:")
    }

    /// The largest resident set since [`Running::forget_peak`], in bytes: no sample misses it, and to read it costs nothing.
    pub fn peak(&self) -> io::Result<u64> {
        self.kib("status", "VmHWM:")
    }

    pub fn forget_peak(&self) -> io::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")
    }

    /// A line of a file of the kernel's, in bytes.
    fn kib(&self, file: &str, name: &str) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
        Ok(kib.ok_or_else(|| io::Error::other(format!("no line {name}")))? * 1_024)
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Microseconds of CPU since it had used so much, for each of so many.
    pub fn cost(&self, before: Duration, count: f64) -> io::Result<f64> {
        Ok(self.cpu()?.saturating_sub(before).as_secs_f64() * 1e6 / count)
    }

    /// Percent of a core that it has used since it had used `cpu` at `began`.
    pub fn load(&self, cpu: Duration, began: Instant) -> io::Result<f64> {
        Ok(100.0 * self.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64())
    }

    /// User and system time so far. The kernel's clock tick is 10 ms.
    pub fn cpu(&self) -> io::Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A server that is compiled to write a profile does so when it ends by itself.
        let _ = self.signal(Signal::TERM);
        let _ = self.signal(Signal::CONT);
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            pause();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file without a name, to read and for a server to write: a pipe would have to be read while that is measured.
fn log() -> io::Result<(File, File)> {
    let path = std::env::temp_dir().join(format!("backend-signal-bench-{}.log", std::process::id()));
    let writer = File::options().create_new(true).append(true).open(&path)?;
    let reader = File::open(&path)?;
    fs::remove_file(&path)?;
    Ok((reader, writer))
}

#[expect(clippy::disallowed_methods, reason = "no load runs yet, or none any more")]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}
