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
        Ok(vec![])
    })?;
    scene.window("15 s with full mailboxes", async {
        sleep(Duration::from_secs(15)).await;
        let mut caller = Caller::open(address, 1).await?;
        let good = caller.get("/readyz").await?.0;
        Ok(vec![Note(f64::from(u8::from(good)), "of 1 ready")])
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

/// Together the 256 KiB of a mailbox, less what the daemon counts for each message.
const PIECES: [usize; 3] = [102_395, 102_395, 56_770];

const CLERKS: u32 = 16;
