//! How fast, and at what cost of CPU: messages in a closed loop, latency in an open one, streams opened a second.

use std::{
    io::{self, Write as _},
    net::TcpStream,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{task::yield_now, time::Instant};

use crate::{
    Wishes,
    figures::{Table, median, quantile},
    http1,
    http2::{self, Call},
    load::{Body, PUBLISHERS, SMALL, Tally, runtime, spawn},
    servers::{Kind, Running},
};

/// A way of sending, at a server that has a stream open for every device.
struct Lane {
    kind: Kind,
    what: &'static str,
    server: Running,
    way: Way,
    /// Devices that each connection of HTTP/2 sends to.
    receivers: u32,
    tally: Arc<Tally>,
    rates: Vec<f64>,
    costs: Vec<f64>,
    tails: Vec<f64>,
}

/// How messages are sent.
#[derive(Clone, Copy)]
enum Way {
    Http1(Body),
    /// With [`SMALL`] messages.
    Http2(Call),
}

/// Connections of the lanes over HTTP/2; the senders share them evenly.
const CONNECTIONS: u32 = 4;

/// Messages that are on the way on one of them.
const EACH: u32 = PUBLISHERS / CONNECTIONS;

/// Turns that a round of the closed loop is cut into, so that what is compared was measured within seconds.
const TURNS: u32 = 4;

/// Closed loop: 64 messages are on their way, and the answer to one lets the next one go. Every sender has receivers of its own.
pub fn throughput(wishes: &Wishes, table: &mut Table) -> io::Result<()> {
    let lanes = [
        ("empty POST", Kind::Bare, Way::Http1(Body::Empty), EACH),
        ("POST, 200 B", Kind::Axum, Way::Http1(Body::Form(SMALL)), EACH),
        ("POST, 200 B", Kind::Daemon, Way::Http1(Body::Form(SMALL)), EACH),
        ("POST, 1,200 B", Kind::Axum, Way::Http1(Body::Form(1_200)), EACH),
        ("POST, 1,200 B", Kind::Daemon, Way::Http1(Body::Form(1_200)), EACH),
        ("POST of JSON, 1,200 B", Kind::Daemon, Way::Http1(Body::Json(1_200)), EACH),
        ("POST over HTTP/2, 200 B", Kind::Daemon, Way::Http2(Call::Http), EACH),
        ("gRPC Send, 200 B", Kind::Daemon, Way::Http2(Call::Grpc), EACH),
        ("gRPC SendStream to 16 devices, 200 B", Kind::Daemon, Way::Http2(Call::GrpcStream), EACH),
        ("gRPC SendStream to one device, 200 B", Kind::Daemon, Way::Http2(Call::GrpcStream), 1),
    ];
    // Beside each lane of the daemon the same one of the other build, so that both meet the same minutes.
    let lanes = lanes.into_iter().flat_map(|(what, kind, way, receivers)| {
        let old = (kind == Kind::Daemon && wishes.old.is_some()).then_some((what, Kind::Old, way, receivers));
        [Some((what, kind, way, receivers)), old].into_iter().flatten()
    });
    let load = runtime()?;
    let mut lanes = lanes
        .map(|(what, kind, way, receivers)| {
            load.block_on(Lane::open(Running::start(wishes, kind, &[])?, kind, what, way, receivers))
        })
        .collect::<io::Result<Vec<_>>>()?;
    for _ in 0..TURNS * wishes.rounds {
        for lane in &mut lanes {
            load.block_on(lane.run(wishes.length / TURNS))?;
        }
    }
    let (bare_rates, bare_costs) = (lanes[0].rates.clone(), lanes[0].costs.clone());
    for lane in lanes {
        table.fault(lane.what, load.block_on(lane.tally.settle()));
        let (share, times) = (100.0 * ratio(&lane.rates, &bare_rates), ratio(&lane.costs, &bare_costs));
        let (rate, cost) = (median(lane.rates), median(lane.costs));
        let delivers = lane.kind != Kind::Bare;
        let tail = if delivers { format!(", p99 {:.2} ms", median(lane.tails)) } else { String::new() };
        let remark = format!("a second ({share:.0} % of bare), {cost:.1} us of CPU each ({times:.2} times bare){tail}");
        table.row(lane.what, lane.kind.name(), format!("{rate:.0}"), remark);
    }
    Ok(())
}

/// Of two figures that were taken in turns: round by round, because the machine itself is not as fast in every one.
fn ratio(figures: &[f64], others: &[f64]) -> f64 {
    median(figures.iter().zip(others).map(|(figure, other)| figure / other).collect())
}

impl Lane {
    async fn open(server: Running, kind: Kind, what: &'static str, way: Way, receivers: u32) -> io::Result<Self> {
        let tally = Arc::new(Tally::new(PUBLISHERS));
        if kind != Kind::Bare {
            http1::subscribe_all(server.address, &tally).await?;
        }
        let figures = Vec::new;
        Ok(Self { kind, what, server, way, receivers, tally, rates: figures(), costs: figures(), tails: figures() })
    }

    #[expect(clippy::cast_precision_loss, reason = "figures")]
    async fn run(&mut self, length: Duration) -> io::Result<()> {
        let (tally, began) = (&self.tally, self.tally.now());
        let (before, cpu) = (tally.accepted.load(Ordering::Relaxed), self.server.cpu()?);
        tally.latencies();
        let end = began + length;
        let senders: Vec<_> = match self.way {
            Way::Http1(body) => (0..PUBLISHERS)
                .map(|sender| {
                    spawn(http1::publish(self.server.address, sender..=sender, body, Some(end), tally.clone()))
                })
                .collect(),
            Way::Http2(call) => (0..CONNECTIONS)
                .map(|connection| {
                    let devices = (0..EACH).map(|sender| connection * EACH + sender % self.receivers).collect();
                    spawn(http2::publish(self.server.address, call, devices, SMALL, end, tally.clone()))
                })
                .collect(),
        };
        for sender in senders {
            sender.await.map_err(io::Error::other)??;
        }
        let seconds = tally.now().saturating_sub(began).as_secs_f64();
        let sent = (tally.accepted.load(Ordering::Relaxed) - before) as f64;
        if self.kind == Kind::Bare {
            // It delivers nothing.
            tally.received.store(tally.accepted.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        tally.settle().await;
        self.rates.push(sent / seconds);
        self.costs.push(self.server.cost(cpu, sent)?);
        self.tails.push(f64::from(quantile(&mut tally.latencies(), 0.99)) / 1e3);
        Ok(())
    }
}

/// Open loop: messages leave at their times, whatever became of those before, and latency counts from those times.
pub fn latency(wishes: &Wishes, table: &mut Table) -> io::Result<()> {
    let rates = wishes.rate.map_or(vec![1_000, 5_000, 10_000, 20_000], |rate| vec![rate]);
    for rate in rates {
        let what = format!("latency of delivery at {rate} a second, 200 B");
        let kinds = wishes.compared();
        let mut figures = vec![(Vec::new(), Vec::new()); kinds.len()];
        for _ in 0..wishes.rounds {
            for (kind, (halves, tails)) in kinds.iter().zip(&mut figures) {
                let mut latencies = open_loop(wishes, *kind, rate, &what, table)?;
                halves.push(quantile(&mut latencies, 0.5).into());
                tails.push(quantile(&mut latencies, 0.99).into());
            }
        }
        for (kind, (halves, tails)) in kinds.iter().zip(figures) {
            let remark = format!("us at p99, p50 {:.0} us", median(halves));
            table.row(&what, kind.name(), format!("{:.0}", median(tails)), remark);
        }
    }
    Ok(())
}

/// Sends at a rate to a new server; gives the latencies in microseconds.
fn open_loop(wishes: &Wishes, kind: Kind, rate: u32, what: &str, table: &mut Table) -> io::Result<Vec<u32>> {
    let load = runtime()?;
    let server = Running::start(wishes, kind, &[])?;
    let tally = Arc::new(Tally::new(PUBLISHERS));
    load.block_on(http1::subscribe_all(server.address, &tally))?;
    let (mut writers, readers) = connections(&server)?;
    let heads: Vec<_> = (0..PUBLISHERS).map(|device| Body::Form(SMALL).head(server.address, device)).collect();
    load.block_on(async {
        for (device, reader) in (0..).zip(readers) {
            spawn(read_answers(reader, device, tally.clone()));
        }
        pace(&mut writers, &heads, rate, wishes.length, &tally).await
    })?;
    table.fault(what, load.block_on(tally.settle()));
    Ok(tally.latencies())
}

/// The two halves of a connection for every sender.
fn connections(server: &Running) -> io::Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let mut halves = (Vec::new(), Vec::new());
    for _ in 0..PUBLISHERS {
        let connection = TcpStream::connect(server.address)?;
        connection.set_nodelay(true)?;
        connection.set_nonblocking(true)?;
        halves.1.push(connection.try_clone()?);
        halves.0.push(connection);
    }
    Ok(halves)
}

/// Writes each message when its time has come.
async fn pace(
    writers: &mut [TcpStream],
    heads: &[String],
    rate: u32,
    length: Duration,
    tally: &Tally,
) -> io::Result<()> {
    let began = tally.now();
    let step = Duration::from_secs(1) / rate;
    let mut request = Vec::new();
    let mut sent = 0;
    while step * sent < length {
        let due = began + step * sent;
        // Also when it is late: the same thread takes what comes.
        yield_now().await;
        while tally.now() < due {
            yield_now().await;
        }
        let device = sent % PUBLISHERS;
        request.clear();
        request.extend_from_slice(heads[device as usize].as_bytes());
        Body::Form(SMALL).write(&mut request, tally, device, due);
        writers[device as usize].write_all(&request)?;
        sent += 1;
    }
    Ok(())
}

async fn read_answers(connection: TcpStream, device: u32, tally: Arc<Tally>) -> io::Result<()> {
    let (mut connection, mut bytes) = (tokio::net::TcpStream::from_std(connection)?, Vec::with_capacity(1_024));
    loop {
        if http1::read_answer(&mut connection, &mut bytes).await? {
            tally.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            tally.refuse(device);
        }
    }
}

/// Streams opened a second over HTTP/1.1, 64 at a time, each with a connection of its own.
pub fn opening(wishes: &Wishes, table: &mut Table) -> io::Result<()> {
    let kinds = wishes.compared();
    let mut figures = vec![(Vec::new(), Vec::new()); kinds.len()];
    for _ in 0..wishes.rounds {
        for (kind, (rates, costs)) in kinds.iter().zip(&mut figures) {
            let server = Running::start(wishes, *kind, &[])?;
            let tally = Arc::new(Tally::new(wishes.streams));
            let (began, cpu) = (Instant::now(), server.cpu()?);
            let load = runtime()?;
            load.block_on(http1::subscribe_all(server.address, &tally))?;
            let streams = f64::from(wishes.streams);
            rates.push(streams / began.elapsed().as_secs_f64());
            costs.push(server.cost(cpu, streams)?);
        }
    }
    for (kind, (rates, costs)) in kinds.iter().zip(figures) {
        let what = format!("streams opened a second, {}", wishes.streams);
        table.row(&what, kind.name(), format!("{:.0}", median(rates)), format!("{:.1} us of CPU each", median(costs)));
    }
    Ok(())
}
