//! Devices whose connections are cut all the time lose no message, and get none twice or out of order: over SSE on both versions
//! of HTTP, and over gRPC.
//!
//! `CUT_SECONDS=60 cargo test --release --test it cutting -- --nocapture` is the long run. It prints the seed and the figures.

use std::{
    collections::HashMap,
    io::Write as _,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use backend_signal::grpc::proto::{
    Continuity, SubscribeRequest, SubscribeResponse, signal_client::SignalClient, subscribe_response::Kind,
};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::timeout};

use crate::harness::{
    Connection, FORM, PATIENCE, Server, claim, event_stream::Parser, grpc::claimed, proxy::Proxy, until,
};

const DEVICES: usize = 200;
const SENDERS: usize = 30;
/// In seconds. Slower in a debug build, whose clients are slow: with a short heartbeat they would only connect.
const HEARTBEAT: f64 = if cfg!(debug_assertions) { 1.0 } else { 0.3 };
/// A client gives up a connection after so many heartbeats of silence.
const SILENCE: f64 = 3.0;
/// The longest pause of a sender, in milliseconds. While a device waits on one dead connection after the other, it must not miss
/// more than the mailbox keeps for replay. Otherwise the server rightly says `broken`. So a longer silence needs longer pauses.
const PAUSE_MS: u64 = if cfg!(debug_assertions) { 60 } else { 12 };

#[derive(Default)]
struct Figures {
    opened: AtomicUsize,
    received: AtomicUsize,
    gaps: AtomicUsize,
    skipped: AtomicUsize,
    twice: AtomicUsize,
    declared: AtomicUsize,
    /// The most messages that were replayed to one stream.
    replayed: AtomicUsize,
}

/// One device: its cursor, and the last number that it got from each sender.
#[derive(Default)]
struct Device {
    cursor: String,
    last: HashMap<usize, u64>,
    /// The server said that messages may be missing.
    broken: bool,
}

/// An item of a stream, over any protocol.
enum Item {
    Ready { cursor: String, broken: bool, replayed: usize },
    Message { cursor: String, data: String },
    Other,
}

enum Feed {
    Sse { body: Pin<Box<Incoming>>, parser: Parser, items: Vec<Item> },
    Grpc(Box<tonic::Streaming<SubscribeResponse>>),
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_however_connections_are_cut() {
    #[expect(clippy::disallowed_methods, reason = "the option of the long run")]
    let option = |name| std::env::var(name).ok().and_then(|value: String| value.parse().ok());
    let (seconds, seed) =
        (option("CUT_SECONDS").unwrap_or(20), option("CUT_SEED").unwrap_or_else(|| fastrand::u64(..)));
    let server = Server::with(&["--heartbeat", &HEARTBEAT.to_string()]).await;
    let proxy = Proxy::start(server.address, seed).await;
    let figures = Arc::new(Figures::default());
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        // The first stream is not cut: a client without a cursor can only be told `broken`.
        let cursor = server.sse(&format!("u/{number}")).await.leave();
        let device = Arc::new(Mutex::new(Device { cursor, ..Device::default() }));
        tokio::spawn(live(number, proxy.address, device.clone(), figures.clone()));
        devices.push(device);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS).map(|number| tokio::spawn(send(number, server.address, stop.clone()))).collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    proxy.heal();
    let mut accepted = Vec::new();
    for sender in senders {
        accepted.push(timeout(PATIENCE, sender).await.expect("in time").expect("no panic"));
    }
    let missing = || count_missing(&devices, &accepted);
    let _ = timeout(PATIENCE.mul_f64(0.9), until(async || missing(), |missing| *missing == 0)).await;
    let cuts = proxy.cuts();
    let read = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
    let sent: u64 = accepted.iter().flat_map(HashMap::values).sum();
    let line = format!(
        "\ncutting: seed {seed}, {seconds} s: {} streams opened, {cuts}, {sent} accepted, {} received, {} lost, {} twice or out of \
         order, {} undeclared gaps, {} numbers skipped, {} declared; at most {} replayed at once\n",
        read(&figures.opened),
        read(&figures.received),
        missing(),
        read(&figures.twice),
        read(&figures.gaps),
        read(&figures.skipped),
        read(&figures.declared),
        read(&figures.replayed),
    );
    // Not `eprint!`: the test harness hides its output.
    let _ = std::io::stderr().write_all(line.as_bytes());
    let faults = [&figures.twice, &figures.gaps, &figures.skipped, &figures.declared].map(read);
    assert_eq!((missing(), faults), (0, [0; 4]), "{line}");
    let each_way = cuts.deaths.iter().all(|deaths| *deaths > 10) && cuts.torn > 10;
    assert!(sent > 10 * seconds && each_way, "too little happened: {line}");
}

