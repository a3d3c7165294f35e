//! Attacks of peers that do not read: answers of all kinds (row 2), one broadcast to many streams (row 7).

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::sleep,
};

use super::{
    scene::{Note, Scene, mib},
    swarm::{Caller, EVENTS, Swarm},
};
use crate::http1;

/// Requests whose answers have no room: the streams' windows are 0. PINGs are answered.
pub fn answers(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    let device = |number: u32| format!("{number:0>250}");
    let devices = Swarm::reading(address, 1, 1_000);
    let _present = scene.first(devices.open(|_, number| format!("/subscribe/crowd/device/{}", device(number))))?;
    let kinds =
        [("10 x 1,000 /metrics, window 0", "/metrics"), ("10 x 1,000 404s", "/nothing"), ("10 x 1,000 lists", LIST)];
    for (what, path) in kinds {
        scene.window(what, async {
            let before = scene.server.memory()?;
            let swarm = Swarm { address, connections: 10, streams: 1_000, window: 0, accept: "*/*" };
            let (counts, _tasks) = swarm.open(|_, _| path.to_owned()).await?;
            sleep(Duration::from_secs(12)).await;
            let each = mib(scene.server.peak()?.saturating_sub(before)) / 10.0;
            Ok(vec![Note(each, "MiB a connection at most"), counts.note("of 10,000 answers kept for 12 s")])
        })?;
        // What the closed connections kept goes back to the system.
        scene.pause(Duration::from_secs(3));
    }
    Ok(())
}

const LIST: &str = "/user/crowd/devices";

/// One broadcast of 100 KB to streams that take their opening and nothing more.
pub fn broadcast(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    let streams = scene.first(async {
        let mut streams = Vec::new();
        for number in 0..5_000 {
            let mut stream = http1::connect(address, number, Some(4_096)).await?;
            let head = format!(
                "GET /subscribe/crowd1/device/d{number} HTTP/1.1\r\nhost: {address}\r\naccept: {EVENTS}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            stream.read_u8().await?;
            streams.push(stream);
        }
        Ok(streams)
    })?;
    scene.window("100 KB to 5,000 of HTTP/1.1", send_to(scene, "/user/crowd1/devices"))?;
    drop(streams);
    let swarm = Swarm { address, connections: 5, streams: 1_000, window: 1_000, accept: EVENTS };
    let path = |connection, stream| format!("/subscribe/crowd2/device/d{connection}x{stream}");
    scene.pause(Duration::from_secs(3));
    let (counts, _tasks) = scene.first(swarm.open(path))?;
    scene.window("100 KB to 5 x 1,000 of HTTP/2", async {
        let mut notes = send_to(scene, "/user/crowd2/devices").await?;
        notes.push(counts.note("of 5,000 streams kept for 8 s"));
        Ok(notes)
    })
}

async fn send_to(scene: &Scene<'_>, path: &str) -> io::Result<Vec<Note>> {
    let before = scene.server.memory()?;
    let (_, took) = Caller::open(scene.server.address, 1).await?.post(path, "", &vec![b'x'; 100_000]).await?;
    sleep(Duration::from_secs(8)).await;
    let more = mib(scene.server.peak()?.saturating_sub(before));
    Ok(vec![Note(more, "MiB more at most"), Note(took, "ms for the broadcast")])
}
