//! What a stream costs in memory: idle, after a message, over each protocol, and a million of them.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    Wishes,
    figures::Table,
    http1,
    http2::{self, Call},
    load::{Body, PUBLISHERS, SMALL, Tally, runtime, spawn},
    servers::{Kind, Running},
};

/// Long enough for the last tasks of the opening to be gone.
const SETTLE: Duration = Duration::from_secs(2);

pub fn idle_and_busy(wishes: &Wishes, table: &mut Table) -> io::Result<()> {
    for kind in wishes.compared() {
        http1_streams(wishes, kind, table)?;
    }
    for (call, what) in
        [(Call::Http, "idle stream, HTTP/2, 100 x 1,000"), (Call::Grpc, "idle stream, gRPC, 100 x 1,000")]
    {
        for kind in wishes.compared().into_iter().filter(|kind| *kind != Kind::Axum) {
            let per_stream = http2_streams(&Running::start(wishes, kind, &[])?, call, 100, 1_000)?;
            table.row(what, kind.name(), per_stream, "bytes of PSS");
        }
    }
    Ok(())
}

/// A million streams of HTTP/2 in one process: 100 connections with 10,000 each.
pub fn million(wishes: &Wishes, table: &mut Table) -> io::Result<()> {
    // All pings of a million streams would be 70,000 events a second for the load to read.
    let server = Running::start(wishes, Kind::Daemon, &["--max-streams", "10000", "--heartbeat", "600"])?;
    let per_stream = http2_streams(&server, Call::Http, 100, 10_000)?;
    let remark = format!("MiB of PSS in all, {per_stream} bytes each");
    table.row("1,000,000 streams, HTTP/2", Kind::Daemon.name(), server.memory()? >> 20, remark);
    Ok(())
}

fn http1_streams(wishes: &Wishes, kind: Kind, table: &mut Table) -> io::Result<()> {
    let server = Running::start(wishes, kind, &[])?;
    let streams = u64::from(wishes.streams);
    let tally = Arc::new(Tally::new(wishes.streams));
    runtime()?.block_on(async {
        let empty = server.memory()?;
        http1::subscribe_all(server.address, &tally).await?;
        tokio::time::sleep(SETTLE).await;
        let what = format!("idle stream, HTTP/1.1, {streams}");
        table.row(&what, kind.name(), (server.memory()? - empty) / streams, "bytes of PSS");
        let senders: Vec<_> = (0..PUBLISHERS)
            .map(|sender| {
                let devices = (0..wishes.streams).skip(sender as usize).step_by(PUBLISHERS as usize);
                spawn(http1::publish(server.address, devices, Body::Form(SMALL), None, tally.clone()))
            })
            .collect();
        for sender in senders {
            sender.await.map_err(io::Error::other)??;
        }
        table.fault(&what, tally.settle().await);
        let each = (server.memory()? - empty) / streams;
        table.row("the same after a message of 200 B to each", kind.name(), each, "bytes of PSS");
        Ok(())
    })
}

/// Opens streams over some connections; gives the bytes that each takes.
fn http2_streams(server: &Running, call: Call, connections: u32, streams: u32) -> io::Result<u64> {
    let all = connections * streams;
    let tally = Arc::new(Tally::new(0));
    runtime()?.block_on(async {
        let empty = server.memory()?;
        for connection in 0..connections {
            let devices = connection * streams..(connection + 1) * streams;
            spawn(http2::subscribe(server.address, call, devices, tally.clone()));
        }
        tally.opened(all.into()).await?;
        tokio::time::sleep(SETTLE).await;
        if tally.wrong.load(Ordering::Relaxed) > 0 {
            return Err(io::Error::other("streams were reset"));
        }
        Ok((server.memory()? - empty) / u64::from(all))
    })
}
