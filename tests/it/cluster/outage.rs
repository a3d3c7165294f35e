//! Redis is gone while messages are sent all the time.
//!
//! `OUTAGE_SECONDS=60 OUTAGE_RATE=1000 cargo test --release --test it outage -- --nocapture` is the long run. It prints the figures.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::harness::{Connection, Door, FORM, nodes::Nodes, path, until, within};

const SENDERS: usize = 10;
/// What the memory of a node may grow by while Redis is gone: the replay of its own devices, and some air.
const MEMORY: usize = 24 << 20;

/// The time at which a message was answered, how long that took, and the status.
type Answer = (usize, Duration, u16);

/// What has happened so far.
#[derive(Default)]
struct Account {
    /// 0 before the outage, 1 during it, 2 after it.
    phase: AtomicUsize,
    /// Answers of sends to a device of the same node, and to one of the other node.
    answers: [Mutex<Vec<Answer>>; 2],
    /// By device: the numbers that were accepted, and those that came.
    accepted: Mutex<HashMap<String, Vec<u64>>>,
    received: Mutex<HashMap<String, Vec<u64>>>,
    refused: Mutex<HashMap<String, Vec<u64>>>,
}

impl Account {
    /// The latencies of a phase, sorted, of the answers with a status.
    fn latencies(&self, remote: usize, phase: usize, status: u16) -> Vec<Duration> {
        let answers = self.answers[remote].lock();
        let mut latencies: Vec<_> =
            answers.iter().filter(|answer| (answer.0, answer.2) == (phase, status)).map(|answer| answer.1).collect();
        latencies.sort_unstable();
        latencies
    }

    fn statuses(&self, remote: usize, phase: usize) -> HashMap<u16, usize> {
        let mut counts = HashMap::new();
        for answer in self.answers[remote].lock().iter().filter(|answer| answer.0 == phase) {
            *counts.entry(answer.2).or_default() += 1;
        }
        counts
    }

    fn all_came(&self) -> bool {
        let received = self.received.lock();
        self.accepted
            .lock()
            .iter()
            .all(|(device, accepted)| received.get(device).is_some_and(|received| received.len() >= accepted.len()))
    }
}

/// Sends at an even pace: in turn to a device of this node and to one of the other.
async fn send(address: SocketAddr, sender: usize, pause: Duration, account: Arc<Account>) {
    let mut connection = Connection::open(address).await;
    let mut due = Instant::now();
    for number in 0_u64.. {
        let phase = account.phase.load(Ordering::Relaxed);
        if phase > 2 {
            return;
        }
        due += pause;
        sleep_until(due).await;
        let remote = usize::from(number % 2 == 1);
        let device = format!("bob/{}{sender}", ["here", "there"][remote]);
        let (head, body, began) = (format!("POST {}", path(&device)), format!("data={number}"), Instant::now());
        let answer = connection.request(&head, &[("content-type", FORM)], body.as_bytes()).await;
        account.answers[remote].lock().push((phase, began.elapsed(), answer.status));
        match answer.status {
            200 => account.accepted.lock().entry(device).or_default().push(number),
            503 => account.refused.lock().entry(device).or_default().push(number),
            _ => {}
        }
    }
}

/// Opens a stream, and reads it for ever.
async fn receive(node: Door, device: String, account: Arc<Account>) {
    let mut stream = node.sse(&device).await;
    account.received.lock().insert(device.clone(), Vec::new());
    while let Ok(event) = tokio::time::timeout(Duration::from_secs(600), stream.next_patiently()).await {
        if let Some(event) = event.filter(|event| !event.name.starts_with("signal.")) {
            let number = event.data.parse().expect("a number");
            account.received.lock().get_mut(&device).expect("inserted").push(number);
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the length of a run is not a part of the configuration")]
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn while_redis_is_gone_local_sends_are_as_ever_remote_ones_503_and_memory_does_not_grow() {
    let (seconds, rate) = (number("OUTAGE_SECONDS", 2), number("OUTAGE_RATE", 200));
    let Some(mut nodes) = Nodes::certain(2, &["--send-rate", "0"]).await else { return };
    let account = Arc::new(Account::default());
    for sender in 0..SENDERS {
        tokio::spawn(receive(*nodes[0], format!("bob/here{sender}"), account.clone()));
        tokio::spawn(receive(*nodes[1], format!("bob/there{sender}"), account.clone()));
    }
    until(async || account.received.lock().len(), |open| *open == 2 * SENDERS).await;
    let pause = Duration::from_secs(SENDERS as u64) / u32::try_from(rate).expect("a small number");
    let senders: Vec<_> =
        (0..SENDERS).map(|sender| tokio::spawn(send(nodes[0].address, sender, pause, account.clone()))).collect();
    sleep(Duration::from_secs(seconds.min(10))).await;
    let before = nodes[0].memory();
    nodes.redis.kill();
    nodes[0].degraded().await;
    account.phase.store(1, Ordering::Relaxed);
    sleep(Duration::from_secs(seconds)).await;
    let grown = nodes[0].memory().saturating_sub(before);
    // What was sent in this phase may be answered in the next one.
    account.phase.store(2, Ordering::Relaxed);
    nodes.redis.restart_empty().await;
    until(async || account.statuses(1, 2), |statuses| statuses.get(&200).is_some_and(|count| *count > 20)).await;
    account.phase.store(3, Ordering::Relaxed);
    for sender in senders {
        within(sender).await.expect("no panic");
    }
    until(async || account.all_came(), |all| *all).await;
    report(&account, grown);
    for phase in 0..3 {
        assert_eq!(account.statuses(0, phase).into_keys().collect::<Vec<_>>(), [200], "{phase}");
    }
    assert_eq!(account.statuses(1, 0).keys().filter(|status| ![200, 503, 504].contains(*status)).count(), 0);
    assert_eq!(account.statuses(1, 1).into_keys().collect::<Vec<_>>(), [503]);
    assert_eq!(account.statuses(1, 2).keys().filter(|status| ![200, 503].contains(*status)).count(), 0);
    assert!(grown < MEMORY, "{grown} bytes");
    let (accepted, refused) = (account.accepted.lock(), account.refused.lock());
    for (device, received) in account.received.lock().iter() {
        assert!(received.is_sorted_by(|one, next| one < next), "{device}: in order, each once");
        assert!(accepted[device].iter().all(|number| received.binary_search(number).is_ok()), "{device}: lost");
        let late = refused.get(device).into_iter().flatten().filter(|number| received.binary_search(number).is_ok());
        assert_eq!(late.count(), 0, "{device}: delivered after it was refused");
    }
}

/// For people who look at the long run.
fn report(account: &Account, grown: usize) {
    let mut lines = vec![format!("\nmemory of the node during the outage: {} KiB more", grown / 1_024)];
    for (remote, phase, status, what) in [
        (0, 0, 200, "local, before"),
        (0, 1, 200, "local, Redis is gone"),
        (0, 2, 200, "local, after"),
        (1, 0, 200, "remote, before"),
        (1, 1, 503, "remote, Redis is gone: 503"),
        (1, 2, 200, "remote, after"),
    ] {
        let latencies = account.latencies(remote, phase, status);
        let at = |share: usize| latencies.get(latencies.len() * share / 1_000).copied().unwrap_or_default();
        let last = latencies.last().copied().unwrap_or_default();
        lines.push(format!("{what}: {} sends, p50 {:?}, p99 {:?}, worst {last:?}", latencies.len(), at(500), at(990)));
    }
    eprintln!("{}", lines.join("\n"));
}
