//! Attacks of anonymous clients on the daemon, and what an honest one beside them feels.
//!
//! Each is run in turns with a daemon that is left alone. Its figures are measurements and fail nothing; a message of the honest
//! client that is lost or repeated does.

mod canary;
mod control;
mod crowds;
mod doors;
mod memory;
mod scene;
mod swarm;
mod unread;

use std::{io, time::Duration};

use self::scene::{Note, Play, Run, Scene, Window, mib};
use crate::{
    Wishes,
    figures::{Table, median},
};

/// An attack, by the number under which it is known.
struct Attack {
    row: u32,
    play: Play,
    /// From its end until the daemon's memory is read.
    rest: Duration,
}

const ATTACKS: [Attack; 11] = [
    Attack::new(1, doors::watches_that_leave),
    Attack::new(2, unread::answers),
    Attack::new(3, crowds::watchers),
    Attack::new(4, crowds::million),
    Attack::new(5, memory::held),
    Attack::new(6, crowds::broadcasts),
    Attack::new(7, unread::broadcast),
    Attack::new(8, control::settings),
    Attack::new(9, control::pings),
    Attack { rest: Duration::from_secs(30), ..Attack::new(12, memory::spikes) },
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

const OFF: [&str; 10] = [
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
];

pub fn attacks(wishes: &Wishes, table: &mut Table) -> io::Result<()> {
    let mut lines = vec![HEAD.map(str::to_owned)];
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
            for line in describe(attack, limits, &alone, &under) {
                eprintln!("{}", line.join(" | "));
                lines.push(line);
            }
        }
    }
    println!();
    for (number, line) in lines.iter().enumerate() {
        println!("| {} |", line.join(" | "));
        if number == 0 {
            println!("|{}", " --- |".repeat(line.len()));
        }
    }
    Ok(())
}

const HEAD: [&str; 8] = [
    "Row",
    "What is done",
    "Limits",
    "Canary's p99 alone -> then (max), ms",
    "Posts failed",
    "CPU, % of a core",
    "Memory, MiB: peak / after",
    "Also",
];

/// What every attack is compared with.
fn leave_alone(scene: &Scene) -> io::Result<()> {
    scene.window("nothing", async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        Ok(vec![])
    })
}

/// A line for each window, of medians over the runs.
fn describe(attack: &Attack, limits: Limits, alone: &[Run], under: &[Run]) -> Vec<[String; 8]> {
    let before = middle(alone.iter().flat_map(|run| &run.windows), |window| window.canary.latency(0.99));
    let windows = under.iter().map(|run| run.windows.len()).max().unwrap_or_default();
    let trouble = under.iter().find_map(|run| run.trouble.as_ref());
    let mut lines = Vec::new();
    for number in 0..windows {
        let seen: Vec<_> = under.iter().filter_map(|run| run.windows.get(number)).collect();
        let of = |figure: fn(&Window) -> f64| middle(seen.iter().copied(), figure);
        let (p99, max) = (of(|window| window.canary.latency(0.99)), of(|window| window.canary.latency(1.0)));
        let posts: u64 = seen.iter().map(|window| window.canary.posts).sum();
        let failed: u64 = seen.iter().map(|window| window.canary.failed).sum();
        let last = number + 1 == windows;
        let after =
            if last { format!("{:.0}", median(under.iter().map(|run| mib(run.after)).collect())) } else { "-".into() };
        let mut also = notes(&seen);
        if last {
            let cuts: u64 = under.iter().map(|run| run.account.2).sum();
            also.extend((cuts > 0).then(|| format!("the canary's stream was cut {cuts} times")));
            also.extend(trouble.map(|error| format!("ended early: {error}")));
        }
        lines.push([
            attack.row.to_string(),
            seen.first().map_or("", |window| window.what).to_owned(),
            limits.name().to_owned(),
            format!("{before:.1} -> {p99:.1} ({max:.1})"),
            format!("{failed} of {posts}"),
            format!("{:.1}", of(|window| window.cpu)),
            format!("{:.0} / {after}", of(|window| mib(window.peak))),
            also.join(", "),
        ]);
    }
    if windows == 0 {
        let why = trouble.map(ToString::to_string).unwrap_or_default();
        let row = [attack.row.to_string(), "did not begin".to_owned(), limits.name().to_owned()];
        let [a, b, c] = row;
        lines.push([a, b, c, String::new(), String::new(), String::new(), String::new(), why]);
    }
    lines
}

/// The notes of one window, each the median over the runs.
fn notes(seen: &[&Window]) -> Vec<String> {
    let first = seen.first().map_or(&[][..], |window| &window.notes);
    let note = |(number, Note(_, what)): (usize, &Note)| {
        let figures = seen.iter().filter_map(|window| window.notes.get(number)).map(|note| note.0);
        let figure = median(figures.collect());
        if figure < 10.0 && figure.fract() != 0.0 {
            format!("{figure:.1} {what}")
        } else {
            format!("{figure:.0} {what}")
        }
    };
    first.iter().enumerate().map(note).collect()
}

fn middle<'a>(windows: impl Iterator<Item = &'a Window>, figure: impl Fn(&Window) -> f64) -> f64 {
    median(windows.map(figure).collect())
}
