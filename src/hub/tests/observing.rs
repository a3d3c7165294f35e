//! What the hub tells its observer: each event once, with no lock held.

use std::{
    sync::{Arc, OnceLock, mpsc},
    task::Waker,
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    super::{Event, Evicted, Hub, Inbound as _, Limits, Local, Observer, Subscription, slot::Slot},
    HOLD, NO_TTL, TestHub, WINDOW, draft, place, poll, read_all, user,
};
use crate::{
    auth::Caller,
    budget::Budget,
    error::Error,
    model::{Continuity, EndReason, Outcome, Start},
};

/// Records every event. Calls the hub for state behind the locks of the registry, the presence and a slot: under one of
/// these locks, it would wait for ever.
#[derive(Clone, Default)]
struct Recorder(Arc<Inner>);

#[derive(Default)]
struct Inner {
    hub: OnceLock<Hub>,
    events: Mutex<Vec<String>>,
}

impl Observer for Recorder {
    fn observe(&self, event: &Event<'_>) {
        if let Some(hub) = self.0.hub.get() {
            let _ = hub.census();
            hub.of_user(&place("phone").user);
            for device in ["phone", "absent"] {
                hub.0.core.registry.find(&place(device)).map(|slot| slot.live_page());
            }
        }
        self.0.events.lock().push(match *event {
            Event::Opened { address, continuity, replayed } => {
                format!("{} opened: {continuity:?}, {replayed} replayed", address.device.as_str())
            }
            Event::StreamRefused { error } => format!("stream refused: {error:?}"),
            Event::Ended { address, reason } => format!("{} ended: {reason:?}", address.device.as_str()),
            Event::Sent { to, outcome } => format!("sent to {}: {outcome:?}", to.device.as_str()),
            Event::Written { address, latency } => {
                assert!(latency < Duration::from_secs(20), "{latency:?}");
                format!("{} has written", address.device.as_str())
            }
            Event::BroadcastRefused { to, error } => format!("broadcast to {}: {error:?}", to.id()),
            Event::Expired { address, messages } => format!("{} expired: {messages}", address.device.as_str()),
            Event::Evicted { address, kind, messages } => {
                format!("{} evicted: {messages} {kind:?}", address.device.as_str())
            }
            Event::WatchEnded { user, reason } => format!("watch of {} ended: {reason:?}", user.id()),
        });
    }
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.events.lock())
    }
}

fn observed(budget: usize) -> (TestHub, Recorder) {
    let (recorder, budget) = (Recorder::default(), Budget::new(budget));
    let limits = Limits { user_devices: 3, ..Limits::only_times(WINDOW, WINDOW) };
    let hub = Hub::new(limits, budget.clone(), Local, recorder.clone());
    assert!(recorder.0.hub.set(hub.clone()).is_ok());
    (TestHub { hub, budget, caller: Caller::anonymous() }, recorder)
}

/// Runs a test on another thread, and fails when it does not end because the observer was called under a lock.
fn without_deadlock(test: impl AsyncFnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let running = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(test());
        done.send(()).expect("the test waits");
    });
    let in_time = ended.recv_timeout(Duration::from_secs(20));
    assert_ne!(in_time, Err(mpsc::RecvTimeoutError::Timeout), "the observer was called under a lock");
    running.join().expect("no panic");
}

fn open(test: &TestHub, device: &str) -> Subscription {
    test.subscribe(device, Start::Anew).expect("a stream").1
}

#[test]
fn each_event_of_streams_and_watches_is_observed_once() {
    without_deadlock(async || {
        let (test, recorder) = observed(1 << 20);
        let first = open(&test, "phone");
        assert_eq!(recorder.take(), ["phone opened: New, 0 replayed"]);
        let mut second = open(&test, "phone");
        assert_eq!(recorder.take(), ["phone opened: New, 0 replayed"]);
        drop(first);
        assert_eq!(recorder.take(), [format!("phone ended: {:?}", Some(EndReason::Superseded))]);
        let watch = test.watch(&test.caller).expect("a watch");
        test.hub.drain(Duration::from_secs(1)).await;
        assert!(poll(&mut second, Waker::noop()).is_some(), "it says why");
        assert!(recorder.take().is_empty());
        drop((second, watch));
        let draining = Some(EndReason::Draining);
        assert_eq!(
            recorder.take(),
            [format!("phone ended: {draining:?}"), format!("watch of bob ended: {draining:?}")]
        );
        assert_eq!(test.hub.broadcast(&test.caller, &user(), draft(1, NO_TTL)).await, Err(Error::DRAINING.into()));
        assert_eq!(recorder.take(), [format!("broadcast to bob: {:?}", Error::DRAINING)]);
    });
}

#[test]
fn a_stream_whose_client_left_ended_without_a_reason() {
    without_deadlock(async || {
        let (test, recorder) = observed(1 << 20);
        drop(open(&test, "phone"));
        assert_eq!(recorder.take(), ["phone opened: New, 0 replayed", "phone ended: None"]);
    });
}

