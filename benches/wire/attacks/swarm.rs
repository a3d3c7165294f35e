//! What attacks are made of: single requests, streams of HTTP/2 that are held, requests by the thousand.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep},
};

use super::scene::{Note, Task};
use crate::{
    frames::{Connection, DATA, END_STREAM, Frame, GET, HEADERS, POST, RST_STREAM},
    http1::{connect, read_status},
};

/// Streams, and what became of them.
#[derive(Default)]
pub struct Counts {
    asked: AtomicU64,
    answered: AtomicU64,
    ended: AtomicU64,
    /// Pieces of bodies.
    pieces: AtomicU64,
    /// Connections that the daemon closed.
    closed: AtomicU64,
}

impl Counts {
    /// Streams that are not over.
    pub fn kept(&self) -> u64 {
        self.asked.load(Ordering::Relaxed) - self.ended.load(Ordering::Relaxed)
    }

    pub fn pieces(&self) -> u64 {
        self.pieces.load(Ordering::Relaxed)
    }

    pub fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }

    /// What is not over, for the table.
    pub fn note(&self, what: &'static str) -> Note {
        Note(f64::from(u32::try_from(self.kept()).unwrap_or(u32::MAX)), what)
    }

    pub fn close(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn piece(&self, pieces: u64) {
        self.pieces.fetch_add(pieces, Ordering::Relaxed);
    }

    pub fn ask(&self, streams: u64) {
        self.asked.fetch_add(streams, Ordering::Relaxed);
    }

    /// Takes a frame into the account.
    pub fn take(&self, frame: &Frame<'_>) {
        let over = frame.kind == RST_STREAM || (matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0);
        self.ended.fetch_add(over.into(), Ordering::Relaxed);
        self.answered.fetch_add((frame.kind == HEADERS).into(), Ordering::Relaxed);
        self.pieces.fetch_add((frame.kind == DATA).into(), Ordering::Relaxed);
    }

    /// Waits until all requests have an answer or are over, or for so long.
    pub async fn answered(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let asked = |counts: &Self| counts.asked.load(Ordering::Relaxed);
        while self.answered.load(Ordering::Relaxed).max(self.ended.load(Ordering::Relaxed)) < asked(self)
            && Instant::now() < end
        {
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Connections of HTTP/2 with streams on each.
#[derive(Clone, Copy)]
pub struct Swarm {
    pub address: SocketAddr,
    pub connections: u32,
    pub streams: u32,
    /// What each stream may bring before its reader asks for more.
    pub window: u32,
    pub accept: &'static str,
}

/// As a browser's `EventSource` has it.
pub const EVENTS: &str = "text/event-stream";

impl Swarm {
    /// Streams of events, all of which are read.
    pub fn reading(address: SocketAddr, connections: u32, streams: u32) -> Self {
        Self { address, connections, streams, window: 0x7fff_ffff, accept: EVENTS }
    }

    /// GETs the path for each connection and stream, waits for the answers, and reads whatever comes, until the tasks are dropped.
    pub async fn open(self, path: impl Fn(u32, u32) -> String) -> io::Result<(Arc<Counts>, Vec<Task>)> {
        let counts = Arc::new(Counts::default());
        let mut tasks = Vec::new();
        for number in 0..self.connections {
            let mut connection = Connection::open_with(self.address, self.window).await?;
            for stream in 0..self.streams {
                connection.request(GET, &path(number, stream), &[("accept", self.accept)], true);
            }
            counts.ask(self.streams.into());
            tasks.push(Task::spawn(read(connection, self.streams, counts.clone())));
        }
        counts.answered(Duration::from_secs(30)).await;
        Ok((counts, tasks))
    }
}

async fn read(mut connection: Connection, streams: u32, counts: Arc<Counts>) -> io::Result<()> {
    let own = Counts::default();
    own.ask(streams.into());
    let take = |frame: Frame<'_>| {
        counts.take(&frame);
        own.take(&frame);
    };
    while connection.turn(take).await.is_ok() {}
    // Streams that the connection takes with it.
    counts.close();
    counts.ended.fetch_add(own.kept(), Ordering::Relaxed);
    Ok(())
}

/// Posts a small body to each path over one connection of HTTP/2, so many at a time.
pub async fn post_all(
    address: SocketAddr,
    headers: &[(&str, &str)],
    mut paths: impl Iterator<Item = String>,
    at_once: u64,
) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    let headers = [headers, &[("content-type", FORM)]].concat();
    let counts = Counts::default();
    let mut more = true;
    while more || counts.kept() > 0 {
        while more && counts.kept() < at_once {
            let Some(path) = paths.next() else {
                more = false;
                break;
            };
            let stream = connection.request(POST, &path, &headers, false);
            connection.data(stream, b"data=x", true);
            counts.ask(1);
        }
        if counts.kept() > 0 {
            connection.turn(|frame| counts.take(&frame)).await?;
        }
    }
    Ok(())
}

pub const FORM: &str = "application/x-www-form-urlencoded";

/// A connection of HTTP/1.1 for one request after the other.
pub struct Caller {
    address: SocketAddr,
    connection: TcpStream,
    answer: Vec<u8>,
}

impl Caller {
    pub async fn open(address: SocketAddr, number: u32) -> io::Result<Self> {
        let connection = connect(address, number, None).await?;
        connection.set_nodelay(true)?;
        Ok(Self { address, connection, answer: Vec::new() })
    }

    /// Waits for the answer; gives its status, and how many milliseconds it took.
    pub async fn get(&mut self, path: &str) -> io::Result<(u16, f64)> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        self.ask(head.as_bytes()).await
    }

    /// Posts `data` as a form.
    pub async fn post(&mut self, path: &str, headers: &str, data: &[u8]) -> io::Result<(u16, f64)> {
        let length = data.len() + 5;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\n{headers}content-type: {FORM}\r\ncontent-length: {length}\r\n\r\ndata=",
            self.address
        );
        self.ask(&[head.as_bytes(), data].concat()).await
    }

    async fn ask(&mut self, request: &[u8]) -> io::Result<(u16, f64)> {
        let began = Instant::now();
        self.connection.write_all(request).await?;
        let status = read_status(&mut self.connection, &mut self.answer).await?;
        Ok((status, began.elapsed().as_secs_f64() * 1e3))
    }
}
