//! Attacks on the door: peers that leave without a word (row 1), and a daemon that stands still for a while (row 14).

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use memchr::memmem;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::sleep,
};

use super::scene::{Note, Scene, Task};
use crate::{
    http1,
    http2::{self, Call},
    load::{SMALL, Tally},
};

/// Health watches over HTTP/1.1, each closed after its first frame.
pub fn watches_that_leave(scene: &Scene) -> io::Result<()> {
    scene.window("2,000 health watches that close", async {
        let before = scene.server.descriptors()?;
        let address = scene.server.address;
        let leave = move |clerk: u32| async move {
            for number in 0..2_000 / CLERKS {
                watch_and_leave(address, clerk * 1_000 + number).await?;
            }
            Ok(())
        };
        for task in (0..CLERKS).map(|clerk| Task::spawn(leave(clerk))).collect::<Vec<_>>() {
            task.end().await;
        }
        sleep(Duration::from_secs(10)).await;
        let kept = scene.server.descriptors()?.saturating_sub(before);
        Ok(vec![Note(count(kept), "descriptors kept 10 s later")])
    })
}

async fn watch_and_leave(address: SocketAddr, number: u32) -> io::Result<()> {
    let mut stream = http1::connect(address, number, None).await?;
    let head = format!(
        "POST /grpc.health.v1.Health/Watch HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/grpc-web+proto\r\n\
         content-length: 5\r\n\r\n\0\0\0\0\0"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut bytes = Vec::with_capacity(1_024);
    // More than the head: a frame.
    while memmem::find(&bytes, b"\r\n\r\n").is_none_or(|end| bytes.len() == end + 4) {
        if stream.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Readers that read, and a daemon that does not run for a while.
pub fn stop(scene: &Scene) -> io::Result<()> {
    const READERS: u32 = 200;
    let tally = Arc::new(Tally::new(READERS));
    let address = scene.server.address;
    scene.first(http1::subscribe_all(address, &tally))?;
    scene.window("SIGSTOP for 8 s, 200 readers", async {
        let end = tally.now() + Duration::from_secs(20);
        // Many at once for each reader, so that messages wait in the daemon when it stops.
        let publish = |clerk: u32| {
            let devices: Vec<_> = (0..READERS).skip(clerk as usize).step_by(4).collect();
            let published = http2::publish(address, Call::Http, devices.repeat(8), SMALL, end, tally.clone());
            Task::spawn(published)
        };
        let publishers: Vec<_> = (0..4).map(publish).collect();
        sleep(Duration::from_secs(3)).await;
        scene.server.signal(Signal::STOP)?;
        sleep(Duration::from_secs(8)).await;
        scene.server.signal(Signal::CONT)?;
        for publisher in publishers {
            publisher.end().await;
        }
        let cut = tally.ended.load(Ordering::Relaxed);
        Ok(vec![Note(f64::from(u32::try_from(cut).unwrap_or(u32::MAX)), "of 200 streams cut")])
    })
}

/// Connections at a time.
const CLERKS: u32 = 50;

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
