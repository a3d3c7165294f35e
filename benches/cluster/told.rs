//! Redis loses everything, and a node tells it what it holds, while messages are sent.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::{
    Rows, Wishes, crowd,
    figures::quantile,
    http1,
    load::{Body, PUBLISHERS, SMALL, Tally, spawn},
    scene::{Scene, runtime},
};

/// Between two sends.
const PAUSE: Duration = Duration::from_millis(2);

pub fn told(wishes: &Wishes, rows: &mut Rows) -> io::Result<()> {
    let scene = Scene::start(wishes, 2)?;
    let (node, redis) = (scene.nodes[0].address, scene.redis.address);
    runtime()?.block_on(async {
        let tally = Arc::new(Tally::new(PUBLISHERS));
        http1::subscribe_all(node, &tally).await?;
        // Other devices than those that get messages.
        let crowd = crowd::EACH..crowd::EACH + wishes.streams;
        crowd::open(node, crowd).await?;
        let before = told_so_far(node).await?;
        let over = Arc::new(AtomicBool::new(false));
        let sending = spawn(sends(node, tally.clone(), over.clone()));
        TcpStream::connect(redis).await?.write_all(b"FLUSHALL\r\n").await?;
        let began = Instant::now();
        while told_so_far(node).await? < before + u64::from(wishes.streams) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let seconds = began.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        let mut times = sending.await.map_err(io::Error::other)??;
        let (tail, count) = (quantile(&mut times, 0.99), times.len());
        let what = format!("{} entries told again: p99 of {count} sends on the node meanwhile", wishes.streams);
        rows.add(
            &what,
            "20 ms",
            "",
            format!("{:.2} ms, and {seconds:.1} s until all were told", f64::from(tail) / 1e3),
        );
        Ok(())
    })
}

/// Sends to devices of the node, one message after the other. Gives the times, in microseconds.
async fn sends(node: SocketAddr, tally: Arc<Tally>, over: Arc<AtomicBool>) -> io::Result<Vec<u32>> {
    let mut connection = TcpStream::connect(node).await?;
    connection.set_nodelay(true)?;
    let (mut request, mut answer, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for device in (0..PUBLISHERS).cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        request.clear();
        request.extend_from_slice(Body::Form(SMALL).head(node, device).as_bytes());
        Body::Form(SMALL).write(&mut request, &tally, device, tally.now());
        let began = Instant::now();
        connection.write_all(&request).await?;
        if !http1::read_answer(&mut connection, &mut answer).await? {
            return Err(io::Error::other("a send to a device of the same node was refused"));
        }
        times.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

/// How many mailboxes the node has told, from its metrics.
async fn told_so_far(node: SocketAddr) -> io::Result<u64> {
    let mut connection = TcpStream::connect(node).await?;
    connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    connection.read_to_string(&mut text).await?;
    let value = text.lines().find_map(|line| line.strip_prefix("signal_cluster_told_total ")?.parse().ok());
    value.ok_or_else(|| io::Error::other("no such metric"))
}
