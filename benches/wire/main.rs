//! The daemon that ships under load, over real sockets: `cargo bench --features jemalloc --bench wire -- [memory | throughput |
//! latency | opening | million | idle | attacks]`.
//!
//! This process makes the load, and every server runs in a process of its own: the daemon, a bare hyper that answers empty posts
//! and delivers nothing (the ceiling), and a plain axum server with its event streams and a channel for each of them. They
//! take turns, so that every figure is a ratio too. Each message carries its receiver, its number and the time at which it
//! was to be sent: one that is lost, repeated, out of order or at the wrong stream is counted and fails the run.
//!
//! Without a name the first four parts run. Options: `--streams` (18000), `--seconds` (2), `--rounds` (9; attacks 3), `--rate`
//! (several), `--daemon` (the one that was built with the bench), `--old` (another daemon to compare with),
//! `--idle-seconds` (30), `--row` (of the attacks, several with commas: all), `--limits` (of the daemon that is attacked: `default`,
//! `off` or `old`, several with commas).

#![expect(unreachable_pub, reason = "everything in a bench is")]

mod attacks;
mod cores;
mod figures;
mod frames;
mod http1;
mod http2;
mod idle;
mod load;
mod memory;
mod nchan;
mod reference;
mod servers;
mod speed;

use std::{io, path::PathBuf, time::Duration};

use self::{attacks::Limits, figures::Table, servers::Kind};

/// What the command line asks for.
pub struct Wishes {
    /// Streams of HTTP/1.1; each takes a descriptor on both sides.
    pub streams: u32,
    /// The length of one measurement.
    pub length: Duration,
    /// How often the servers take turns.
    pub rounds: u32,
    /// Messages a second in the open loop; none: several rates.
    pub rate: Option<u32>,
    /// The daemon's program, which may be another build of it.
    pub daemon: PathBuf,
    /// Another build of it, for comparison.
    pub old: Option<PathBuf>,
    /// How long idle streams are watched.
    pub idle: Duration,
    /// Which attacks; none: all.
    pub rows: Vec<u32>,
    /// The limits of the daemon that is attacked.
    pub limits: Vec<Limits>,
    /// How often each attack is run.
    pub runs: u32,
}

impl Wishes {
    /// What is measured beside each other: plain axum, the daemon and, if one is named, another build of it.
    #[must_use]
    pub fn compared(&self) -> Vec<Kind> {
        let old = self.old.is_some().then_some(Kind::Old);
        [Kind::Axum, Kind::Daemon].into_iter().chain(old).collect()
    }
}

/// Measures something and adds it to the table.
type Part = fn(&Wishes, &mut Table) -> io::Result<()>;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(kind) = option(&words, "--serve") {
        return reference::serve(&kind);
    }
    let number = |name: &str| option(&words, name).and_then(|value| value.parse().ok());
    let list = |name: &str| -> Vec<String> {
        option(&words, name).iter().flat_map(|value| value.split(',')).map(str::to_owned).collect()
    };
    let limits = list("--limits").iter().map(|name| Limits::parse(name)).collect::<io::Result<Vec<_>>>()?;
    let wishes = Wishes {
        streams: number("--streams").unwrap_or(18_000),
        length: Duration::from_secs(number("--seconds").unwrap_or(2).into()),
        rounds: number("--rounds").unwrap_or(9),
        rate: number("--rate"),
        daemon: option(&words, "--daemon").unwrap_or(env!("CARGO_BIN_EXE_backend-signal").into()).into(),
        old: option(&words, "--old").map(PathBuf::from),
        idle: Duration::from_secs(number("--idle-seconds").unwrap_or(30).into()),
        rows: list("--row").iter().filter_map(|row| row.parse().ok()).collect(),
        limits: if limits.is_empty() { vec![Limits::Default] } else { limits },
        runs: number("--rounds").unwrap_or(3),
    };
    if !cfg!(feature = "jemalloc") && option(&words, "--daemon").is_none() {
        eprintln!("note: without `--features jemalloc` the daemon does not have the allocator of what ships");
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    let parts: [(&str, Part); 7] = [
        ("memory", memory::idle_and_busy),
        ("throughput", speed::throughput),
        ("latency", speed::latency),
        ("opening", speed::opening),
        ("million", memory::million),
        ("idle", idle::idle),
        ("attacks", attacks::attacks),
    ];
    let named: Vec<_> = parts.iter().filter(|(name, _)| words.iter().any(|word| word == name)).collect();
    let wanted = if named.is_empty() { parts[..4].iter().collect() } else { named };
    let mut table = Table::new();
    for (_, part) in wanted {
        part(&wishes, &mut table)?;
    }
    table.print();
    if table.is_clean() {
        Ok(())
    } else {
        Err(io::Error::other("messages were lost, repeated, misdirected or refused"))
    }
}

fn option(words: &[String], name: &str) -> Option<String> {
    words.iter().skip_while(|word| *word != name).nth(1).cloned()
}
