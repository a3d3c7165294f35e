//! The table of the attacks: a line for each window, of medians over the runs.

use super::scene::{Note, Run, Window, mib};
use crate::figures::median;

pub type Line = [String; 8];

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

pub fn print(lines: &[Line]) {
    println!("\n| {} |\n|{}", HEAD.join(" | "), " --- |".repeat(HEAD.len()));
    for line in lines {
        println!("| {} |", line.join(" | "));
    }
}

/// The lines of one attack; `name` is its number and the daemon's limits.
pub fn lines(name: [&str; 2], alone: &[Run], under: &[Run]) -> Vec<Line> {
    let windows = under.iter().map(|run| run.windows.len()).max().unwrap_or_default();
    let before = middle(alone.iter().flat_map(|run| &run.windows), p99);
    let mut lines: Vec<_> = (0..windows)
        .map(|number| {
            let seen: Vec<_> = under.iter().filter_map(|run| run.windows.get(number)).collect();
            line(name, before, &seen)
        })
        .collect();
    if let Some([.., memory, also]) = lines.last_mut() {
        *memory = format!("{memory} / {:.0}", median(under.iter().map(|run| mib(run.after)).collect()));
        let cuts: u64 = under.iter().map(|run| run.account.2).sum();
        if cuts > 0 {
            *also = format!("{also}; the canary's stream was cut {cuts} times");
        }
    }
    if let Some(trouble) = under.iter().find_map(|run| run.trouble.as_ref()) {
        let [row, limits] = name.map(str::to_owned);
        let empty = String::new;
        lines.push([row, "ended early".to_owned(), limits, empty(), empty(), empty(), empty(), trouble.to_string()]);
    }
    lines
}

fn line([row, limits]: [&str; 2], before: f64, seen: &[&Window]) -> Line {
    let of = |figure: fn(&Window) -> f64| middle(seen.iter().copied(), figure);
    let sum = |figure: fn(&Window) -> u64| seen.iter().map(|window| figure(window)).sum::<u64>();
    let then = of(p99);
    let then = if then.is_nan() {
        "none arrived".to_owned()
    } else {
        format!("{then:.1} ({:.1})", of(|window| window.canary.latency(1.0)))
    };
    [
        row.to_owned(),
        seen.first().map_or("", |window| window.what).to_owned(),
        limits.to_owned(),
        format!("{before:.1} -> {then}"),
        format!("{} of {}", sum(|window| window.canary.failed), sum(|window| window.canary.posts)),
        format!("{:.1}", of(|window| window.cpu)),
        format!("{:.0}", of(|window| mib(window.peak))),
        notes(seen).join(", "),
    ]
}

fn p99(window: &Window) -> f64 {
    window.canary.latency(0.99)
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
