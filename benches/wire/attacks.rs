//! Attacks of anonymous clients on the daemon, and what an honest one beside them feels.
//!
//! Each is run in turns with a daemon that is left alone. Its figures are measurements and fail nothing; a message of the honest
//! client that is lost or repeated does.

mod canary;
mod control;
mod crowds;
mod doors;
mod memory;
mod report;
mod scene;
mod swarm;
mod unread;

use std::{io, time::Duration};

use self::scene::{Play, Scene};
use crate::{Wishes, figures::Table};

/// An attack, by the number under which it is known.
struct Attack {
    row: u32,
    play: Play,
    /// From its end until the daemon's memory is read.
    rest: Duration,
}

const ATTACKS: [Attack; 12] = [
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
];

impl Attack {
    const fn new(row: u32, play: Play) -> Self {
        Self { row, play, rest: Duration::from_secs(10) }
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
                alone.push(scene::run(&wishes.daemon, limits.options(), leave_alone, Duration::ZERO)?);
                under.push(scene::run(&wishes.daemon, limits.options(), attack.play, attack.rest)?);
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
