//! The limits of the hub, tested through its API: what is refused, what is dropped to make room, and which device is told.

use std::{
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::Duration,
};

use super::{
    super::{
        Change, StreamItem, WatchItem,
        deadlines::{DeadlineKind, FARTHEST_MS},
        time::{Millis, Tick},
    },
    HOLD, NO_TTL, TestHub, WINDOW, Wakes, draft, place, poll, read_all, user,
};
use crate::{
    auth::Caller,
    error::{Error, Limit},
    model::{Address, Continuity, DeviceId, Outcome, Start},
};

#[tokio::test]
async fn a_message_to_many_devices_counts_once_against_the_budget() {
    let test = TestHub::new(1 << 20, |_| ());
    let mut streams: Vec<_> =
        (0..100).map(|number| test.subscribe(&number.to_string(), Start::Anew).expect("a stream").1).collect();
    for _ in 0..3 {
        // A hundred copies would be ten times the budget.
        let delivered = test.hub.broadcast(&test.caller, &user(), draft(100_000, NO_TTL)).await;
        assert_eq!(delivered.map(|devices| devices.len()), Ok(100));
        assert!(streams.iter_mut().all(|stream| read_all(stream) == 1));
    }
    assert!((300_000..340_000).contains(&test.budget.messages()), "{}", test.budget.messages());
}

