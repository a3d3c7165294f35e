//! Two hubs, and between them a way that delays, repeats and loses what it carries.

use std::{sync::Arc, task::Waker, time::Duration};

use tokio::time::sleep;

use super::{
    super::{Brought, Change, Draft, Hub, Limits, Opening, Ready, StreamItem, Subscription, UserSet, WatchItem},
    HOLD, NO_TTL, WINDOW, address, draft, place, poll, read_all,
    way_between::{Between, Faults, Way},
};
use crate::{
    auth::{Caller, Subscriber},
    budget::Budget,
    error::Error,
    model::{Continuity, Cursor, Data, DeviceId, EndReason, Outcome, Start},
};

/// Two hubs of one cluster, and a caller.
struct Pair {
    between: Arc<Between>,
    caller: Caller,
}

impl Pair {
    fn new(faults: Faults, seed: u64) -> Self {
        let between = Arc::new(Between::new(faults, seed));
        for here in 0..2 {
            let limits = Limits::only_times(WINDOW, WINDOW);
            let way = Way { here, between: between.clone() };
            assert!(between.hubs[here].set(Hub::new(limits, Budget::new(1 << 24), way, ())).is_ok());
        }
        Self { between, caller: Caller::anonymous() }
    }

    fn hub(&self, number: usize) -> &Hub {
        self.between.hub(number)
    }

    async fn subscribe(&self, hub: usize, device: &str, start: Start) -> Result<(Ready, Subscription), Error> {
        let opening = Opening { start, heartbeat: Duration::from_secs(600) };
        self.hub(hub).subscribe(&Subscriber::proven(address(device)), &opening).await
    }

    async fn send(&self, hub: usize, device: &str, number: usize, ttl: Duration) -> Result<Outcome, Error> {
        let data = Data::new(number.to_string()).expect("not empty");
        self.hub(hub).send(&self.caller, &address(device), Draft { event: None, data, ttl, key: None }).await
    }
}

