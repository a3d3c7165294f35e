//! Attacks by way of one user with many devices: watchers (row 3), a million of held messages (row 4), broadcasts (row 6).

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    scene::{Note, Scene, Task},
    swarm::{Caller, Swarm, post_all},
};
use crate::{
    figures::median,
    frames::{Connection, GET, RST_STREAM},
};

/// Watchers of a user whose devices come and go.
pub fn watchers(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    for (what, connections) in [("1 x 1,000 watchers", 1), ("100 x 1,000 watchers", 100)] {
        let swarm = Swarm::reading(address, connections, 1_000);
        let (counts, _tasks) = scene.first(swarm.open(|_, _| "/user/crowd/devices".to_owned()))?;
        scene.window(what, async {
            let before = counts.pieces();
            let changes = Task::spawn(come_and_go(address));
            sleep(WINDOW).await;
            drop(changes);
            let pieces = f64::from(u32::try_from(counts.pieces() - before).unwrap_or(u32::MAX));
            Ok(vec![Note(pieces / WINDOW.as_secs_f64(), "writes a second to watchers"), counts.note("watches left")])
        })?;
    }
    Ok(())
}

/// A hundred times a second a device comes, stays for 0.1 s, and goes.
async fn come_and_go(address: SocketAddr) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    let mut tick = interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut open = VecDeque::new();
    // It is gone for more than 2 s before it comes again: less would be no change.
    for number in (0..250).cycle() {
        loop {
            tokio::select! {
                _ = tick.tick() => break,
                turn = connection.turn(|_| ()) => turn?,
            }
        }
        open.push_back(connection.request(GET, &format!("/subscribe/crowd/device/d{number}"), &[], true));
        if open.len() > 10
            && let Some(stream) = open.pop_front()
        {
            connection.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        }
    }
    Ok(())
}

/// Posts with a TTL to a million devices of a user, and what else is asked of that user then.
pub fn million(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    scene.window("1,000,000 held posts to one user", async {
        let began = Instant::now();
        let post = |clerk: u32| {
            let paths = (clerk..1_000_000).step_by(4).map(|number| format!("/user/crowd/device/d{number}"));
            Task::spawn(post_all(address, &[("ttl", "60")], paths, 100))
        };
        for task in (0..4).map(post).collect::<Vec<_>>() {
            task.end().await;
        }
        Ok(vec![Note(began.elapsed().as_secs_f64(), "s of posting")])
    })?;
    scene.window("nothing, after the million", async {
        sleep(Duration::from_secs(5)).await;
        Ok(vec![])
    })?;
    let mut caller = scene.first(Caller::open(address, 1))?;
    scene.window("lists and broadcasts", async {
        let (mut lists, mut broadcasts) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            lists.push(caller.get(LIST).await?.1);
            broadcasts.push(caller.post(LIST, "", b"x").await?.1);
        }
        Ok(vec![Note(median(lists), "ms for a list"), Note(median(broadcasts), "ms for a broadcast")])
    })?;
    scene.window("20 listers", async {
        let list = |number| async move {
            let mut caller = Caller::open(address, number).await?;
            loop {
                caller.get(LIST).await?;
            }
        };
        let _listers: Vec<_> = (0..20).map(|number| Task::spawn(list(number))).collect();
        sleep(Duration::from_secs(6)).await;
        Ok(vec![])
    })?;
    scene.window("opening 10 watches", async {
        let began = Instant::now();
        let (counts, _tasks) = Swarm::reading(address, 1, 10).open(|_, _| LIST.to_owned()).await?;
        Ok(vec![Note(began.elapsed().as_secs_f64() * 1e3, "ms for all"), counts.note("watches left")])
    })
}

const LIST: &str = "/user/crowd/devices";

/// Three broadcasts of 100 KB to 6,000 devices of one user, all of which read.
pub fn broadcasts(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    let path = |connection, stream| format!("/subscribe/crowd/device/d{connection}x{stream}");
    let (counts, _tasks) = scene.first(Swarm::reading(address, 6, 1_000).open(path))?;
    scene.window("3 broadcasts of 100 KB to 6,000 readers", async {
        let mut caller = Caller::open(address, 1).await?;
        let mut good = 0_u8;
        for _ in 0..3 {
            let (status, _) = caller.post(LIST, "", &vec![b'x'; 100_000]).await?;
            good += u8::from(status == 200);
            sleep(Duration::from_secs(1)).await;
        }
        sleep(WINDOW).await;
        Ok(vec![Note(good.into(), "of 3 accepted"), counts.note("streams left")])
    })
}

/// How long the canary is watched.
const WINDOW: Duration = Duration::from_secs(10);
