//! Messages that know their receiver, their number and their time, and the account of what became of them.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Runtime, task::yield_now, time::Instant};

/// Senders, each with a connection of its own.
pub const PUBLISHERS: u32 = 64;

/// The size of a small message's data, in bytes.
pub const SMALL: usize = 200;

/// Who sends and who receives: the account of one server's messages.
pub struct Tally {
    began: Instant,
    /// By device: the number of the next message to it.
    next: Vec<AtomicU64>,
    pub open: AtomicU64,
    /// Streams that ended.
    pub ended: AtomicU64,
    pub pings: AtomicU64,
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub received: AtomicU64,
    pub wrong: AtomicU64,
    /// From the time at which a message was to be sent until its receiver had it, in microseconds.
    latencies: Mutex<Vec<u32>>,
}

impl Tally {
    pub fn new(devices: u32) -> Self {
        Self {
            began: Instant::now(),
            next: (0..devices).map(|_| AtomicU64::new(0)).collect(),
            open: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            pings: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            received: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            latencies: Mutex::default(),
        }
    }

    pub fn devices(&self) -> u32 {
        u32::try_from(self.next.len()).unwrap_or(u32::MAX)
    }

    /// The time since this account was opened.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Writes the next message to a device: `size` bytes in all, to be sent at `due`.
    pub fn compose(&self, into: &mut Vec<u8>, device: u32, size: usize, due: Duration) {
        let number = self.next[device as usize].fetch_add(1, Ordering::Relaxed);
        let begin = into.len();
        // A vector takes everything.
        let _ = write!(into, "D.{device}.{number}.{}.", due.as_micros());
        into.resize(begin + size, b'x');
    }

    /// Takes back the number of a message that was refused.
    pub fn refuse(&self, device: u32) {
        self.next[device as usize].fetch_sub(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A device got this data, wrapped in JSON or not; `expected` is the number that it waits for.
    pub fn take(&self, device: u32, expected: &mut u64, data: &[u8]) {
        let now = self.now();
        let mut parts = data.split(|&byte| byte == b'.').skip(1).map(number);
        let (receiver, count, due) = (parts.next().flatten(), parts.next().flatten(), parts.next().flatten());
        if (receiver, count) != (Some(device.into()), Some(*expected)) {
            self.wrong.fetch_add(1, Ordering::Relaxed);
        }
        *expected = count.unwrap_or(*expected) + 1;
        let latency = now.saturating_sub(Duration::from_micros(due.unwrap_or_default())).as_micros();
        self.latencies.lock().expect("not poisoned").push(u32::try_from(latency).unwrap_or(u32::MAX));
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// The latencies since the last call.
    pub fn latencies(&self) -> Vec<u32> {
        std::mem::take(&mut self.latencies.lock().expect("not poisoned"))
    }

    /// Waits for what was accepted and has not come; gives everything that went wrong so far.
    pub async fn settle(&self) -> u64 {
        let end = Instant::now() + Duration::from_secs(10);
        while self.kinds()[0] > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.kinds().iter().sum()
    }

    /// What went wrong so far: messages that are missing, repeated or misdirected, refused.
    pub fn kinds(&self) -> [u64; 3] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [read(&self.accepted).saturating_sub(read(&self.received)), read(&self.wrong), read(&self.refused)]
    }

    /// Waits until so many streams are open.
    ///
    /// # Errors
    /// When they are not within two minutes.
    pub async fn opened(&self, streams: u64) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(120);
        while self.open.load(Ordering::Relaxed) < streams {
            if Instant::now() > end {
                return Err(io::Error::other("the streams did not open"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// One thread for the whole load, which never sleeps: to wake it would be work of the servers, and it would come late.
pub fn runtime() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { drop(spawn(never_sleep())) });
    Ok(runtime)
}

async fn never_sleep() {
    loop {
        yield_now().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a load generator has no drain")]
pub fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// What is posted: nothing, a form with data of so many bytes, or JSON with that in the place of a session description.
#[derive(Clone, Copy)]
pub enum Body {
    Empty,
    Form(usize),
    Json(usize),
}

impl Body {
    /// The content type and what is written before and after the data.
    fn shape(self) -> (&'static str, &'static [u8], &'static [u8]) {
        match self {
            Self::Json(_) => {
                ("application/json", b"{\"data\":{\"type\":\"offer\",\"sdp\":\"", b"\\r\\na=mid:0\\r\\n\"}}")
            }
            Self::Form(_) | Self::Empty => ("application/x-www-form-urlencoded", b"data=", b""),
        }
    }

    /// The head of a post to a device over HTTP/1.1.
    pub fn head(self, address: SocketAddr, device: u32) -> String {
        let (kind, before, after) = self.shape();
        let length = match self {
            Self::Empty => 0,
            Self::Form(size) | Self::Json(size) => before.len() + size + after.len(),
        };
        let path = post_path(device);
        format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n")
    }

    /// Writes the body, with the next message to the device, to be sent at `due`.
    pub fn write(self, into: &mut Vec<u8>, tally: &Tally, device: u32, due: Duration) {
        let (_, before, after) = self.shape();
        if let Self::Form(size) | Self::Json(size) = self {
            into.extend_from_slice(before);
            tally.compose(into, device, size, due);
            into.extend_from_slice(after);
        }
    }
}

/// Where messages to a device are posted.
pub fn post_path(device: u32) -> String {
    format!("/user/u{device}/device/d")
}
