//! The hub alone, without sockets: `cargo bench --bench hub`. Measures what a message and a stream cost in mailboxes and the
//! registry.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use backend_signal::{
    auth::{Auth, Caller, ClaimNames, Credentials, Mode},
    budget::Budget,
    hub::{Draft, Hub, Limits, Local, Opening, StreamItem, Subscription},
    limits::{AddressScope, AddressSource, ClientAddresses, SendRates},
    model::{Address, Cursor, Data, Start},
    telemetry::Metrics,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, Uri};
use tokio_stream::Stream as _;

/// Devices of a busy node.
const MANY: u32 = 100_000;
/// Devices of a user who has far too many.
const HOARD: u32 = 10_000;
/// How many messages a client has missed when it comes back.
const MISSED: u32 = 50;

/// A hub, its auth and a caller.
struct Stage {
    hub: Hub,
    auth: Auth,
    caller: Caller,
}

impl Stage {
    fn new() -> Self {
        let limits = Limits::only_times(Duration::from_secs(60), Duration::from_secs(60));
        let metrics = Metrics::new();
        let (claims, trusted_proxies) = (ClaimNames::default(), Vec::new());
        let auth = Auth {
            mode: Mode::None,
            require_all: false,
            require_for_ice: false,
            claims,
            tokens: None,
            trusted_proxies,
            metrics: metrics.clone(),
        };
        let caller = auth.caller(&nobody(&HeaderMap::new(), &Uri::default())).expect("anybody may send");
        Self { hub: Hub::new(limits, Budget::new(usize::MAX), Local, metrics), auth, caller }
    }

    fn open(&self, address: &Address, start: Start) -> (Cursor, Subscription) {
        let path = Some(Ok(address.clone()));
        let subscriber =
            self.auth.subscriber(&nobody(&HeaderMap::new(), &Uri::default()), path).expect("the path says who");
        let opening = Opening { start, heartbeat: Duration::from_secs(15) };
        let (ready, stream) = at_once(self.hub.subscribe(&subscriber, &opening)).expect("a stream");
        (ready.cursor, stream)
    }

    fn send(&self, to: &Address) {
        let draft =
            Draft { event: None, data: Data::new("x".repeat(200)).expect("data"), ttl: Duration::ZERO, key: None };
        at_once(self.hub.send(&self.caller, to, draft)).expect("delivered");
    }
}

/// Credentials that name nobody.
fn nobody<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Credentials<'a> {
    Credentials { headers, uri, is_stream_request: true, lasts: true, peer: PEER, client: PEER, certificate: None }
}

/// What a future gives that never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let Poll::Ready(answer) = pin!(future).poll(&mut context()) else {
        unreachable!("there are no other nodes to wait for")
    };
    answer
}

/// The messages that a stream has ready.
fn take(stream: &mut Subscription) -> u32 {
    let mut messages = 0;
    while let Poll::Ready(Some(event)) = Pin::new(&mut *stream).poll_next(&mut context()) {
        messages += u32::from(matches!(black_box(event), StreamItem::Message(..)));
    }
    messages
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn address(number: u32) -> Address {
    Address::new(&format!("user {number}"), "phone").expect("ids")
}

fn messages(criterion: &mut Criterion) {
    let stage = Stage::new();
    let open = |address: Address| {
        let stream = stage.open(&address, Start::Anew).1;
        (address, stream)
    };
    let mut devices: Vec<_> = (0..MANY).map(|number| open(address(number))).collect();
    let hoard = (0..HOARD).map(|number| Address::new("hoarder", &format!("phone {number}")).expect("ids"));
    devices.extend(hoard.map(open));
    let mut group = criterion.benchmark_group("message of 200 B, sent and taken");
    group.throughput(Throughput::Elements(1));
    let mut random = fastrand::Rng::with_seed(7);
    let groups = [
        ("always the same device".to_owned(), 0..1),
        (format!("any of {MANY} devices"), 0..MANY),
        (format!("any of {HOARD} devices of one user"), MANY..MANY + HOARD),
    ];
    for (name, among) in groups {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (address, stream) = &mut devices[random.u32(among.clone()) as usize];
                stage.send(address);
                assert_eq!(take(stream), 1, "delivered once");
            });
        });
    }
}

fn streams(criterion: &mut Criterion) {
    let stage = Stage::new();
    let address = address(0);
    criterion.bench_function("stream, opened and left", |bencher| {
        bencher.iter(|| black_box(stage.open(&address, Start::Anew)));
    });
    let mut group = criterion.benchmark_group("stream that comes back");
    group.throughput(Throughput::Elements(MISSED.into()));
    group.bench_function(format!("for {MISSED} missed messages"), |bencher| {
        let missed = || {
            let (cursor, stream) = stage.open(&address, Start::Anew);
            (0..MISSED).for_each(|_| stage.send(&address));
            drop(stream);
            cursor
        };
        let resume = |cursor| {
            let (_, mut stream) = stage.open(&address, Start::After(cursor));
            assert_eq!(take(&mut stream), MISSED, "nothing is missing");
        };
        bencher.iter_batched(missed, resume, BatchSize::PerIteration);
    });
}

/// What it costs to check a message against the rate of its caller.
fn rates(criterion: &mut Criterion) {
    let addresses = ClientAddresses::new(Vec::new(), AddressSource::XForwardedFor, AddressScope::All);
    let (stage, rates) = (Stage::new(), SendRates::new(1_000_000, 1_000_000, addresses));
    let caller = |number: u32| {
        let mut headers = HeaderMap::new();
        let claim = format!(r#"{{"userid":"user {number}","clientid":"phone"}}"#);
        headers.insert("x-user-claim", claim.parse().expect("ASCII"));
        stage.auth.caller(&nobody(&headers, &Uri::default())).expect("a claim")
    };
    let callers: Vec<_> = (0..MANY).map(caller).collect();
    let mut group = criterion.benchmark_group("rate of a message, checked");
    let mut random = fastrand::Rng::with_seed(7);
    for (name, among) in [("always the same caller".to_owned(), 1), (format!("any of {MANY} callers"), callers.len())] {
        group.bench_function(name, |bencher| bencher.iter(|| rates.admit(&callers[random.usize(..among)])));
    }
    group.bench_function("nobody", |bencher| bencher.iter(|| rates.admit(&stage.caller)));
}

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

criterion_group!(benches, messages, streams, rates);
criterion_main!(benches);