/// How many accepted messages have not reached their device.
fn count_missing(devices: &[Arc<Mutex<Device>>], accepted: &[HashMap<usize, u64>]) -> u64 {
    let mut missing = 0;
    for (sender, sent) in accepted.iter().enumerate() {
        for (device, count) in sent {
            let device = devices[*device].lock();
            missing += count - device.last.get(&sender).copied().unwrap_or(0).min(*count);
        }
    }
    missing
}

/// Posts numbered messages to random devices until `stop`. Gives how many the mailbox of each device accepted.
async fn send(number: usize, address: SocketAddr, stop: Arc<AtomicBool>) -> HashMap<usize, u64> {
    let mut accepted = HashMap::new();
    let mut connection = Connection::open(address).await;
    let mut random = fastrand::Rng::with_seed(number as u64);
    while !stop.load(Ordering::Relaxed) {
        let device = random.usize(..DEVICES);
        let count = accepted.entry(device).or_insert(0);
        let body = format!("data={number}+{}", *count + 1);
        let hold = if random.bool() { "30" } else { "0" };
        let headers = [("content-type", FORM), ("ttl", hold)];
        let answer = connection.request(&format!("POST /user/u/device/{device}"), &headers, body.as_bytes()).await;
        match answer.status {
            200 | 202 => *count += 1,
            404 | 429 => {}
            other => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(random.u64(0..PAUSE_MS))).await;
    }
    accepted
}

