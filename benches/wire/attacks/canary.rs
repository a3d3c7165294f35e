//! The canary: an honest subscriber and 20 posts a second to it, which have to arrive whatever else the daemon has to do.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use memchr::memmem;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    figures::quantile,
    http1::{Lines, connect, read_answer},
    load::spawn,
};

/// The time between two posts, each of which leaves when it is due, whatever became of those before.
const STEP: Duration = Duration::from_millis(50);

/// Bytes of a message: a session description of ordinary size.
const SIZE: usize = 1_200;

/// A post without an answer has failed after this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longer than anything may stop the daemon.
const ARRIVAL: Duration = Duration::from_secs(20);

/// A connection that was idle for longer may be closed at the other end.
const FRESH: Duration = Duration::from_secs(4);

/// The last byte of the canary's address, 127.0.0.2. Attackers have other addresses.
const NUMBER: u32 = 2;

/// A connection, with or without TLS.
type Socket = Box<dyn Duplex>;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What became of the posts.
pub struct Canary {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    began: Instant,
    state: Mutex<State>,
    /// Connections on which nothing is on its way, and since when.
    free: Mutex<Vec<(Socket, Instant)>>,
    open: AtomicBool,
    over: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Neither received nor refused: when each left.
    waiting: BTreeMap<u64, Duration>,
    /// Posts without an answer.
    unanswered: u64,
    accepted: HashSet<u64>,
    received: HashSet<u64>,
    repeated: u64,
    cuts: u64,
    window: Sight,
}

/// What was seen of it for a while.
#[derive(Clone, Default)]
pub struct Sight {
    /// From the time at which each post began until its message arrived, in microseconds.
    latencies: Vec<u32>,
    pub posts: u64,
    pub failed: u64,
}

impl Sight {
    /// In milliseconds; none when nothing arrived.
    pub fn latency(&self, share: f64) -> f64 {
        if self.latencies.is_empty() { f64::NAN } else { f64::from(quantile(&mut self.latencies.clone(), share)) / 1e3 }
    }
}

impl Canary {
    pub fn new(address: SocketAddr, tls: Option<TlsConnector>) -> Arc<Self> {
        let (state, free) = (Mutex::default(), Mutex::default());
        let (open, over) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { address, tls, began: Instant::now(), state, free, open, over })
    }

    async fn connect(&self) -> io::Result<Socket> {
        let stream = connect(self.address, NUMBER, None).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = "localhost".try_into().map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    /// Subscribes and posts until [`Canary::end`], then waits for what is on its way. For a thread of its own.
    pub fn run(self: &Arc<Self>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            spawn(self.clone().subscribe());
            let mut number = 0;
            let mut due = Instant::now();
            while !self.over.load(Ordering::Relaxed) {
                sleep_until(due).await;
                if self.is_open() {
                    // Counted from now: a timer of the runtime is up to 1 ms late.
                    spawn(self.clone().post(number, self.began.elapsed()));
                    number += 1;
                }
                due += STEP;
            }
            let end = Instant::now() + ARRIVAL;
            while Instant::now() < end && !self.state().is_settled() {
                sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        })
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Begins to look.
    pub fn look(&self) {
        self.state().window = Sight::default();
    }

    /// What was seen since. A message that is on its way counts with its age.
    pub fn seen(&self) -> Sight {
        let now = self.began.elapsed();
        let state = self.state();
        let mut seen = state.window.clone();
        // Not what has had no time to arrive.
        let ages = state.waiting.values().map(|left| now.saturating_sub(*left)).filter(|age| *age > STEP);
        seen.latencies.extend(ages.map(micros));
        seen
    }

    /// Messages that were accepted and never came, and those that came more than once; how often its stream was cut.
    pub fn account(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.accepted.difference(&state.received).count() as u64, state.repeated, state.cuts)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Reads its stream for ever, and comes back with the last cursor when it is cut.
    async fn subscribe(self: Arc<Self>) {
        let mut cursor = String::new();
        loop {
            let _ = self.read(&mut cursor).await;
            if self.is_open() {
                self.state().cuts += 1;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn read(&self, cursor: &mut String) -> io::Result<()> {
        let mut stream = self.connect().await?;
        let resume = if cursor.is_empty() { String::new() } else { format!("last-event-id: {cursor}\r\n") };
        let head = format!("GET /subscribe/canary/device/c HTTP/1.1\r\nhost: {}\r\n{resume}\r\n", self.address);
        stream.write_all(head.as_bytes()).await?;
        let mut lines = Lines::new(stream);
        // Both count only with the end of their event.
        let (mut id, mut message) = (None, None);
        loop {
            let line = lines.next().await?;
            if let Some(text) = line.strip_prefix(b"id: ") {
                id = Some(String::from_utf8_lossy(text).into_owned());
            } else if line.starts_with(b"data: C.") {
                message = line.split(|&byte| byte == b'.').nth(1).and_then(number);
            } else if memmem::find(line, b"heartbeat_ms").is_some() {
                self.open.store(true, Ordering::Relaxed);
            } else if line.is_empty() {
                if let Some(id) = id.take() {
                    *cursor = id;
                }
                if let Some(number) = message.take() {
                    self.state().receive(number, self.began.elapsed());
                }
            }
        }
    }

    async fn post(self: Arc<Self>, number: u64, left: Duration) {
        self.state().send(number, left);
        let good = matches!(timeout(PATIENCE, self.exchange(number)).await, Ok(Ok(true)));
        self.state().answer(number, good);
    }

    /// One post and its answer; says whether it is 200.
    async fn exchange(&self, number: u64) -> io::Result<bool> {
        let mut connection = match self.free() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut body = format!("data=C.{number}.");
        body.extend(std::iter::repeat_n('x', SIZE - body.len()));
        let kind = "application/x-www-form-urlencoded";
        let request = format!(
            "POST /user/canary/device/c?user=canary&device=s HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\ncontent-length: {SIZE}\r\n\r\n{body}",
            self.address
        );
        connection.write_all(request.as_bytes()).await?;
        let good = read_answer(&mut connection, &mut Vec::with_capacity(1_024)).await?;
        if good {
            self.free.lock().expect("not poisoned").push((connection, Instant::now()));
        }
        Ok(good)
    }

    fn free(&self) -> Option<Socket> {
        let mut free = self.free.lock().expect("not poisoned");
        free.retain(|(_, since)| since.elapsed() < FRESH);
        free.pop().map(|(connection, _)| connection)
    }
}

impl State {
    fn send(&mut self, number: u64, left: Duration) {
        self.waiting.insert(number, left);
        self.unanswered += 1;
        self.window.posts += 1;
    }

    fn answer(&mut self, number: u64, good: bool) {
        self.unanswered -= 1;
        if good {
            self.accepted.insert(number);
        } else {
            self.waiting.remove(&number);
            self.window.failed += 1;
        }
    }

    fn receive(&mut self, number: u64, now: Duration) {
        if let Some(left) = self.waiting.remove(&number) {
            self.window.latencies.push(micros(now.saturating_sub(left)));
        }
        if !self.received.insert(number) {
            self.repeated += 1;
        }
    }

    fn is_settled(&self) -> bool {
        self.unanswered == 0 && self.accepted.is_subset(&self.received)
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
