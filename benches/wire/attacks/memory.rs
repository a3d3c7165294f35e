//! Attacks on memory: mailboxes that hold as much as they may (row 5), a spike of what is held and of half bodies (row 12).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{
    scene::{Note, Scene, Task, mib},
    swarm::{Caller, FORM, Swarm},
};
use crate::http1;

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
        // Devices of others, which have nothing to give up for a new message as the canary has.
        let swarm = Swarm::reading(address, 1, 100);
        let (_, _tasks) = swarm.open(|_, number| format!("/subscribe/other{number}/device/d")).await?;
        let (mut caller, mut failed) = (Caller::open(address, 1).await?, 0_u8);
        for number in 0..100 {
            let (status, _) = caller.post(&format!("/user/other{number}/device/d"), "", &[b'x'; 1_200]).await?;
            failed += u8::from(status != 200);
            sleep(Duration::from_millis(150)).await;
        }
        Ok(vec![Note(failed.into(), "of 100 posts to others failed")])
    })
}

/// Memory that is taken for a moment: bodies that lack their last byte until their peers leave, then messages that are held for
/// a few seconds. What the daemon keeps of it is what counts.
pub fn spikes(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    scene.window("a spike of 3,000 half bodies of 100 KB", async {
        let body: Arc<[u8]> = vec![b'x'; LENGTH - 6].into();
        let mut tasks = Vec::new();
        for number in 0..3_000 {
            let stream = http1::connect(address, number, None).await?;
            tasks.push(Task::spawn(half_body(stream, address, body.clone())));
        }
        sleep(Duration::from_secs(4)).await;
        drop(tasks);
        sleep(Duration::from_secs(8)).await;
        Ok(vec![Note(mib(scene.server.memory()?), "MiB 8 s later")])
    })?;
    scene.window("a spike of 5,000 messages of 100 KB, held for 5 s", async {
        let mut caller = Caller::open(address, 1).await?;
        for number in 0..5_000 {
            caller.post(&format!("/user/held{number}/device/d"), "ttl: 5\r\n", &vec![b'x'; LENGTH]).await?;
        }
        sleep(Duration::from_secs(14)).await;
        Ok(vec![Note(mib(scene.server.memory()?), "MiB 8 s later")])
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
