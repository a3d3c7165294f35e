//! What more than one node costs, over real sockets and a real Redis:
//! `cargo bench --features jemalloc --bench cluster -- [sends | streams | memory | killed | told]`.
//!
//! This process makes the load. The nodes, a daemon without Redis for comparison, and `redis-server` (from the PATH) are processes of
//! their own on this machine. Rounds alternate between what is compared, and the table has medians of rounds.
//!
//! Without a name the first four run. Options: `--seconds` (2), `--rounds` (9), `--streams` (100000; `told` is meant for a million), `--daemon` (the one that was built
//! with the bench), `--old` (a daemon without this feature, for the memory of a stream).

#![expect(unreachable_pub, reason = "everything in a bench is")]

mod cores;
mod crowd;
#[expect(dead_code, reason = "a part of the other bench")]
#[path = "../wire/figures.rs"]
mod figures;
#[expect(dead_code, reason = "a part of the other bench")]
#[path = "../wire/frames.rs"]
mod frames;
#[path = "../wire/http1.rs"]
mod http1;
mod killed;
#[expect(dead_code, reason = "a part of the other bench")]
#[path = "../wire/load.rs"]
mod load;
mod memory;
mod scene;
mod sends;
#[expect(dead_code, reason = "a part of the other bench")]
#[path = "../wire/servers.rs"]
mod servers;
mod streams;
mod told;

use std::{io, path::PathBuf, time::Duration};

/// What the command line asks for.
pub struct Wishes {
    /// Streams of the parts `memory` and `killed`.
    pub streams: u32,
    /// The length of one measurement of a rate.
    pub length: Duration,
    /// How often each figure is measured.
    pub rounds: u32,
    /// The daemon's program.
    pub daemon: PathBuf,
    /// Another build of it, for comparison.
    pub old: Option<PathBuf>,
}

/// The rows so far: what, what it must be, what it should be, what it is.
#[derive(Default)]
pub struct Rows(Vec<[String; 4]>);

impl Rows {
    /// Adds a row, and prints it at once.
    pub fn add(&mut self, what: &str, must: &str, aim: &str, measured: String) {
        eprintln!("{what}: {measured}");
        self.0.push([what.to_owned(), must.to_owned(), aim.to_owned(), measured]);
    }

    fn print(&self) {
        println!("\n| | Must | Aim | Measured |\n| --- | --- | --- | --- |");
        for row in &self.0 {
            println!("| {} |", row.join(" | "));
        }
    }
}

/// Measures something and adds it to the table.
type Part = fn(&Wishes, &mut Rows) -> io::Result<()>;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| words.iter().skip_while(|word| *word != name).nth(1).cloned();
    let number = |name: &str| option(name).and_then(|value| value.parse().ok());
    let wishes = Wishes {
        streams: number("--streams").unwrap_or(100_000),
        length: Duration::from_secs(number("--seconds").unwrap_or(2).into()),
        rounds: number("--rounds").unwrap_or(9),
        daemon: option("--daemon").unwrap_or(env!("CARGO_BIN_EXE_backend-signal").into()).into(),
        old: option("--old").map(PathBuf::from),
    };
    if !cfg!(feature = "jemalloc") && option("--daemon").is_none() {
        eprintln!("note: without `--features jemalloc` the daemon does not have the allocator of what ships");
    }
    rlimit::increase_nofile_limit(u64::MAX)?;
    let parts: [(&str, Part); 5] = [
        ("memory", memory::memory),
        ("sends", sends::sends),
        ("streams", streams::streams),
        ("killed", killed::killed),
        ("told", told::told),
    ];
    let named = |name: &str| words.iter().any(|word| word == name);
    let some = parts.iter().any(|(name, _)| named(name));
    let mut rows = Rows::default();
    for (_, part) in parts.iter().filter(|(name, _)| if some { named(name) } else { *name != "told" }) {
        part(&wishes, &mut rows)?;
    }
    rows.print();
    Ok(())
}
