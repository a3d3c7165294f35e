//! The model of the cluster, as a test: real hubs and real node code on virtual time, over the engine in memory, while nodes die and
//! freeze, links break, and servers lose data. A seed stands for one run; it ends with the checks of everything that was promised.

mod askers;
mod checks;
mod connected;
mod device_streams;
mod faults;
mod outcomes;
mod senders;
mod simulated_node;
mod truth;
mod watchers;

mod world;

use std::{
    collections::BTreeMap,
    env,
    io::{self, Write as _},
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use tokio::{runtime::Builder, time::sleep};

use self::world::World;
use super::rules::{Rule, abandoning, without};

/// How often each thing happened.
type Counts = BTreeMap<&'static str, u64>;

/// Runs one seed. Gives what was counted, and what was wrong.
fn run(seed: u64, nodes: usize, seconds: u64, trace: Option<world::Device>) -> (Counts, Vec<String>) {
    // Epochs, retries and the spread of times come from this generator.
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let abandoned = u8::try_from(number("MODEL_ABANDONED", 10)).expect("percent");
    let world = abandoning(abandoned, || {
        runtime.block_on(async {
            let world = World::new(seed, trace);
            world.clone().live(nodes, Duration::from_secs(seconds)).await;
            world
        })
    });
    drop(runtime);
    world.results()
}

impl World {
    /// The load and the faults, then the time in which all that was lost is declared, then the checks.
    async fn live(self: Arc<Self>, nodes: usize, time: Duration) {
        for _ in 0..nodes {
            self.start_node();
        }
        sleep(Duration::from_secs(3)).await;
        self.begin_load();
        self.begin_faults();
        self.begin_watching();
        self.begin_watching_watchers();
        sleep(time).await;
        self.calm_down();
        sleep(Duration::from_secs(75)).await;
        self.end_all_streams();
        sleep(Duration::from_secs(8)).await;
        self.check();
        self.stop_all();
    }
}

/// Writes a line to standard error, also when the test passes.
fn report(line: &str) {
    // Nobody reads it any more when this fails.
    let _ = writeln!(io::stderr(), "{line}");
}

#[expect(clippy::disallowed_methods, reason = "only these tests have these variables")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn number(name: &str, default: u64) -> u64 {
    variable(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `MODEL_SEEDS=FROM..TO`, `MODEL_NODES` (else 3, 4 or 7 by the seed), `MODEL_SECONDS`, `MODEL_ABANDONED` (how many of a hundred parcels
/// their takers abandon), `MODEL_TRACE=USER,DEVICE` prints what happens to one device, and `MODEL_WITHOUT=RULE` takes out a rule, so that seeds should fail.
#[test]
fn nothing_accepted_is_lost_in_silence_repeated_or_out_of_order_whatever_fails() {
    let seeds = variable("MODEL_SEEDS").unwrap_or_else(|| "0..2".to_owned());
    let (from, to) = seeds.split_once("..").expect("FROM..TO");
    let (from, to) = (from.parse::<u64>().expect("a number"), to.parse::<u64>().expect("a number"));
    let trace = variable("MODEL_TRACE").and_then(|text| {
        let (user, device) = text.split_once(',')?;
        Some((user.parse().ok()?, device.parse().ok()?))
    });
    let out = variable("MODEL_WITHOUT").map(|name| {
        let rule = Rule::ALL.iter().find(|rule| format!("{rule:?}") == name);
        *rule.unwrap_or_else(|| panic!("the rules are {:?}", Rule::ALL))
    });
    let seconds = number("MODEL_SECONDS", 240);
    let (next, all) = (AtomicU64::new(from), Mutex::<(Counts, Vec<String>)>::default());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < to) {
                    let nodes = [3, 4, 7][usize::try_from(seed % 3).expect("small")];
                    let nodes = usize::try_from(number("MODEL_NODES", nodes)).expect("small");
                    let (counts, wrong) = without(out, || run(seed, nodes, seconds, trace));
                    let mut all = all.lock();
                    for (name, count) in counts {
                        *all.0.entry(name).or_default() += count;
                    }
                    if !wrong.is_empty() {
                        let some = wrong.iter().take(3).cloned().collect::<Vec<_>>().join(" | ");
                        all.1.push(format!("seed {seed}: {} faults: {some}", wrong.len()));
                        report(&all.1[all.1.len() - 1]);
                    }
                }
            });
        }
    });
    let (counts, bad) = all.into_inner();
    report(&format!("{} of {} seeds are bad; {counts:?}", bad.len(), to - from));
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
