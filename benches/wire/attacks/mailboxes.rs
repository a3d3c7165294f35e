//! Attacks on the memory budget: mailboxes that hold as much as they may (row 5).

use std::{io, net::SocketAddr, time::Duration};

use tokio::time::sleep;

use super::{
    scene::{Note, Scene, Task},
    swarm::Caller,
};

/// Fills mailboxes of absent devices, each with what may wait in one, and looks at what is left for others.
pub fn held(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    scene.window("4,103 mailboxes with 256 KiB each", async {
        for task in (0..CLERKS).map(|clerk| Task::spawn(fill(address, clerk))).collect::<Vec<_>>() {
            task.end().await;
        }
        top_up(address).await?;
        Ok(vec![])
    })?;
    scene.window("15 s with full mailboxes", async {
        sleep(Duration::from_secs(15)).await;
        let mut caller = Caller::open(address, 1).await?;
        let (ready, _) = caller.get("/readyz").await?;
        Ok(vec![Note(ready.into(), "from /readyz")])
    })
}

async fn fill(address: SocketAddr, clerk: u32) -> io::Result<()> {
    let mut caller = Caller::open(address, clerk).await?;
    for number in (0..4_103).skip(clerk as usize).step_by(CLERKS as usize) {
        for size in PIECES {
            caller.post(&format!("/user/held{number}/device/d"), "ttl: 60\r\n", &vec![b'x'; size]).await?;
        }
    }
    Ok(())
}

/// Small ones, until there is no room for the smallest that the canary could send.
async fn top_up(address: SocketAddr) -> io::Result<()> {
    let mut caller = Caller::open(address, 1).await?;
    for size in [1_000, 100] {
        for number in 0..1_000 {
            let path = format!("/user/small{number}/device/d{size}");
            if caller.post(&path, "ttl: 60\r\n", &vec![b'x'; size]).await?.0 == 503 {
                break;
            }
        }
    }
    Ok(())
}

/// Together the 256 KiB of a mailbox, less what the daemon counts for each message.
const PIECES: [usize; 3] = [102_395, 102_395, 56_770];

const CLERKS: u32 = 16;