#[test]
fn each_send_is_observed_once_with_its_outcome() {
    without_deadlock(async || {
        let (test, recorder) = observed(1 << 20);
        assert_eq!(test.send("phone", 1, NO_TTL).await, Err(Error::NotConnected));
        assert_eq!(test.hub.broadcast(&test.caller, &user(), draft(1, NO_TTL)).await, Err(Error::NotConnected.into()));
        assert_eq!(test.send("phone", 1, HOLD).await, Ok(Outcome::Held));
        let streams = [open(&test, "phone"), open(&test, "laptop")];
        assert_eq!(test.send("phone", 1, NO_TTL).await, Ok(Outcome::Delivered));
        let reached = test.hub.broadcast(&test.caller, &user(), draft(1, NO_TTL)).await.map(|devices| devices.len());
        assert_eq!(reached, Ok(2));
        drop(streams);
        let expected = [
            "sent to phone: Err(NotConnected)",
            "broadcast to bob: NotConnected",
            "sent to phone: Ok(Held)",
            "phone opened: New, 1 replayed",
            "laptop opened: New, 0 replayed",
            "sent to phone: Ok(Delivered)",
            "sent to laptop: Ok(Delivered)",
            "sent to phone: Ok(Delivered)",
            "phone ended: None",
            "laptop ended: None",
        ];
        assert_eq!(recorder.take(), expected);
    });
}

#[test]
fn messages_that_are_dropped_are_observed_with_their_count() {
    without_deadlock(async || {
        let (test, recorder) = observed(100_000);
        let keeping = tokio::spawn(test.hub.clone().keep_time());
        for _ in 0..2 {
            assert_eq!(test.send("absent", 10, HOLD).await, Ok(Outcome::Held));
        }
        tokio::time::sleep(HOLD + Duration::from_secs(1)).await;
        keeping.abort();
        assert_eq!(recorder.take()[2..], ["absent expired: 2"]);
        for device in ["absent", "phone"] {
            assert_eq!(test.send(device, 10, HOLD).await, Ok(Outcome::Held));
        }
        let mut streams = [open(&test, "phone"), open(&test, "laptop")];
        assert_eq!(read_all(&mut streams[0]), 1);
        recorder.take();
        let _third = open(&test, "watch");
        let told = format!("absent evicted: 1 {:?}", Evicted::Waiting);
        assert_eq!(recorder.take(), [told, format!("watch opened: {:?}, 0 replayed", Continuity::New)]);
        assert_eq!(test.send("laptop", 99_900, NO_TTL).await, Err(Error::OVER_BUDGET));
        let told = format!("phone evicted: 1 {:?}", Evicted::Replay);
        assert_eq!(recorder.take(), [told, format!("sent to laptop: Err({:?})", Error::OVER_BUDGET)]);
    });
}

#[test]
fn one_live_message_in_16_is_measured_and_replayed_and_held_ones_are_not() {
    without_deadlock(async || {
        let (test, recorder) = observed(1 << 20);
        let (ready, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
        let written = |events: Vec<String>| events.iter().filter(|event| *event == "phone has written").count();
        for _ in 0..160 {
            assert_eq!(test.send("phone", 10, NO_TTL).await, Ok(Outcome::Delivered));
            assert_eq!(read_all(&mut phone), 1);
        }
        assert_eq!(written(recorder.take()), 10);
        drop(phone);
        let (back, mut phone) = test.subscribe("phone", Start::After(ready.cursor)).expect("a stream");
        assert_eq!((back.replayed, read_all(&mut phone), written(recorder.take())), (160, 160, 0));
        drop(phone);
        for _ in 0..16 {
            let mut phone = open(&test, "phone");
            assert_eq!(test.send("phone", 10, NO_TTL).await, Ok(Outcome::Delivered));
            assert!(poll(&mut phone, Waker::noop()).is_some());
        }
        assert_eq!(written(recorder.take()), 0, "a stream that asks for no more may not have written its message");
        for _ in 0..32 {
            assert_eq!(test.send("phone", 10, HOLD).await, Ok(Outcome::Held));
        }
        let (back, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
        assert_eq!(
            (back.replayed, read_all(&mut phone), written(recorder.take())),
            (32, 32, 0),
            "held messages wait for a device"
        );
    });
}

#[test]
fn measuring_adds_no_memory_to_an_idle_stream() {
    assert_eq!(size_of::<Subscription>(), 32);
}

#[test]
fn a_slot_fits_into_the_memory_class_that_it_had_without_other_nodes_and_keys() {
    // With the two counts of its `Arc` 224 bytes, which is a size class of jemalloc. The next one has 256.
    assert!(size_of::<Slot>() + 16 <= 224, "{}", size_of::<Slot>());
}
