//! Where an attack plays: a daemon, the canary beside, and windows in which both are watched.

use std::{cell::RefCell, io, path::Path, sync::Arc, time::Duration};

use tokio::{runtime::Runtime, time::Instant};
use tokio_rustls::TlsConnector;

use super::canary::{Canary, Sight};
use crate::{load::spawn, servers::Running};

/// What else was measured: a figure and what it counts.
#[derive(Clone, Copy)]
pub struct Note(pub f64, pub &'static str);

/// What was seen while one thing was done.
pub struct Window {
    pub what: &'static str,
    pub canary: Sight,
    /// The daemon's CPU, in percent of a core.
    pub cpu: f64,
    /// The daemon's largest resident set, in bytes.
    pub peak: u64,
    pub notes: Vec<Note>,
}

/// One run.
pub struct Run {
    pub windows: Vec<Window>,
    /// The daemon's PSS some time after all connections of the attack were closed, in bytes.
    pub after: u64,
    /// Messages of the canary that were lost and repeated, and how often its stream was cut.
    pub account: (u64, u64, u64),
    /// Why the attack ended early.
    pub trouble: Option<io::Error>,
}

/// What an attack has at hand. Its connections last as long as its runtime.
pub struct Scene<'a> {
    pub server: &'a Running,
    canary: &'a Canary,
    load: Runtime,
    windows: RefCell<Vec<Window>>,
}

/// How an attack is made: it opens windows one after the other.
pub type Play = fn(&Scene) -> io::Result<()>;

/// Starts a daemon and a canary, plays, ends the canary, and measures the daemon's memory after `rest`. `tls`: what the canary's
/// connections trust.
pub fn run(program: &Path, options: &[&str], tls: Option<TlsConnector>, play: Play, rest: Duration) -> io::Result<Run> {
    let server = Running::daemon(program, options)?;
    let canary = Canary::new(server.address, tls);
    let played = std::thread::scope(|scope| {
        let singer = scope.spawn(|| canary.run());
        let attacker = scope.spawn(|| {
            // The two share a processor: what the canary waits for is the daemon and not the attacker.
            rustix::process::nice(NICE)?;
            play_out(&server, &canary, play)
        });
        let played = attacker.join().map_err(|_| io::Error::other("the attacker panicked"))?;
        canary.end();
        singer.join().map_err(|_| io::Error::other("the canary panicked"))??;
        played
    });
    let (mut windows, trouble) = played?;
    runtime()?.block_on(async { tokio::time::sleep(rest).await });
    // To close what the last window opened may be the most.
    if let Some(last) = windows.last_mut() {
        last.peak = server.peak()?;
    }
    Ok(Run { windows, after: server.memory()?, account: canary.account(), trouble })
}

fn play_out(server: &Running, canary: &Arc<Canary>, play: Play) -> io::Result<(Vec<Window>, Option<io::Error>)> {
    let scene = Scene { server, canary, load: runtime()?, windows: RefCell::default() };
    scene.first(async {
        let end = Instant::now() + Duration::from_secs(10);
        while !canary.is_open() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Its first posts open connections.
        tokio::time::sleep(Duration::from_millis(500)).await;
        if canary.is_open() { Ok(()) } else { Err(io::Error::other("the canary's stream did not open")) }
    })?;
    let trouble = play(&scene).err();
    Ok((scene.windows.take(), trouble))
}

impl Scene<'_> {
    /// Does something that has to be there before a window opens.
    pub fn first<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        self.load.block_on(work)
    }

    /// Lets the daemon come to rest.
    pub fn pause(&self, time: Duration) {
        self.load.block_on(async { tokio::time::sleep(time).await });
    }

    /// Does something and watches.
    pub fn window(&self, what: &'static str, work: impl Future<Output = io::Result<Vec<Note>>>) -> io::Result<()> {
        self.server.forget_peak()?;
        self.canary.look();
        let (cpu, began) = (self.server.cpu()?, Instant::now());
        let notes = self.load.block_on(work);
        let (canary, cpu, peak) = (self.canary.seen(), self.server.load(cpu, began)?, self.server.peak()?);
        let (notes, trouble) = notes.map_or_else(|error| (vec![], Err(error)), |notes| (notes, Ok(())));
        self.windows.borrow_mut().push(Window { what, canary, cpu, peak, notes });
        trouble
    }
}

/// A task that ends with this value.
pub struct Task(tokio::task::JoinHandle<()>);

impl Task {
    pub fn spawn(work: impl Future<Output = io::Result<()>> + Send + 'static) -> Self {
        // Connections that the daemon closes are no trouble: whoever wants to know counts them.
        Self(spawn(async { drop(work.await) }))
    }

    /// Waits for its end.
    pub async fn end(mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A runtime that sleeps when there is nothing to do, because the canary needs the processor too.
fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

pub fn mib(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1_024.0
}

/// How much the attacker stands back.
const NICE: i32 = 10;
