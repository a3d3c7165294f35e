//! Attacks on memory: mailboxes that hold as much as they may (row 5), a spike of what is held and of half bodies (row 12).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{
    scene::{Scene, Task},
    swarm::{Caller, FORM, Swarm},
};
use crate::http1;

/// Fills mailboxes of absent devices, each with what may wait in one, and looks at what is left for others.
pub fn held(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    // A full daemon opens no more of them.
    let own = Swarm::reading(address, 1, OWN).open(|_, number| format!("/subscribe/own{number}/device/d"));
    let (_, _tasks) = scene.first(own)?;
    scene.window("4,103 mailboxes with 256 KiB each", async {
        for task in (0..CLERKS).map(|clerk| Task::spawn(fill(address, clerk))).collect::<Vec<_>>() {
            task.end().await;
        }
        top_up(address).await?;
        Ok(vec![])
    })?;
    scene.window("15 s with full mailboxes", async {
        sleep(Duration::from_secs(15)).await;
        Ok(vec![])
    })
}

/// Bodies that lack their last byte, until the attack is over and their peers leave.
pub fn half_bodies(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    scene.window("a spike of 3,000 half bodies of 100 KB", async {
        let body: Arc<[u8]> = vec![b'x'; LENGTH - 6].into();
        let mut tasks = Vec::new();
        for number in 0..3_000 {
            let stream = http1::connect(address, number, None).await?;
            tasks.push(Task::spawn(half_body(stream, address, body.clone())));
        }
        sleep(Duration::from_secs(4)).await;
        Ok(vec![])
    })
}

/// Messages whose time is over soon after the attack.
pub fn short_holds(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    scene.window("a spike of 5,000 messages of 100 KB, held for 5 s", async {
        let mut caller = Caller::open(address, 1).await?;
        for number in 0..5_000 {
            caller.post(&format!("/user/held{number}/device/d"), "ttl: 5\r\n", &vec![b'x'; LENGTH]).await?;
        }
        Ok(vec![])
    })
}

async fn half_body(mut stream: TcpStream, address: SocketAddr, body: Arc<[u8]>) -> io::Result<()> {
    let head = format!(
        "POST /user/nobody/device/d HTTP/1.1\r\nhost: {address}\r\ncontent-type: {FORM}\r\ncontent-length: {LENGTH}\r\n\r\ndata="
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    // Until the daemon has had enough of it, or the attack is over.
    stream.read_u8().await?;
    Ok(())
}

/// Bytes of a large body.
const LENGTH: usize = 100_000;

async fn fill(address: SocketAddr, clerk: u32) -> io::Result<()> {
    let mut caller = Caller::open(address, clerk).await?;
    for number in (0..4_103).skip(clerk as usize).step_by(CLERKS as usize) {
        for size in PIECES {
            caller.post(&format!("/user/held{number}/device/d"), "ttl: 60\r\n", &vec![b'x'; size]).await?;
        }
    }
    Ok(())
}

/// Live messages to devices of the attacker, which stay for replay, until there is no room for the smallest.
async fn top_up(address: SocketAddr) -> io::Result<()> {
    let mut caller = Caller::open(address, 1).await?;
    for size in [LENGTH, 1_000, 100] {
        for number in 0..200 {
            let path = format!("/user/own{}/device/d", number % OWN);
            if caller.post(&path, "", &vec![b'x'; size]).await?.0 == 503 {
                break;
            }
        }
    }
    Ok(())
}

/// Devices of the attacker.
const OWN: u32 = 10;

/// Together the 256 KiB of a mailbox, less what the daemon counts for each message.
const PIECES: [usize; 3] = [102_395, 102_395, 56_770];

const CLERKS: u32 = 16;
