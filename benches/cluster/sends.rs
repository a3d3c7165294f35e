//! Sends: to a device of the same node, to one of another node, and to one of a daemon without Redis.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use crate::{
    Rows, Wishes,
    figures::{median, quantile},
    http1,
    load::{Body, PUBLISHERS, SMALL, Tally, spawn},
    scene::{Scene, runtime},
};

/// Sends of one round, one at a time.
const SENDS: u32 = 1_000;

/// What is measured of one way of sending.
#[derive(Default)]
struct Figures {
    /// The median time of one send in each round, in microseconds.
    halves: Vec<f64>,
    rates: Vec<f64>,
    /// Microseconds of CPU of each send, of all processes that have a part in it.
    costs: Vec<f64>,
}

pub fn sends(wishes: &Wishes, rows: &mut Rows) -> io::Result<()> {
    let scene = Scene::start(wishes, 2)?;
    let (here, there, alone) = (scene.nodes[0].address, scene.nodes[1].address, scene.alone.address);
    let load = runtime()?;
    let (tally, tally_alone) = (Arc::new(Tally::new(PUBLISHERS)), Arc::new(Tally::new(PUBLISHERS)));
    load.block_on(http1::subscribe_all(there, &tally))?;
    load.block_on(http1::subscribe_all(alone, &tally_alone))?;
    let ways = [(alone, &tally_alone), (there, &tally), (here, &tally)];
    let mut figures = [(); 3].map(|()| Figures::default());
    // The first round warms up.
    for round in 0..=wishes.rounds {
        for (way, ((address, tally), figures)) in ways.iter().zip(&mut figures).enumerate() {
            let half = load.block_on(one_at_a_time(*address, round % PUBLISHERS, tally))?;
            let before = if way == 0 { scene.alone.cpu()? } else { scene.cpu()? };
            let (sent, rate) = load.block_on(many(*address, wishes.length, tally))?;
            let after = if way == 0 { scene.alone.cpu()? } else { scene.cpu()? };
            if round > 0 {
                figures.halves.push(half);
                figures.rates.push(rate);
                figures.costs.push(after.saturating_sub(before).as_secs_f64() * 1e6 / sent);
            }
        }
    }
    let faults = load.block_on(async { tally.settle().await + tally_alone.settle().await });
    if faults > 0 {
        // On a busy machine the load reads too slowly: then streams are full, and sends to them are 429, also without Redis.
        let [with, without] = [&tally, &tally_alone].map(|tally| tally.kinds());
        let faults = format!("with Redis {with:?} and without {without:?} messages were missing, wrong, and refused");
        return Err(io::Error::other(faults));
    }
    let [without, local, remote] =
        figures.map(|Figures { halves, rates, costs }| (median(halves), median(rates), median(costs)));
    let same = format!(
        "{:.0} us, {:.0}/s, {:.1} us of CPU; without Redis {:.0} us, {:.0}/s, {:.1} us",
        local.0, local.1, local.2, without.0, without.1, without.2
    );
    rows.add("a send to a device of the same node", "as without", "", same);
    let more = format!("{:.2} ms ({:.0} us and not {:.0})", (remote.0 - local.0) / 1e3, remote.0, local.0);
    rows.add(
        "a send to another node, one at a time: what it takes more than a local one, p50",
        "0.45 ms",
        "0.25 ms",
        more,
    );
    rows.add("sends to another node, 64 at a time, 200 bytes", "20,000/s", "35,000/s", format!("{:.0}/s", remote.1));
    rows.add("CPU of a remote send, all processes", "60 us", "40 us", format!("{:.1} us", remote.2));
    Ok(())
}

/// The median time of a send, in microseconds.
async fn one_at_a_time(address: SocketAddr, device: u32, tally: &Tally) -> io::Result<f64> {
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    let head = Body::Form(SMALL).head(address, device);
    let (mut request, mut answer, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SENDS {
        request.clear();
        request.extend_from_slice(head.as_bytes());
        Body::Form(SMALL).write(&mut request, tally, device, tally.now());
        let began = Instant::now();
        connection.write_all(&request).await?;
        if http1::read_answer(&mut connection, &mut answer).await? {
            tally.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            tally.refuse(device);
        }
        times.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(quantile(&mut times, 0.5).into())
}

/// 64 senders, each with a device of its own: how many messages, and how many a second.
#[expect(clippy::cast_precision_loss, reason = "figures")]
async fn many(address: SocketAddr, length: Duration, tally: &Arc<Tally>) -> io::Result<(f64, f64)> {
    let (began, before) = (tally.now(), tally.accepted.load(Ordering::Relaxed));
    let senders: Vec<_> = (0..PUBLISHERS)
        .map(|sender| {
            let end = Some(began + length);
            spawn(http1::publish(address, sender..=sender, Body::Form(SMALL), end, tally.clone()))
        })
        .collect();
    for sender in senders {
        sender.await.map_err(io::Error::other)??;
    }
    let seconds = tally.now().saturating_sub(began).as_secs_f64();
    let sent = (tally.accepted.load(Ordering::Relaxed) - before) as f64;
    // Before the next round: the same thread reads the streams.
    tally.settle().await;
    tally.latencies();
    Ok((sent, sent / seconds))
}
