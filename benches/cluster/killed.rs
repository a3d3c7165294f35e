//! A node is killed, and all its devices come back to two others.

use std::{io, sync::atomic::Ordering};

use rustix::process::Signal;
use tokio::time::Instant;

use crate::{
    Rows, Wishes, crowd,
    figures::median,
    scene::{Scene, runtime},
};

/// Each run starts everything anew.
const RUNS: u32 = 3;

pub fn killed(wishes: &Wishes, rows: &mut Rows) -> io::Result<()> {
    let (mut seconds, mut told_to_wait) = (Vec::new(), 0);
    for _ in 0..RUNS.min(wishes.rounds) {
        let scene = Scene::start(wishes, 3)?;
        runtime()?.block_on(async {
            crowd::open(scene.nodes[0].address, 0..wishes.streams).await?;
            let began = Instant::now();
            scene.nodes[0].signal(Signal::KILL)?;
            let half = wishes.streams / 2 / crowd::EACH * crowd::EACH;
            let (one, other) = tokio::join!(
                crowd::open(scene.nodes[1].address, 0..half),
                crowd::open(scene.nodes[2].address, half..wishes.streams)
            );
            seconds.push(began.elapsed().as_secs_f64());
            for seen in [one?, other?] {
                told_to_wait += seen.told_to_wait.load(Ordering::Relaxed);
            }
            Ok::<_, io::Error>(())
        })?;
    }
    let what = format!("{} streams of a killed node come back to two others", wishes.streams);
    let more = if told_to_wait > 0 { format!(" ({told_to_wait} were told to come again)") } else { String::new() };
    rows.add(&what, "10 s", "4 s", format!("{:.1} s{more}", median(seconds)));
    Ok(())
}