#[tokio::test]
async fn when_the_budget_is_full_replayed_and_then_held_messages_make_room_for_a_live_one() {
    let test = TestHub::new(100_000, |_| ());
    let (ready, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    let (_, mut laptop) = test.subscribe("laptop", Start::Anew).expect("a stream");
    assert_eq!(test.send("absent", 30_000, HOLD).await, Ok(Outcome::Held));
    for _ in 0..2 {
        assert_eq!(test.send("phone", 30_000, NO_TTL).await, Ok(Outcome::Delivered));
    }
    assert_eq!(read_all(&mut phone), 2);
    // The phone's first message is dropped.
    assert_eq!(test.send("laptop", 30_000, NO_TTL).await, Ok(Outcome::Delivered));
    drop(phone);
    let (back, phone) = test.subscribe("phone", Start::After(ready.cursor)).expect("a stream");
    assert_eq!((back.continuity, back.replayed), (Continuity::Broken, 1));
    drop(phone);
    // The phone's second message is dropped, and then the held one.
    for _ in 0..2 {
        assert_eq!(test.send("laptop", 30_000, NO_TTL).await, Ok(Outcome::Delivered));
    }
    let (told, _absent) = test.subscribe("absent", Start::Anew).expect("a stream");
    assert_eq!((told.continuity, told.replayed), (Continuity::Broken, 0));
    // Messages that wait for a live stream stay.
    assert_eq!(test.send("laptop", 30_000, NO_TTL).await, Err(Error::OVER_BUDGET));
    assert_eq!(read_all(&mut laptop), 3);
    assert!(test.budget.messages() <= 100_000);
}

#[tokio::test]
async fn messages_kept_for_replay_make_room_for_a_message_to_hold() {
    let test = TestHub::new(100_000, |_| ());
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    for _ in 0..20 {
        assert_eq!(test.send("phone", 9_000, NO_TTL).await, Ok(Outcome::Delivered));
        read_all(&mut phone);
    }
    assert_eq!(test.send("absent", 9_000, HOLD).await, Ok(Outcome::Held));
}

#[tokio::test]
async fn messages_that_a_stream_did_not_take_make_room_for_live_messages() {
    let test = TestHub::new(100_000, |_| ());
    let (_, unread) = test.subscribe("unread", Start::Anew).expect("a stream");
    for _ in 0..9 {
        assert_eq!(test.send("unread", 10_000, NO_TTL).await, Ok(Outcome::Delivered));
    }
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    drop(unread);
    for _ in 0..20 {
        assert_eq!(test.send("phone", 10_000, NO_TTL).await, Ok(Outcome::Delivered));
        assert_eq!(read_all(&mut phone), 1);
    }
    let (ready, _unread) = test.subscribe("unread", Start::Anew).expect("a stream");
    assert_eq!((ready.continuity, ready.replayed), (Continuity::Broken, 0));
}

#[tokio::test]
async fn held_messages_have_a_budget_and_live_messages_are_still_accepted() {
    let test = TestHub::new(1 << 20, |limits| limits.hold_budget = 50_000);
    let mut held = 0;
    let refused = loop {
        match test.send(&format!("absent {held}"), 1_000, HOLD).await {
            Ok(outcome) => assert_eq!(outcome, Outcome::Held),
            Err(error) => break error,
        }
        held += 1;
    };
    assert_eq!((refused, test.hub.census().held_bytes <= 50_000), (Error::OVER_HOLD_BUDGET, true));
    assert!((25..=35).contains(&held), "{held}");
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    assert_eq!(test.send("phone", 1_000, HOLD).await, Ok(Outcome::Delivered));
    assert_eq!(read_all(&mut phone), 1);
    // A device that connects frees the memory of its held messages.
    let (ready, mut absent) = test.subscribe("absent 0", Start::Anew).expect("a stream");
    assert_eq!((ready.replayed, read_all(&mut absent)), (1, 1));
    assert_eq!(test.send("another", 1_000, HOLD).await, Ok(Outcome::Held));
}

#[tokio::test]
async fn the_hold_budget_admits_exactly_what_counts_as_held() {
    let unlimited = TestHub::new(1 << 20, |_| ());
    for _ in 0..3 {
        assert_eq!(unlimited.send("absent", 100, HOLD).await, Ok(Outcome::Held));
    }
    let three = unlimited.hub.census().held_bytes;
    for (budget, third) in [(three, Ok(Outcome::Held)), (three - 1, Err(Error::OVER_HOLD_BUDGET))] {
        let test = TestHub::new(1 << 20, |limits| limits.hold_budget = budget);
        for expected in [Ok(Outcome::Held), Ok(Outcome::Held), third] {
            assert_eq!(test.send("absent", 100, HOLD).await, expected, "{budget}");
        }
    }
}

#[tokio::test]
async fn invented_devices_do_not_lock_a_new_phone_out() {
    let test = TestHub::new(1 << 20, |limits| (limits.user_devices, limits.user_held_devices) = (8, 6));
    for number in 0..6 {
        assert_eq!(test.send(&number.to_string(), 100, HOLD).await, Ok(Outcome::Held));
    }
    assert_eq!(test.send("one more", 100, HOLD).await, Err(Error::too_many(Limit::UserHeldDevices)));
    let mut streams = Vec::new();
    for device in ["phone", "laptop", "watch"] {
        let (ready, stream) = test.subscribe(device, Start::Anew).expect("a stream");
        assert_eq!(ready.continuity, Continuity::New);
        streams.push(stream);
    }
    assert_eq!(test.hub.census().mailboxes, 8);
    // The third stream pushed out the oldest mailbox, and its device is told.
    let (ready, stream) = test.subscribe("0", Start::Anew).expect("a stream");
    assert_eq!((ready.continuity, ready.replayed), (Continuity::Broken, 0));
    streams.push(stream);
    for number in 2..6 {
        let (ready, stream) = test.subscribe(&format!("more {number}"), Start::Anew).expect("a stream");
        assert_eq!(ready.continuity, Continuity::New, "a device that lost nothing");
        streams.push(stream);
    }
    assert_eq!(test.subscribe("too many", Start::Anew).err(), Some(Error::too_many(Limit::UserDevices)));
    assert_eq!(test.hub.census().held_bytes, 0);
}

#[tokio::test]
async fn lists_and_broadcasts_have_only_live_devices_in_order() {
    let test = TestHub::new(1 << 20, |_| ());
    for number in 0..50 {
        assert_eq!(test.send(&format!("held {number}"), 10, HOLD).await, Ok(Outcome::Held));
    }
    assert!(test.devices().await.is_empty());
    assert_eq!(test.hub.broadcast(&test.caller, &user(), draft(10, NO_TTL)).await, Err(Error::NotConnected.into()));
    let streams: Vec<_> = ["held 7", "b", "a"]
        .map(|device| (device, test.subscribe(device, Start::Anew).expect("a stream").1))
        .into_iter()
        .collect();
    let names = async || test.devices().await.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(names().await, ["a", "b", "held 7"]);
    for (device, stream) in streams {
        drop(stream);
        assert!(!names().await.contains(&device.to_owned()));
    }
    assert_eq!(test.hub.census().streams, 0);
}

#[test]
fn watches_of_one_user_and_of_one_caller_are_limited_and_a_dropped_one_makes_room() {
    let test = TestHub::new(1 << 20, |limits| (limits.user_watchers, limits.caller_watches) = (3, 2));
    let ana = Caller::proven(Address::new("ana", "phone").expect("ids"));
    let mut watches = vec![test.watch(&ana).expect("the first"), test.watch(&ana).expect("the second")];
    assert_eq!(test.watch(&ana).err(), Some(Error::too_many(Limit::CallerWatches)));
    watches.push(test.watch(&test.caller).expect("the third of this user"));
    assert_eq!(test.watch(&test.caller).err(), Some(Error::too_many(Limit::UserWatchers)));
    assert_eq!(test.hub.census().watches, 3);
    let service = Caller::service(Address::new("backend", "1").expect("ids"));
    let other = TestHub::new(1 << 20, |limits| limits.caller_watches = 1);
    let of_service = [other.watch(&service), other.watch(&service)].map(Result::ok);
    assert_eq!((of_service.iter().flatten().count(), other.hub.census().watches), (2, 2), "a service has no limit");
    drop(of_service);
    assert_eq!(other.hub.census().watches, 0);
    drop(watches.remove(0));
    watches.push(test.watch(&ana).expect("there is room again"));
    drop(watches);
    assert_eq!(test.hub.census().watches, 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_woken_when_its_ping_is_due_and_not_before() {
    let test = TestHub::new(1 << 20, |_| ());
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    let (woken, deadlines) = (Arc::new(Wakes::default()), &test.hub.0.core.deadlines);
    let waker = woken.clone().into();
    assert!(poll(&mut phone, &waker).is_none());
    let first = deadlines.set_alarm().expect("its heartbeat");
    assert!((50..=FARTHEST_MS + 50).contains(&first.time().since(test.hub.now())), "{first:?}");
    assert!(deadlines.slots(DeadlineKind::Stream).take(Tick::reached(Millis(first.time().0 - 1)), 1).is_none());
    let keeping = tokio::spawn(test.hub.clone().keep_time());
    tokio::time::sleep(Duration::from_secs(500)).await;
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "the ping");
    assert!(matches!(poll(&mut phone, &waker), Some(StreamItem::Ping)));
    // After the mailbox is removed, no deadline is left.
    drop(phone);
    tokio::time::sleep(10 * WINDOW).await;
    assert_eq!(
        (test.hub.census().mailboxes, deadlines.slots(DeadlineKind::Stream).take(Tick::LAST, 9).is_none()),
        (0, true)
    );
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn one_wake_brings_many_changes_and_none_of_a_device_that_came_and_left_between_two_checks() {
    let test = TestHub::new(1 << 20, |_| ());
    let keeping = tokio::spawn(test.hub.clone().keep_time());
    let woken = Arc::new(Wakes::default());
    let waker = woken.clone().into();
    let mut watch = test.watch(&test.caller).expect("a watch");
    assert!(matches!(poll(&mut watch, &waker), Some(WatchItem::Devices(_, devices)) if devices.is_empty()));
    assert!(poll(&mut watch, &waker).is_none());
    let _first = test.subscribe("first", Start::Anew).expect("a stream");
    // A quiet board publishes at once.
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(matches!(poll(&mut watch, &waker), Some(WatchItem::Changes(..))));
    assert!(poll(&mut watch, &waker).is_none());
    let before = woken.0.load(Ordering::Relaxed);
    let mut streams = Vec::new();
    for number in 0..50 {
        streams.push(test.subscribe(&format!("{number:02}"), Start::Anew).expect("a stream"));
        drop(test.subscribe("fleeting", Start::Anew).expect("a stream"));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let Some(WatchItem::Changes(_, changes)) = poll(&mut watch, &waker) else { panic!("no batch") };
    let came = (0..50).map(|number| Change::Online(DeviceId::new(&format!("{number:02}")).expect("an id")));
    assert!(changes.iter().cloned().eq(came), "{changes:?}");
    assert!(poll(&mut watch, &waker).is_none());
    assert_eq!(woken.0.load(Ordering::Relaxed) - before, 1);
    keeping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connected_device_is_not_reported_offline_when_an_older_stream_ends_late() {
    let test = TestHub::new(1 << 20, |limits| limits.resume_window = Duration::from_secs(1));
    let keeping = tokio::spawn(test.hub.clone().keep_time());
    let (_, first) = test.subscribe("phone", Start::Anew).expect("a stream");
    let mut watch = test.watch(&test.caller).expect("a watch");
    assert!(matches!(poll(&mut watch, Waker::noop()), Some(WatchItem::Devices(_, devices)) if devices.len() == 1));
    // The mailbox is removed while its stream still exists, as with a peer that does not read.
    let slot = test.hub.0.core.registry.find(&place("phone")).expect("a slot");
    slot.close(&test.hub.0.core, test.hub.now());
    test.hub.0.core.registry.remove(&slot, &test.hub.0.core.totals);
    let _second = test.subscribe("phone", Start::Anew).expect("a stream");
    drop(first);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let Some(WatchItem::Changes(_, changes)) = poll(&mut watch, Waker::noop()) else { panic!("it is a new page") };
    assert_eq!(changes.iter().collect::<Vec<_>>(), [&Change::Online(DeviceId::new("phone").expect("an id"))]);
    assert!(poll(&mut watch, Waker::noop()).is_none());
    assert_eq!(test.devices().await.len(), 1);
    keeping.abort();
}
