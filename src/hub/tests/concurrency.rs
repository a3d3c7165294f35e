//! Many threads use one mailbox: they attach, detach and send while the timekeeper checks.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use tokio_stream::Stream as _;

use super::{
    super::{Draft, Hub, Limits, Local, Opening, StreamItem, Subscription, deadlines::DeadlineKind, time::Tick},
    at_once,
};
use crate::{
    auth::{Caller, Subscriber},
    budget::Budget,
    error::Error,
    model::{Address, Continuity, Data, Outcome, Start},
};

const ROUNDS: u64 = 1_000;

/// A hub and one device of it, for threads without a runtime of their own.
struct OneDevice {
    hub: Hub,
    subscriber: Subscriber,
    caller: Caller,
    address: Address,
    runtime: tokio::runtime::Runtime,
}

impl OneDevice {
    fn new(resume_window: Duration) -> Arc<Self> {
        let limits = Limits::only_times(resume_window, Duration::from_secs(60));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let hub = Hub::new(limits, Budget::new(1 << 30), Local, ());
        let address = Address::new("bob", "phone").expect("ids");
        let subscriber = Subscriber::proven(address.clone());
        Arc::new(Self { hub, subscriber, caller: Caller::anonymous(), address, runtime })
    }

    fn subscribe(&self, start: Start) -> (super::super::Ready, Subscription) {
        let opening = Opening { start, heartbeat: Duration::from_secs(60) };
        at_once(self.hub.subscribe(&self.subscriber, &opening)).expect("a stream")
    }

    fn send(&self, number: u64, ttl: Duration) -> Result<Outcome, Error> {
        let draft = Draft { event: None, data: Data::new(number.to_string()).expect("not empty"), ttl, key: None };
        // This future never waits, because there are no other nodes.
        self.runtime.block_on(self.hub.send(&self.caller, &self.address, draft))
    }

    fn check_all(&self) {
        for kind in DeadlineKind::ALL {
            // Each check schedules a live stream again.
            for _ in 0..8 {
                let due = self.hub.0.core.deadlines.slots(kind).take(Tick::LAST, usize::MAX);
                for (tick, slot) in due.iter().flat_map(|(tick, slots)| slots.iter().map(move |slot| (tick, slot))) {
                    self.hub.check(slot, kind, *tick);
                }
            }
        }
    }
}

/// The messages that a stream has ready now.
fn read_all(stream: &mut Subscription) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(event)) = Pin::new(&mut *stream).poll_next(&mut context) {
        if let StreamItem::Message(_, message) = event {
            numbers.push(message.data.as_str().parse().expect("a number"));
        }
    }
    numbers
}

#[test]
fn every_accepted_message_arrives_once_and_a_late_end_removes_nothing() {
    let test = OneDevice::new(Duration::from_secs(60));
    let (first, mut stream) = test.subscribe(Start::Anew);
    let mut cursor = first.cursor;
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while sent < ROUNDS {
                match test.send(sent, Duration::from_secs(60)) {
                    Ok(_) => sent += 1,
                    Err(Error::MAILBOX_FULL) => thread::yield_now(),
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        let mut next = 0;
        while next < ROUNDS {
            for number in read_all(&mut stream) {
                assert_eq!(number, next, "in order, nothing lost or repeated");
                next += 1;
                cursor.seq += 1;
            }
            // The old stream ends late, on another thread, when the next one is already attached.
            let (ready, successor) = test.subscribe(Start::After(cursor));
            assert_eq!(ready.continuity, Continuity::Resumed);
            let old = std::mem::replace(&mut stream, successor);
            scope.spawn(move || drop(old));
        }
        sender.join().expect("no panic");
    });
    assert_eq!(test.send(0, Duration::ZERO), Ok(Outcome::Delivered), "the newest stream is still attached");
}

#[test]
fn a_mailbox_that_is_removed_while_streams_and_messages_arrive_loses_nothing() {
    let test = OneDevice::new(Duration::ZERO);
    thread::scope(|scope| {
        let timekeeper = scope.spawn(|| {
            for _ in 0..ROUNDS {
                test.check_all();
            }
        });
        for number in 0..ROUNDS {
            let (_, mut stream) = test.subscribe(Start::Anew);
            assert_eq!(test.send(number, Duration::ZERO), Ok(Outcome::Delivered));
            assert_eq!(read_all(&mut stream), [number]);
            drop(stream);
            if number % 2 == 0 {
                assert!(test.send(number, Duration::from_secs(60)).is_ok());
                let (_, mut stream) = test.subscribe(Start::Anew);
                assert_eq!(read_all(&mut stream), [number], "a held message survives the check");
            }
        }
        timekeeper.join().expect("no panic");
    });
    test.check_all();
    assert_eq!(
        test.hub.census(),
        super::super::Census { streams: 0, mailboxes: 0, watches: 0, message_bytes: 0, held_bytes: 0 }
    );
}
