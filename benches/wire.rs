//! The daemon under load, over real sockets: `cargo bench --bench wire -- [--streams 1000] [--rate 5000] [--seconds 60]`.
//!
//! Starts the daemon as a process of its own, opens event streams, and posts to them at a fixed rate. Every message carries its
//! receiver and its number, so a message that is lost, repeated, out of order or at the wrong stream is seen and counted. Prints
//! the daemon's memory (PSS) over time and its CPU time per message.

use std::{
    io::{self, BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader as AsyncBufReader},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

const PUBLISHERS: u64 = 64;

#[derive(Default)]
struct Tally {
    posted: AtomicU64,
    refused: AtomicU64,
    received: AtomicU64,
    wrong: AtomicU64,
    late: AtomicU64,
    open: AtomicU64,
}

struct Daemon {
    process: Child,
    address: String,
}

struct Load {
    streams: u64,
    rate: u64,
    seconds: u64,
}

fn main() -> io::Result<()> {
    let load =
        Load { streams: option("--streams", 1_000), rate: option("--rate", 5_000), seconds: option("--seconds", 60) };
    let mut daemon = Daemon::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clean = runtime.block_on(run(&daemon, &load))?;
    runtime.shutdown_background();
    daemon.process.kill()?;
    daemon.process.wait()?;
    if clean { Ok(()) } else { Err(io::Error::other("messages were lost, repeated or refused")) }
}

async fn run(daemon: &Daemon, load: &Load) -> io::Result<bool> {
    let tally = Arc::new(Tally::default());
    let empty = daemon.pss_kib()?;
    for device in 0..load.streams {
        let (address, tally) = (daemon.address.clone(), tally.clone());
        spawn(async move { receive(&address, device, &tally).await });
    }
    while tally.open.load(Ordering::Relaxed) < load.streams {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let idle = daemon.pss_kib()?;
    println!("{} idle streams: {} bytes of PSS each", load.streams, (idle - empty) * 1024 / load.streams);
    let cpu = daemon.cpu_ticks()?;
    let end = Instant::now() + Duration::from_secs(load.seconds);
    let publishers: Vec<_> = (0..PUBLISHERS.min(load.streams))
        .map(|number| {
            let (address, tally) = (daemon.address.clone(), tally.clone());
            let (streams, rate) = (load.streams, load.rate);
            spawn(async move { publish(&address, number, streams, rate, end, &tally).await })
        })
        .collect();
    println!("{:>8} {:>10} {:>10} {:>10}", "seconds", "posted", "received", "PSS KiB");
    let mut clock = interval(Duration::from_secs(10));
    let began = clock.tick().await;
    while Instant::now() + Duration::from_secs(1) < end {
        clock.tick().await;
        report(daemon, &tally, began)?;
    }
    for publisher in publishers {
        publisher.await.map_err(io::Error::other)??;
    }
    let all = async {
        while tally.received.load(Ordering::Relaxed) < tally.posted.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let whole = timeout(Duration::from_secs(10), all).await.is_ok();
    report(daemon, &tally, began)?;
    Ok(conclude(&tally, daemon.cpu_ticks()? - cpu) && whole)
}

fn conclude(tally: &Tally, ticks: u64) -> bool {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (posted, received) = (read(&tally.posted), read(&tally.received));
    let (refused, wrong, late) = (read(&tally.refused), read(&tally.wrong), read(&tally.late));
    // A tick is 10 ms on Linux.
    println!("CPU per message: {} us", ticks * 10_000 / received.max(1));
    println!("lost {}, out of order or twice {wrong}, refused {refused}", posted.saturating_sub(received));
    println!("posts begun more than 100 ms after their time: {late}");
    wrong == 0 && refused == 0
}

fn report(daemon: &Daemon, tally: &Tally, began: Instant) -> io::Result<()> {
    let (posted, received) = (tally.posted.load(Ordering::Relaxed), tally.received.load(Ordering::Relaxed));
    println!("{:>8} {posted:>10} {received:>10} {:>10}", began.elapsed().as_secs(), daemon.pss_kib()?);
    Ok(())
}

/// Reads one stream for ever and checks that its messages are its own, in order.
async fn receive(address: &str, device: u64, tally: &Tally) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET /subscribe/u{device}/device/d HTTP/1.1\r\nhost: bench\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut lines = AsyncBufReader::with_capacity(1_024, stream).lines();
    let mut next = 0;
    while let Some(line) = lines.next_line().await? {
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data.contains("heartbeat_ms") {
            tally.open.fetch_add(1, Ordering::Relaxed);
        } else if let Some(data) = data.strip_prefix('#') {
            if data != format!("{device} {next}") {
                tally.wrong.fetch_add(1, Ordering::Relaxed);
            }
            next += 1;
            tally.received.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Posts to every device that is this publisher's, in turn, at its share of the rate, over one connection.
async fn publish(address: &str, number: u64, streams: u64, rate: u64, end: Instant, tally: &Tally) -> io::Result<()> {
    let publishers = PUBLISHERS.min(streams);
    let mine: Vec<u64> = (0..streams).filter(|device| device % publishers == number).collect();
    let mut connection = AsyncBufReader::new(TcpStream::connect(address).await?);
    connection.get_ref().set_nodelay(true)?;
    let mut clock =
        interval(Duration::from_secs(1) * u32::try_from(publishers).unwrap_or(1) / u32::try_from(rate).unwrap_or(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for round in 0.. {
        for device in &mine {
            let due = clock.tick().await;
            if due >= end {
                return Ok(());
            }
            if due.elapsed() > Duration::from_millis(100) {
                tally.late.fetch_add(1, Ordering::Relaxed);
            }
            let body = format!("data=%23{device}+{round}&pad={:0>180}", 0);
            let head = format!(
                "POST /user/u{device}/device/d HTTP/1.1\r\nhost: bench\r\n\
                 content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            connection.get_mut().write_all(head.as_bytes()).await?;
            if answer(&mut connection).await?.starts_with("HTTP/1.1 200 ") {
                tally.posted.fetch_add(1, Ordering::Relaxed);
            } else {
                tally.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// The status line of an answer, whose headers and body are read too.
async fn answer(connection: &mut AsyncBufReader<TcpStream>) -> io::Result<String> {
    let (mut status, mut line, mut length) = (String::new(), String::new(), 0);
    connection.read_line(&mut status).await?;
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    connection.read_exact(&mut vec![0; length]).await?;
    Ok(status)
}

impl Daemon {
    fn start() -> io::Result<Self> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_backend-signal"))
            .args(["--host", "127.0.0.1", "--port", "0", "--auth", "none", "--header-timeout", "60"])
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(process.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?);
        let mut line = String::new();
        log.read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(Self { process, address })
    }

    /// Proportional set size, as the kernel accounts it.
    fn pss_kib(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).ok_or_else(|| io::Error::other("no Pss line"))
    }

    /// User and system time so far.
    fn cpu_ticks(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
        Ok(fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
    }
}

#[expect(clippy::disallowed_methods, reason = "a load generator has no drain")]
fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

fn option(name: &str, default: u64) -> u64 {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}
