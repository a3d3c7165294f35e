//! Attacks on the door: peers that leave without a word (row 1), and a daemon that stands still for a while (row 14).

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use memchr::memmem;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{
    scene::{Note, Scene, Task},
    swarm::Caller,
};
use crate::http1;

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

/// Readers that read, broadcasts to all of them one after the other, and a daemon that does not run for a while.
pub fn stop(scene: &Scene) -> io::Result<()> {
    let address = scene.server.address;
    let cut = Arc::new(AtomicU32::new(0));
    let _readers = scene.first(async {
        let mut readers = Vec::new();
        for number in 0..200 {
            let mut stream = http1::connect(address, number, None).await?;
            let head = format!("GET /subscribe/crowd/device/d{number} HTTP/1.1\r\nhost: {address}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.read_u8().await?;
            readers.push(Task::spawn(read(stream, cut.clone())));
        }
        Ok(readers)
    })?;
    scene.window("SIGSTOP for 8 s, 200 readers", async {
        let senders: Vec<_> = (0..4).map(|number| Task::spawn(broadcast(address, number))).collect();
        sleep(Duration::from_secs(3)).await;
        scene.server.signal(Signal::STOP)?;
        sleep(Duration::from_secs(8)).await;
        scene.server.signal(Signal::CONT)?;
        sleep(Duration::from_secs(8)).await;
        drop(senders);
        Ok(vec![Note(cut.load(Ordering::Relaxed).into(), "of 200 streams cut")])
    })
}

async fn read(mut stream: TcpStream, cut: Arc<AtomicU32>) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1_024];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
    cut.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

async fn broadcast(address: SocketAddr, number: u32) -> io::Result<()> {
    let mut caller = Caller::open(address, number).await?;
    loop {
        caller.post("/user/crowd/devices", "", &[b'x'; 1_200]).await?;
    }
}

/// Connections at a time.
const CLERKS: u32 = 50;

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