/// A device that always comes back with its last cursor.
async fn live(number: usize, address: SocketAddr, device: Arc<Mutex<Device>>, figures: Arc<Figures>) {
    let silence = Duration::from_secs_f64(SILENCE * HEARTBEAT);
    loop {
        let cursor = device.lock().cursor.clone();
        if let Ok(Some(mut feed)) = timeout(silence, Feed::open(number, address, cursor)).await {
            while let Ok(Some(item)) = timeout(silence, feed.next()).await {
                take(&mut device.lock(), item, &figures);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn take(device: &mut Device, item: Item, figures: &Figures) {
    match item {
        Item::Ready { cursor, broken, replayed } => {
            figures.opened.fetch_add(1, Ordering::Relaxed);
            figures.declared.fetch_add(usize::from(broken), Ordering::Relaxed);
            figures.replayed.fetch_max(replayed, Ordering::Relaxed);
            device.broken |= broken;
            // The stream must begin at the cursor that the device sent.
            let moved = !device.broken && cursor != device.cursor;
            figures.gaps.fetch_add(usize::from(moved), Ordering::Relaxed);
            device.cursor = cursor;
        }
        Item::Message { cursor, data } => {
            let follows = number(&cursor) == number(&device.cursor) + 1;
            figures.skipped.fetch_add(usize::from(!follows && !device.broken), Ordering::Relaxed);
            device.cursor = cursor;
            let (sender, count) = data.split_once(' ').expect("sender and number");
            let (sender, count): (usize, u64) = (sender.parse().expect("a number"), count.parse().expect("a number"));
            let last = device.last.entry(sender).or_insert(0);
            match count {
                next if next == *last + 1 => {}
                later if later > *last && device.broken => {}
                later if later > *last => drop(figures.gaps.fetch_add(1, Ordering::Relaxed)),
                _ => drop(figures.twice.fetch_add(1, Ordering::Relaxed)),
            }
            *last = count.max(*last);
            figures.received.fetch_add(1, Ordering::Relaxed);
        }
        Item::Other => {}
    }
}

/// The number of a message, which is the last part of its cursor.
fn number(cursor: &str) -> u64 {
    let (_, number) = cursor.rsplit_once('.').expect("a cursor");
    u64::from_str_radix(number, 16).expect("a number")
}

impl Feed {
    async fn open(number: usize, address: SocketAddr, cursor: String) -> Option<Self> {
        match number % 3 {
            0 => Self::sse1(number, address, &cursor).await,
            1 => Self::sse2(number, address, &cursor).await,
            _ => Self::grpc(number, address, cursor).await,
        }
    }

    async fn sse1(number: usize, address: SocketAddr, cursor: &str) -> Option<Self> {
        let io = TokioIo::new(TcpStream::connect(address).await.ok()?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
        tokio::spawn(connection);
        Some(Self::sse(sender.send_request(request("/subscribe", number, cursor)).await.ok()?))
    }

    async fn sse2(number: usize, address: SocketAddr, cursor: &str) -> Option<Self> {
        let io = TokioIo::new(TcpStream::connect(address).await.ok()?);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.ok()?;
        tokio::spawn(connection);
        let uri = format!("http://{address}/subscribe");
        Some(Self::sse(sender.send_request(request(&uri, number, cursor)).await.ok()?))
    }

    fn sse(response: http::Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        Self::Sse { body: Box::pin(response.into_body()), parser: Parser::default(), items: Vec::new() }
    }

    async fn grpc(number: usize, address: SocketAddr, cursor: String) -> Option<Self> {
        let endpoint = tonic::transport::Channel::from_shared(format!("http://{address}")).ok()?;
        let mut client = SignalClient::new(endpoint.connect().await.ok()?);
        let responses = client
            .subscribe(claimed(&format!("u/{number}"), SubscribeRequest { cursor, heartbeat: None }))
            .await
            .ok()?;
        Some(Self::Grpc(Box::new(responses.into_inner())))
    }

    async fn next(&mut self) -> Option<Item> {
        match self {
            Self::Grpc(responses) => Some(match responses.message().await.ok()??.kind? {
                Kind::Ready(ready) => {
                    let (broken, replayed) = (ready.continuity() == Continuity::Broken, ready.replayed);
                    Item::Ready { cursor: ready.cursor, broken, replayed: usize::try_from(replayed).ok()? }
                }
                Kind::Message(message) => Item::Message { cursor: message.cursor, data: message.data },
                Kind::Ping(_) | Kind::End(_) => Item::Other,
            }),
            Self::Sse { body, parser, items } => loop {
                if !items.is_empty() {
                    return Some(items.remove(0));
                }
                let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await?.ok()?;
                for event in parser.push(&frame.into_data().ok()?) {
                    items.push(match event.name.as_str() {
                        "message" => Item::Message { cursor: event.id, data: event.data },
                        "signal.ready" => {
                            let ready: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
                            let replayed = ready["replayed"].as_u64().and_then(|count| count.try_into().ok());
                            let (broken, replayed) = (ready["continuity"] == "broken", replayed.expect("a count"));
                            Item::Ready { cursor: event.id, broken, replayed }
                        }
                        _ => Item::Other,
                    });
                }
            },
        }
    }
}

fn request(uri: &str, number: usize, cursor: &str) -> http::Request<Body> {
    let mut request = http::Request::get(uri).header("x-user-claim", claim(&format!("u/{number}")));
    // Over HTTP/2 the host is in the URI.
    if uri.starts_with('/') {
        request = request.header("host", "localhost");
    }
    request.header("last-event-id", cursor).body(Body::empty()).expect("a request")
}
