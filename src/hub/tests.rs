//! Tests of the hub without sockets, and what they share. Most use only the hub's own API.

mod answers_of_nodes;
#[expect(clippy::disallowed_methods, reason = "a test's tasks end with the test")]
mod capacity;
mod concurrency;
mod interleaving;
mod mailbox_operations;
pub(super) mod mailbox_properties;
mod moved_mailbox;
#[expect(clippy::disallowed_methods, reason = "a test's tasks end with the test")]
mod observing;
#[expect(clippy::disallowed_methods, reason = "a test's tasks end with the test")]
mod repeating;
pub(super) mod stub_nodes;
#[expect(clippy::disallowed_methods, reason = "a test's tasks end with the test")]
mod two_hubs;
mod way_between;
mod wrong_parcels;

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio_stream::Stream;

use super::{Draft, Hub, Limits, Local, Opening, Ready, StreamItem, Subscription, UserSet, Watch};
use crate::{
    auth::{Caller, Subscriber, TenantAddress},
    budget::Budget,
    error::Error,
    model::{Address, Data, DeviceId, Outcome, Start, UserId},
};

const WINDOW: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(30);
const NO_TTL: Duration = Duration::ZERO;

struct TestHub {
    hub: Hub,
    budget: Budget,
    caller: Caller,
}

impl TestHub {
    fn new(budget: usize, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::only_times(WINDOW, WINDOW);
        change(&mut limits);
        let budget = Budget::new(budget);
        let hub = Hub::new(limits, budget.clone(), Local, ());
        Self { hub, budget, caller: Caller::anonymous() }
    }

    async fn send(&self, device: &str, bytes: usize, ttl: Duration) -> Result<Outcome, Error> {
        self.hub.send(&self.caller, &address(device), draft(bytes, ttl)).await
    }

    fn subscribe(&self, device: &str, start: Start) -> Result<(Ready, Subscription), Error> {
        let subscriber = Subscriber::proven(address(device));
        at_once(self.hub.subscribe(&subscriber, &Opening { start, heartbeat: Duration::from_secs(600) }))
    }

    async fn devices(&self) -> Vec<DeviceId> {
        self.hub.devices(&self.caller, &user()).await.expect("no other node")
    }

    fn watch(&self, caller: &Caller) -> Result<Watch, Error> {
        at_once(self.hub.watch(caller, &UserSet::one(user()), Duration::from_secs(600)))
    }
}

/// What a future gives that never waits, because there are no other nodes.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waits"),
    }
}

fn user() -> UserId {
    UserId::new("bob").expect("an id")
}

/// As the hub knows a device of `bob`.
fn place(device: &str) -> TenantAddress {
    TenantAddress::of(&address(device))
}

fn address(device: &str) -> Address {
    Address::new("bob", device).expect("ids")
}

fn draft(bytes: usize, ttl: Duration) -> Draft {
    Draft { event: None, data: Data::new("x".repeat(bytes)).expect("not empty"), ttl, key: None }
}

fn poll<S: Stream + Unpin>(stream: &mut S, waker: &Waker) -> Option<S::Item> {
    match Pin::new(stream).poll_next(&mut Context::from_waker(waker)) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

fn read_all(stream: &mut Subscription) -> usize {
    let mut messages = 0;
    while let Some(event) = poll(stream, Waker::noop()) {
        messages += usize::from(matches!(event, StreamItem::Message(..)));
    }
    messages
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
