//! Streams that begin: new ones with and without Redis, and such as come from another node.

use std::{io, net::SocketAddr};

use memchr::memmem;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use crate::{
    Rows, Wishes,
    figures::{median, quantile},
    http1::Lines,
    scene::{Scene, runtime},
};

/// Streams of one round.
const STREAMS: u32 = 400;

pub fn streams(wishes: &Wishes, rows: &mut Rows) -> io::Result<()> {
    let scene = Scene::start(wishes, 2)?;
    let (nodes, alone) = ([scene.nodes[0].address, scene.nodes[1].address], scene.alone.address);
    let load = runtime()?;
    let (mut without, mut with, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=wishes.rounds {
        let first = round * STREAMS;
        let figures = load.block_on(async {
            Ok::<_, io::Error>([
                opened(alone, first).await?,
                opened(nodes[round as usize % 2], first).await?,
                resumed(nodes, round).await?,
            ])
        })?;
        // The first round warms up.
        if round > 0 {
            for (all, figure) in [&mut without, &mut with, &mut moved].into_iter().zip(figures) {
                all.push(figure);
            }
        }
    }
    let (without, with, moved) = (median(without), median(with), median(moved));
    let more = format!("{:.2} ms ({with:.0} us and not {without:.0})", (with - without) / 1e3);
    rows.add("a new subscribe: what it takes more, p50", "0.25 ms", "0.15 ms", more);
    rows.add("a resume on another node, p50", "1.5 ms", "0.8 ms", format!("{:.2} ms", moved / 1e3));
    Ok(())
}

/// A stream that was opened.
struct Opened {
    /// From the request to the opening event, in microseconds.
    time: u32,
    cursor: String,
    resumed: bool,
    _lines: Lines<TcpStream>,
}

impl Opened {
    async fn open(address: SocketAddr, path: &str, cursor: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let cursor = if cursor.is_empty() { String::new() } else { format!("last-event-id: {cursor}\r\n") };
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{cursor}\r\n");
        let began = Instant::now();
        stream.write_all(head.as_bytes()).await?;
        let (mut lines, mut cursor, mut resumed) = (Lines::new(stream), String::new(), false);
        // The block of the opening: `data` may stand before or after `id`.
        let mut ready = false;
        while !ready || cursor.is_empty() {
            let line = lines.next().await?;
            if let Some(id) = line.strip_prefix(b"id: ") {
                cursor = String::from_utf8_lossy(id).trim_end().to_owned();
            }
            if memmem::find(line, b"heartbeat_ms").is_some() {
                ready = true;
                resumed = memmem::find(line, b"\"resumed\"").is_some();
            }
        }
        let time = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        Ok(Self { time, cursor, resumed, _lines: lines })
    }
}

/// The median time of a stream of a device that nobody knew.
async fn opened(address: SocketAddr, first: u32) -> io::Result<f64> {
    let (mut times, mut open) = (Vec::new(), Vec::new());
    for device in first..first + STREAMS {
        let opened = Opened::open(address, &format!("/subscribe/new{device}/device/d"), "").await?;
        times.push(opened.time);
        open.push(opened);
    }
    Ok(quantile(&mut times, 0.5).into())
}

/// The median time of a stream that a device resumes at the other node. Its old stream is still open.
async fn resumed(nodes: [SocketAddr; 2], round: u32) -> io::Result<f64> {
    let path = format!("/subscribe/moved{round}/device/d");
    let mut current = Opened::open(nodes[1], &path, "").await?;
    let mut times = Vec::new();
    for number in 0..STREAMS {
        let next = Opened::open(nodes[number as usize % 2], &path, &current.cursor).await?;
        if !next.resumed {
            return Err(io::Error::other("a device did not resume"));
        }
        times.push(next.time);
        current = next;
    }
    Ok(quantile(&mut times, 0.5).into())
}