/// The numbers of the messages that a stream has ready, and the newest cursor.
fn numbers(stream: &mut Subscription, cursor: &mut Cursor) -> Vec<usize> {
    let mut numbers = Vec::new();
    while let Some(item) = poll(stream, Waker::noop()) {
        if let StreamItem::Message(at, message) = item {
            *cursor = at;
            numbers.push(message.data.as_str().parse().expect("a number"));
        }
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn a_device_resumes_on_another_hub_with_nothing_lost_and_nothing_twice() {
    let pair = Pair::new(Faults::default(), 1);
    let (first, mut on_0) = pair.subscribe(0, "phone", Start::Anew).await.expect("a stream");
    let mut cursor = first.cursor;
    assert_eq!(first.continuity, Continuity::New);
    assert_eq!(pair.send(1, "phone", 1, NO_TTL).await, Ok(Outcome::Delivered));
    assert_eq!(numbers(&mut on_0, &mut cursor), [1]);
    assert_eq!(pair.send(0, "phone", 2, NO_TTL).await, Ok(Outcome::Delivered));
    let (second, mut on_1) = pair.subscribe(1, "phone", Start::After(cursor)).await.expect("a stream");
    assert_eq!((second.continuity, second.replayed, second.cursor.page), (Continuity::Resumed, 1, 1));
    assert!(poll(&mut on_0, Waker::noop()).is_none(), "the same page: no reason");
    assert_eq!((pair.hub(0).census().mailboxes, pair.hub(1).census().streams), (0, 1));
    assert_eq!(pair.send(0, "phone", 3, NO_TTL).await, Ok(Outcome::Delivered));
    assert_eq!(numbers(&mut on_1, &mut cursor), [2, 3]);
    drop(on_0);
    assert_eq!(pair.send(0, "phone", 4, NO_TTL).await, Ok(Outcome::Delivered), "a late end ends nothing");
    assert_eq!(numbers(&mut on_1, &mut cursor), [4]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_page_on_another_hub_supersedes_and_the_older_page_is_refused_everywhere() {
    let pair = Pair::new(Faults::default(), 1);
    let (first, mut old) = pair.subscribe(0, "phone", Start::Anew).await.expect("a stream");
    let (second, mut newer) = pair.subscribe(1, "phone", Start::Anew).await.expect("a stream");
    assert!(second.cursor.page > first.cursor.page);
    assert!(matches!(poll(&mut old, Waker::noop()), Some(StreamItem::End(EndReason::Superseded))));
    for hub in [0, 1] {
        let refused = pair.subscribe(hub, "phone", Start::After(first.cursor)).await.err();
        assert_eq!(refused, Some(Error::Superseded), "on hub {hub}");
    }
    assert_eq!(pair.send(0, "phone", 1, NO_TTL).await, Ok(Outcome::Delivered));
    assert_eq!(read_all(&mut newer), 1, "it is still connected");
}

#[tokio::test(start_paused = true)]
async fn a_held_message_waits_on_one_hub_and_is_read_on_the_other() {
    let pair = Pair::new(Faults::default(), 1);
    assert_eq!(pair.send(0, "phone", 1, NO_TTL).await, Err(Error::NotConnected));
    assert_eq!(pair.send(0, "phone", 2, HOLD).await, Ok(Outcome::Held));
    assert_eq!(pair.send(1, "phone", 3, HOLD).await, Ok(Outcome::Held));
    assert_eq!(pair.send(1, "phone", 4, NO_TTL).await, Err(Error::NotConnected));
    assert_eq!((pair.hub(0).census().mailboxes, pair.hub(1).census().mailboxes), (1, 0));
    let (ready, mut stream) = pair.subscribe(1, "phone", Start::Anew).await.expect("a stream");
    let mut cursor = ready.cursor;
    assert_eq!((ready.continuity, numbers(&mut stream, &mut cursor)), (Continuity::New, vec![2, 3]));
    let census = [0, 1].map(|hub| (pair.hub(hub).census().held_bytes, pair.hub(hub).census().mailboxes));
    assert_eq!(census, [(0, 0), (0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_moved_is_forgotten_and_released_when_its_window_is_over() {
    let pair = Pair::new(Faults::default(), 1);
    let keeping = [0, 1].map(|hub| tokio::spawn(pair.hub(hub).clone().keep_time()));
    drop(pair.subscribe(0, "phone", Start::Anew).await.expect("a stream"));
    sleep(WINDOW.saturating_sub(Duration::from_secs(1))).await;
    // Moves without a stream, as when its node stops.
    let way = Way { here: 1, between: pair.between.clone() };
    assert_eq!(way.bring_from(&place("phone"), None).await, Ok(Brought::Here));
    assert_eq!(pair.hub(1).census().mailboxes, 1);
    sleep(Duration::from_millis(1_200)).await;
    assert_eq!((pair.hub(0).census().mailboxes, pair.hub(1).census().mailboxes), (0, 0), "the window moved along");
    assert_eq!(*pair.between.released.lock(), [(place("phone"), 2)]);
    keeping.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn each_stream_that_comes_or_goes_is_told_to_other_nodes_with_rising_numbers() {
    let pair = Pair::new(Faults::default(), 1);
    let (first, on_0) = pair.subscribe(0, "phone", Start::Anew).await.expect("a stream");
    drop(on_0);
    let (second, on_1) = pair.subscribe(1, "phone", Start::After(first.cursor)).await.expect("a stream");
    let said: Vec<_> = std::mem::take(&mut *pair.between.said.lock());
    let short: Vec<_> = said.iter().map(|(hub, _, standing)| (*hub, standing.term, standing.live.is_some())).collect();
    assert_eq!(short, [(0, 1, true), (0, 1, false), (1, 2, false), (1, 2, true)]);
    assert_eq!(said[3].2.live, Some((second.cursor.epoch, second.cursor.page)));
    assert!(said.is_sorted_by_key(|(_, _, standing)| (standing.term, standing.number)));
    // A mailbox that leaves with its stream says so, too.
    let (_, _on_0) = pair.subscribe(0, "phone", Start::After(second.cursor)).await.expect("a stream");
    let short =
        pair.between.said.lock().iter().map(|(hub, _, it)| (*hub, it.term, it.live.is_some())).collect::<Vec<_>>();
    assert_eq!(short, [(1, 2, false), (0, 3, false), (0, 3, true)]);
    drop(on_1);
}

#[tokio::test(start_paused = true)]
async fn a_device_is_watched_and_listed_on_both_hubs_and_does_not_flap_when_it_moves() {
    let pair = Pair::new(Faults::default(), 1);
    let keeping = [0, 1].map(|hub| tokio::spawn(pair.hub(hub).clone().keep_time()));
    let (first, on_0) = pair.subscribe(0, "phone", Start::Anew).await.expect("a stream");
    let (user, phone) = (address("phone").user, address("phone").device);
    let users = UserSet::one(user.clone());
    let mut watches = Vec::new();
    for hub in [0, 1] {
        let mut watch = pair.hub(hub).watch(&pair.caller, &users, Duration::from_secs(600)).await.expect("a watch");
        let first = poll(&mut watch, Waker::noop());
        assert!(matches!(first, Some(WatchItem::Devices(_, devices)) if devices == [phone.clone()]), "on hub {hub}");
        assert_eq!(pair.hub(hub).devices(&pair.caller, &user).await, Ok(vec![phone.clone()]));
        watches.push(watch);
    }
    let mut cursor = first.cursor;
    let mut streams = vec![on_0];
    for hub in [1, 0, 1, 0] {
        let (ready, stream) = pair.subscribe(hub, "phone", Start::After(cursor)).await.expect("a stream");
        cursor = ready.cursor;
        streams.push(stream);
        sleep(Duration::from_millis(700)).await;
    }
    assert!(watches.iter_mut().all(|watch| poll(watch, Waker::noop()).is_none()), "the same page");
    // Leaves one hub, and comes to the other within the grace.
    streams.clear();
    sleep(Duration::from_millis(1_500)).await;
    let back = pair.subscribe(1, "phone", Start::After(cursor)).await.expect("a stream");
    sleep(Duration::from_secs(4)).await;
    assert!(watches.iter_mut().all(|watch| poll(watch, Waker::noop()).is_none()), "it was back in time");
    drop(back);
    sleep(Duration::from_secs(4)).await;
    for watch in &mut watches {
        let Some(WatchItem::Changes(_, changes)) = poll(watch, Waker::noop()) else { panic!("it went") };
        assert_eq!(changes.iter().collect::<Vec<_>>(), [&Change::Offline(phone.clone())]);
    }
    keeping.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_the_devices_of_both_hubs() {
    let pair = Pair::new(Faults::default(), 1);
    let mut streams = Vec::new();
    for (hub, device) in [(0, "laptop"), (1, "phone"), (0, "tablet")] {
        streams.push(pair.subscribe(hub, device, Start::Anew).await.expect("a stream").1);
    }
    for hub in [0, 1] {
        let delivered = pair.hub(hub).broadcast(&pair.caller, &address("phone").user, draft(10, NO_TTL)).await;
        let names: Vec<_> = delivered.iter().flatten().map(DeviceId::as_str).collect();
        assert_eq!(names, ["laptop", "phone", "tablet"], "from hub {hub}");
        assert!(streams.iter_mut().all(|stream| read_all(stream) == 1));
    }
}

/// A device that goes from hub to hub, and what it should get.
struct Flyer {
    stream: Option<Subscription>,
    cursor: Option<Cursor>,
    accepted: Vec<usize>,
    newest: usize,
    /// Up to this number, the device was told that messages may be missing.
    excused: usize,
}

impl Flyer {
    fn read(&mut self) {
        let (Some(stream), Some(cursor)) = (&mut self.stream, &mut self.cursor) else { return };
        for number in numbers(stream, cursor) {
            assert!(number > self.newest, "{number} after {}", self.newest);
            let missing = self.accepted.iter().find(|it| (self.newest + 1..number).contains(it) && **it > self.excused);
            assert_eq!(missing, None, "it comes too late or never, and no stream was told");
            self.newest = number;
        }
    }

    fn opened(&mut self, (ready, stream): (Ready, Subscription), sent: usize) {
        if ready.continuity == Continuity::Broken {
            self.excused = sent;
        }
        (self.stream, self.cursor) = (Some(stream), Some(ready.cursor));
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_flies_between_hubs_loses_nothing_in_silence_and_gets_nothing_twice() {
    for seed in 0..60 {
        let faults = Faults { lost: if seed % 3 == 0 { 10 } else { 0 }, repeated: 30, delay_ms: 20 };
        let is_whole = faults.lost == 0;
        let (pair, mut random) = (Pair::new(faults, seed), fastrand::Rng::with_seed(seed + 1_000));
        let mut flyer = Flyer { stream: None, cursor: None, accepted: Vec::new(), newest: 0, excused: 0 };
        let mut broken = 0;
        for number in 1..200 {
            let hub = random.usize(..2);
            let ttl = if random.bool() { NO_TTL } else { WINDOW };
            let sending = pair.send(random.usize(..2), "phone", number, ttl);
            let start = flyer.cursor.map_or(Start::Anew, Start::After);
            let (answer, opened) = match random.u8(..10) {
                0..2 => {
                    let (answer, opened) = tokio::join!(sending, pair.subscribe(hub, "phone", start));
                    (answer, Some(opened))
                }
                2 => {
                    flyer.read();
                    flyer.stream = None;
                    (sending.await, None)
                }
                3 => {
                    *pair.between.eras[hub].lock() += 1;
                    (sending.await, None)
                }
                _ => (sending.await, None),
            };
            if answer.is_ok() {
                flyer.accepted.push(number);
            }
            if let Some(opened) = opened {
                let opened = opened.expect("it is the newest page");
                broken += usize::from(opened.0.continuity == Continuity::Broken);
                flyer.opened(opened, number);
            }
            if random.bool() {
                flyer.read();
            }
        }
        let start = flyer.cursor.map_or(Start::Anew, Start::After);
        flyer.opened(pair.subscribe(0, "phone", start).await.expect("a stream"), 199);
        flyer.read();
        let missing = flyer.accepted.iter().find(|number| **number > flyer.newest.max(flyer.excused));
        assert_eq!(missing, None, "seed {seed}");
        assert!(!is_whole || broken == 0, "seed {seed}: nothing was lost, and {broken} streams were told that");
    }
}
