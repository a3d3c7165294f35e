//! Three nodes behind a balancer are restarted one after the other, while devices and senders use them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::harness::{
    Connection, Door, FORM, Process, Sse,
    balancer::Balancer,
    claim, lasting_port,
    nodes::{continuity, node_on},
    path,
    redis_server::RedisServer,
    until, within,
};

const DEVICES: usize = 24;
/// Between two sends of one sender.
const PAUSE: Duration = Duration::from_millis(25);
const OPTIONS: [&str; 4] = ["--drain-window", "1", "--send-rate", "0"];

/// Answers after which a client asks again: of a node that stops, of the balancer when a node is gone, and of a node that waits for
/// another one in vain.
const AGAIN: [u16; 3] = [503, 502, 504];

/// One device, and what its sender knows.
#[derive(Default)]
struct Device {
    accepted: Mutex<Vec<usize>>,
    received: Mutex<Vec<usize>>,
    moves: AtomicUsize,
}

/// Opens a stream, as often as the balancer finds a node that stops. Gives how it continues the one before.
async fn open(balancer: Door, name: &str, cursor: &str) -> (Sse, String) {
    let claim = claim(name);
    loop {
        let mut connection = Connection::open(balancer.address).await;
        connection.ask("GET /subscribe", &[("x-user-claim", &claim), ("last-event-id", cursor)]).await;
        let head = connection.head().await;
        if head.status == 200 {
            let mut stream = Sse::after_head(connection);
            if let Some(first) = stream.try_next().await.filter(|first| first.name == "signal.ready") {
                stream.ready = serde_json::from_str(&first.data).expect("JSON");
                let continuity = continuity(&stream).to_owned();
                return (stream, continuity);
            }
        } else {
            assert!(AGAIN.contains(&head.status), "{name}: {}", head.status);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Reads the device's streams, one after the other.
async fn receive(balancer: Door, name: String, device: Arc<Device>) {
    let (mut stream, first) = open(balancer, &name, "").await;
    assert_eq!(first, "new");
    device.moves.fetch_add(1, Ordering::Relaxed);
    loop {
        while let Some(event) = stream.next_patiently().await {
            if !event.name.starts_with("signal.") {
                device.received.lock().push(event.data.parse().expect("a number"));
            }
        }
        let (next, how) = open(balancer, &name, &stream.leave()).await;
        assert_eq!(how, "resumed", "{name}");
        device.moves.fetch_add(1, Ordering::Relaxed);
        stream = next;
    }
}

/// Sends numbers, each until it is accepted. `ttl`: the device may be away for a moment. A connection that was cut, or a node that did
/// not answer, leaves open whether a message was accepted. Its key makes a repetition harmless.
async fn send(balancer: Door, name: String, ttl: bool, device: Arc<Device>, over: Arc<AtomicBool>) {
    let ttl: &[(&str, &str)] = if ttl { &[("ttl", "60")] } else { &[] };
    let claim = claim("sender/backend");
    for number in 0.. {
        let key = number.to_string();
        let headers = [&[("content-type", FORM), ("x-user-claim", &claim), ("idempotency-key", &key)], ttl].concat();
        loop {
            let (head, body) = (format!("POST {}", path(&name)), format!("data={number}"));
            let status = balancer.request(&head, &headers, body.as_bytes()).await.status;
            if [200, 202].contains(&status) {
                device.accepted.lock().push(number);
                break;
            }
            assert!(AGAIN.contains(&status), "{name}: {status} for {number}");
            sleep(Duration::from_millis(10)).await;
        }
        if over.load(Ordering::Relaxed) {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Restarts a node: it ends by itself, and comes back at its place.
async fn restart(nodes: &mut [Option<Process>; 3], place: usize, ports: [u16; 3], url: &str) {
    let stopping = nodes[place].take().expect("a node");
    stopping.signal("TERM");
    let (code, log) = within(tokio::task::spawn_blocking(move || stopping.exited())).await.expect("no panic");
    assert_eq!(code, Some(0), "{log}");
    let node = node_on(ports[place], url, &OPTIONS);
    node.linked().await;
    nodes[place] = Some(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing_repeats_nothing_and_nobody_is_broken_or_404() {
    let Some(redis) = RedisServer::start().await else { return };
    let (url, ports) = (redis.url(), [lasting_port(), lasting_port(), lasting_port()]);
    let mut nodes = ports.map(|port| Some(node_on(port, &url, &OPTIONS)));
    for node in nodes.iter().flatten() {
        node.certain().await;
    }
    let Some(balancer) = Balancer::start("rolling-restart", &ports.map(|port| ([127, 0, 0, 1], port).into())).await
    else {
        return;
    };
    let (balancer_door, over) = (*balancer, Arc::new(AtomicBool::new(false)));
    let devices: Vec<_> = (0..DEVICES).map(|_| Arc::new(Device::default())).collect();
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for (number, device) in devices.iter().enumerate() {
        let name = format!("user{number}/phone");
        receivers.push(tokio::spawn(receive(balancer_door, name.clone(), device.clone())));
        until(async || device.moves.load(Ordering::Relaxed), |moves| *moves > 0).await;
        senders.push(tokio::spawn(send(balancer_door, name, true, device.clone(), over.clone())));
    }
    // A device that is always connected: it leaves each node before that stops. No send to it may find it absent.
    let steady = Arc::new(Device::default());
    let mut stream = nodes[1].as_ref().expect("a node").sse("steady/phone").await;
    let sender = tokio::spawn(send(balancer_door, "steady/phone".into(), false, steady.clone(), over.clone()));
    for place in 0..3 {
        let cursor = stream.parser.last_event_id.clone();
        // The old stream is open until the new one is.
        stream = nodes[(place + 1) % 3].as_ref().expect("a node").back("steady/phone", &cursor).await;
        assert_eq!(continuity(&stream), "resumed");
        let mut restarting = std::pin::pin!(restart(&mut nodes, place, ports, &url));
        loop {
            tokio::select! {
                () = &mut restarting => break,
                event = stream.next_patiently() => {
                    let event = event.expect("its node goes on");
                    if !event.name.starts_with("signal.") {
                        steady.received.lock().push(event.data.parse().expect("a number"));
                    }
                }
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    for sender in senders.into_iter().chain([sender]) {
        within(sender).await.expect("no panic");
    }
    while steady.received.lock().last() < steady.accepted.lock().last() {
        let number = stream.data().await.parse().expect("a number");
        steady.received.lock().push(number);
    }
    for (number, device) in devices.iter().chain([&steady]).enumerate() {
        let last = device.accepted.lock().last().copied();
        until(async || device.received.lock().last().copied(), |received| *received >= last).await;
        let (received, accepted) = (device.received.lock(), device.accepted.lock());
        assert_eq!(*received, *accepted, "{number}");
        assert!(accepted.len() > 20, "{number}: {}", accepted.len());
    }
    let moved = devices.iter().filter(|device| device.moves.load(Ordering::Relaxed) > 1).count();
    assert!(moved > DEVICES / 2, "{moved}");
    assert!(receivers.iter().all(|receiver| !receiver.is_finished()), "nobody was broken");
}
