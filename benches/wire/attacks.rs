//! Attacks on the daemon, and how slow it gets meanwhile for an honest client with another address (the canary).
//!
//! Each run with an attack alternates with a run without. No figure makes the benchmark fail; a message of the honest
//! client that is lost or repeated does. The aim: the p99 of the honest client is at most twice what it is without the attack, or
//! 10 ms.

mod canary;
mod control;
mod crowds;
mod doors;
mod edge;
mod memory;
mod report;
mod scene;
mod swarm;
mod unread;

use std::{io, time::Duration};

use self::scene::{Play, Run, Scene};
use crate::{Wishes, figures::Table};

/// An attack, by the number under which it is known.
struct Attack {
    row: u32,
    play: Play,
    /// From its end until the daemon's memory is read.
    rest: Duration,
    /// Whether every address counts, the attacker's too.
    has_address: bool,
    /// Whether the daemon speaks TLS.
    tls: bool,
}

const ATTACKS: [Attack; 17] = [
    Attack::new(1, doors::watches_that_leave),
    Attack::new(2, unread::answers),
    Attack::new(3, crowds::watchers),
    Attack::new(4, crowds::million),
    Attack::new(5, memory::held),
    Attack::new(6, crowds::broadcasts),
    Attack::new(7, unread::broadcast),
    Attack::new(8, control::settings),
    Attack::new(9, control::pings),
    Attack { rest: Duration::from_secs(30), ..Attack::new(12, memory::half_bodies) },
    Attack { rest: Duration::from_secs(30), ..Attack::new(12, memory::short_holds) },
    Attack::new(14, doors::stop),
    Attack { has_address: true, ..Attack::new(15, edge::guesses) },
    Attack { has_address: true, ..Attack::new(16, edge::sends) },
    Attack { has_address: true, ..Attack::new(17, edge::watches) },
    Attack { has_address: true, ..Attack::new(18, edge::connections) },
    Attack { has_address: true, tls: true, ..Attack::new(19, edge::handshakes) },
];

impl Attack {
    const fn new(row: u32, play: Play) -> Self {
        Self { row, play, rest: Duration::from_secs(10), has_address: false, tls: false }
    }

    /// Runs something with the daemon of this attack.
    fn run(&self, wishes: &Wishes, limits: Limits, play: Play, rest: Duration) -> io::Result<Run> {
        let address: &[&str] = if self.has_address { &["--address-limits", "all"] } else { &[] };
        let tls = if self.tls { Some(edge::Identity::make()?) } else { None };
        let files = tls.iter().flat_map(edge::Identity::options);
        let options: Vec<_> = limits.options().iter().chain(address).copied().chain(files).collect();
        scene::run(&wishes.daemon, &options, tls.as_ref().map(edge::Identity::connector), play, rest)
    }
}

/// The limits of the daemon that is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    Default,
    Off,
    /// Those of a build that does not know the options.
    Old,
}

impl Limits {
    pub fn parse(name: &str) -> io::Result<Self> {
        match name {
            "default" => Ok(Self::Default),
            "off" => Ok(Self::Off),
            "old" => Ok(Self::Old),
            _ => Err(io::Error::other("--limits: default, off or old")),
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Default | Self::Old => &[],
            Self::Off => &OFF,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Off => "off",
            Self::Old => "old",
        }
    }
}

const OFF: [&str; 18] = [
    "--user-devices",
    "0",
    "--user-held-devices",
    "0",
    "--user-watchers",
    "0",
    "--caller-watches",
    "0",
    "--hold-budget",
    "0",
    "--send-rate",
    "0",
    "--anonymous-send-rate",
    "0",
    "--identity-failures",
    "0",
    "--address-connections",
    "0",
];

pub fn attacks(wishes: &Wishes, table: &mut Table) -> io::Result<()> {
    let mut lines = Vec::new();
    let wanted = |attack: &&Attack| wishes.rows.is_empty() || wishes.rows.contains(&attack.row);
    for attack in ATTACKS.iter().filter(wanted) {
        for &limits in &wishes.limits {
            let (mut alone, mut under) = (Vec::new(), Vec::new());
            for _ in 0..wishes.runs {
                alone.push(attack.run(wishes, limits, leave_alone, Duration::ZERO)?);
                under.push(attack.run(wishes, limits, attack.play, attack.rest)?);
            }
            for run in alone.iter().chain(&under) {
                let (lost, repeated, cuts) = run.account;
                table.fault(
                    &format!("attack {}, the canary, whose stream was cut {cuts} times", attack.row),
                    lost + repeated,
                );
            }
            for line in report::lines([&attack.row.to_string(), limits.name()], &alone, &under) {
                eprintln!("{}", line.join(" | "));
                lines.push(line);
            }
        }
    }
    report::print(&lines);
    Ok(())
}

/// What every attack is compared with.
fn leave_alone(scene: &Scene) -> io::Result<()> {
    scene.window("nothing", async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        Ok(vec![])
    })
}
