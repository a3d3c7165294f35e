//! Many streams over HTTP/2, opened a few at a time on each connection, as clients come that spread their reconnects.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use memchr::memmem;
use tokio::time::Instant;

use crate::{
    frames::{Connection, DATA, GET, RST_STREAM},
    load::spawn,
};

/// Streams of a connection.
pub const EACH: u32 = 1_000;
/// Requests of a connection that wait for their answer.
const WAITING: usize = 16;

/// What became of the streams.
#[derive(Default)]
pub struct Seen {
    pub open: AtomicU32,
    /// How often a stream was told to come back later.
    pub told_to_wait: AtomicU32,
    /// Streams that were reset.
    pub reset: AtomicU32,
}

/// Opens a stream for each device, which a task for each connection then reads for ever.
///
/// # Errors
/// When they are not all open within two minutes.
pub async fn open(address: SocketAddr, devices: std::ops::Range<u32>) -> io::Result<Arc<Seen>> {
    let seen = Arc::new(Seen::default());
    let wanted = devices.end - devices.start;
    for first in devices.step_by(EACH as usize) {
        spawn(connection(address, first..first + EACH, seen.clone()));
    }
    let end = Instant::now() + Duration::from_secs(120);
    while seen.open.load(Ordering::Relaxed) < wanted {
        if Instant::now() > end || seen.reset.load(Ordering::Relaxed) > 0 {
            let open = seen.open.load(Ordering::Relaxed);
            return Err(io::Error::other(format!("only {open} of {wanted} streams opened")));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(seen)
}

async fn connection(address: SocketAddr, devices: std::ops::Range<u32>, seen: Arc<Seen>) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    let (mut left, mut waiting) = (devices.rev().collect::<Vec<_>>(), HashMap::new());
    loop {
        while waiting.len() < WAITING
            && let Some(device) = left.pop()
        {
            let stream = connection.request(GET, &format!("/subscribe/u{device}/device/d"), &[], true);
            waiting.insert(stream, device);
        }
        connection.flush().await?;
        connection
            .read(|frame| match frame.kind {
                DATA if memmem::find(frame.payload, b"signal.ready").is_some() => {
                    let opens = waiting.remove(&frame.stream).is_some();
                    seen.open.fetch_add(u32::from(opens), Ordering::Relaxed);
                }
                DATA if memmem::find(frame.payload, b"overloaded").is_some() => {
                    seen.told_to_wait.fetch_add(1, Ordering::Relaxed);
                    left.extend(waiting.remove(&frame.stream));
                }
                RST_STREAM => {
                    seen.reset.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            })
            .await?;
    }
}
