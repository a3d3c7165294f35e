//! What streams cost while nothing happens: the CPU of a server that holds many, over HTTP/2 and HTTP/1.1.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::{
    Wishes,
    figures::Table,
    http1,
    http2::{self, Call},
    load::{PUBLISHERS, Tally, runtime, spawn},
    nchan::Nchan,
    servers::{Kind, Running},
};

/// Connections of HTTP/2, with so many streams on each.
const CONNECTIONS: u32 = 300;
const EACH: u32 = 1_000;

/// Long enough for the work of the opening to be over.
const SETTLE: Duration = Duration::from_secs(5);

/// What was seen in the window.
struct Seen {
    /// Percent of a core.
    load: f64,
    pings: u64,
}

pub fn idle(wishes: &Wishes, table: &mut Table) -> io::Result<()> {
    let quiet: &[&str] = &["--heartbeat", "600"];
    for (what, options) in [("no pings due", quiet), ("default heartbeat", &[])] {
        let what = format!("{} idle streams, HTTP/2, {what}", CONNECTIONS * EACH);
        compare(wishes, table, &what, |kind| over_http2(wishes, kind, options))?;
    }
    let what = format!("{} idle streams, HTTP/1.1, default heartbeat", wishes.streams);
    compare(wishes, table, &what, |kind| {
        let server = Running::start(wishes, kind, &[])?;
        over_http1(wishes, &server, |device| format!("/subscribe/u{device}/device/d"))
    })?;
    if let Some(nchan) = Nchan::start()? {
        let seen = over_http1(wishes, &nchan.server, Nchan::path)?;
        row(wishes, table, &what, "nginx with nchan", &seen, "");
    }
    Ok(())
}

/// The daemon, and after it the other build of it where one is named.
fn compare(
    wishes: &Wishes,
    table: &mut Table,
    what: &str,
    measure: impl Fn(Kind) -> io::Result<Seen>,
) -> io::Result<()> {
    let daemon = measure(Kind::Daemon)?;
    row(wishes, table, what, Kind::Daemon.name(), &daemon, "");
    if wishes.old.is_some() {
        let old = measure(Kind::Old)?;
        let times = format!(", {:.1} times the daemon's", old.load / daemon.load);
        row(wishes, table, what, Kind::Old.name(), &old, &times);
    }
    Ok(())
}

fn row(wishes: &Wishes, table: &mut Table, what: &str, server: &str, seen: &Seen, times: &str) {
    let remark = format!("% of a core{times}, {} pings in {} s", seen.pings, wishes.idle.as_secs());
    table.row(what, server, format!("{:.2}", seen.load), remark);
}

fn over_http2(wishes: &Wishes, kind: Kind, options: &[&str]) -> io::Result<Seen> {
    let server = Running::start(wishes, kind, options)?;
    let tally = Arc::new(Tally::new(0));
    runtime()?.block_on(async {
        for connection in 0..CONNECTIONS {
            let devices = connection * EACH..(connection + 1) * EACH;
            spawn(http2::subscribe(server.address, Call::Http, devices, tally.clone()));
        }
        tally.opened((CONNECTIONS * EACH).into()).await?;
        watch(wishes, &server, &tally).await
    })
}

fn over_http1(wishes: &Wishes, server: &Running, path: impl Fn(u32) -> String) -> io::Result<Seen> {
    let tally = Arc::new(Tally::new(wishes.streams));
    let paths: Arc<[String]> = (0..wishes.streams).map(path).collect();
    let next = Arc::new(AtomicU32::new(0));
    runtime()?.block_on(async {
        for _ in 0..PUBLISHERS {
            let (address, next, paths, tally) = (server.address, next.clone(), paths.clone(), tally.clone());
            spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = paths.get(number as usize) else { return };
                    let Ok(stream) = open(address, number, path).await else { return };
                    tally.open.fetch_add(1, Ordering::Relaxed);
                    spawn(count(stream, tally.clone()));
                }
            });
        }
        tally.opened(wishes.streams.into()).await?;
        watch(wishes, server, &tally).await
    })
}

/// Measures over the window, in which no stream may end.
async fn watch(wishes: &Wishes, server: &Running, tally: &Tally) -> io::Result<Seen> {
    tokio::time::sleep(SETTLE).await;
    let (cpu, began, pings) = (server.cpu()?, Instant::now(), tally.pings.load(Ordering::Relaxed));
    tokio::time::sleep(wishes.idle).await;
    let seen = Seen { load: server.load(cpu, began)?, pings: tally.pings.load(Ordering::Relaxed) - pings };
    if tally.wrong.load(Ordering::Relaxed) + tally.ended.load(Ordering::Relaxed) > 0 {
        return Err(io::Error::other("idle streams ended"));
    }
    Ok(seen)
}

/// Opens an event stream at any server.
async fn open(address: SocketAddr, number: u32, path: &str) -> io::Result<TcpStream> {
    let mut stream = http1::connect(address, number, None).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if start.ends_with(b" 200") { Ok(stream) } else { Err(io::Error::other("an event stream was refused")) }
}

/// Reads for ever; whatever comes once the stream is open counts as a ping.
async fn count(mut stream: TcpStream, tally: Arc<Tally>) {
    let mut bytes = [0; 512];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {
        tally.pings.fetch_add(1, Ordering::Relaxed);
    }
    tally.ended.fetch_add(1, Ordering::Relaxed);
}
