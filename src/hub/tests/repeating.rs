//! A send that its sender repeats with the same key.

use std::time::Duration;

use super::{HOLD, NO_TTL, TestHub, address, draft, read_all};
use crate::{
    auth::Caller,
    error::{Error, Invalid, Limit},
    hub::Draft,
    limits::{AddressScope, AddressSource, ClientAddresses, SendRates},
    model::{IdempotencyKey, Outcome, Start},
};

/// A message with a key.
fn keyed(key: &str, bytes: usize, ttl: Duration) -> Draft {
    Draft { key: Some(IdempotencyKey::new(key).expect("a key")), ..draft(bytes, ttl) }
}

impl TestHub {
    async fn repeat(&self, device: &str, key: &str, ttl: Duration) -> Result<Outcome, Error> {
        self.hub.send(&self.caller, &address(device), keyed(key, 100, ttl)).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_gets_the_first_outcome_for_a_minute_and_is_not_delivered() {
    let test = TestHub::new(1 << 20, |_| ());
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    for wait in [0, 30_000, 29_999] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        assert_eq!(test.repeat("phone", "1", NO_TTL).await, Ok(Outcome::Delivered));
    }
    assert_eq!(read_all(&mut phone), 1);
    drop(phone);
    assert_eq!(test.repeat("phone", "1", NO_TTL).await, Ok(Outcome::Delivered), "also when the device has left");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(test.repeat("phone", "1", NO_TTL).await, Err(Error::NotConnected), "a minute is over");
}

#[tokio::test(start_paused = true)]
async fn another_key_caller_or_device_and_a_message_without_a_key_are_no_repeats() {
    let test = TestHub::new(1 << 20, |_| ());
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    let (_, mut laptop) = test.subscribe("laptop", Start::Anew).expect("a stream");
    for _ in 0..2 {
        for (device, key) in [("phone", "1"), ("phone", "2"), ("laptop", "1")] {
            assert_eq!(test.repeat(device, key, NO_TTL).await, Ok(Outcome::Delivered));
        }
        for caller in [Caller::proven(address("tablet")), Caller::anonymous().at("192.0.2.7")] {
            let sent = test.hub.send(&caller, &address("phone"), keyed("1", 100, NO_TTL)).await;
            assert_eq!(sent, Ok(Outcome::Delivered));
        }
        assert_eq!(test.send("phone", 100, NO_TTL).await, Ok(Outcome::Delivered));
    }
    assert_eq!((read_all(&mut phone), read_all(&mut laptop)), (4 + 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_held_message_is_held_once_and_stays_held_when_its_device_has_come() {
    let test = TestHub::new(1 << 20, |_| ());
    for _ in 0..2 {
        assert_eq!(test.repeat("phone", "1", HOLD).await, Ok(Outcome::Held));
    }
    assert_eq!(test.repeat("phone", "1", NO_TTL).await, Ok(Outcome::Held), "also without a time to hold");
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    assert_eq!(test.repeat("phone", "1", HOLD).await, Ok(Outcome::Held));
    assert_eq!(read_all(&mut phone), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_not_remembered() {
    let addresses = ClientAddresses::new(Vec::new(), AddressSource::XForwardedFor, AddressScope::All);
    let test = TestHub::new(1 << 20, |limits| limits.send_rates = SendRates::new(1, 20, addresses));
    assert_eq!(test.repeat("phone", "1", NO_TTL).await, Err(Error::NotConnected));
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    assert_eq!(test.repeat("phone", "1", NO_TTL).await, Ok(Outcome::Delivered));
    for _ in 1..64 {
        assert_eq!(test.send("phone", 100, NO_TTL).await, Ok(Outcome::Delivered));
    }
    assert_eq!(test.repeat("phone", "2", NO_TTL).await, Err(Error::MAILBOX_FULL));
    assert_eq!(test.repeat("phone", "1", NO_TTL).await, Ok(Outcome::Delivered), "a repeat needs no place");
    assert_eq!(read_all(&mut phone), 64);
    let caller = Caller::proven(address("tablet"));
    let mut sent = Vec::new();
    for key in ["3", "3", "3", "4", "5"] {
        sent.push(test.hub.send(&caller, &address("phone"), keyed(key, 100, NO_TTL)).await);
    }
    assert!(matches!(sent[4], Err(Error::RateLimited(Limit::SendRate, _))), "each repeat counts: {:?}", sent[4]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sent = test.hub.send(&caller, &address("phone"), keyed("5", 100, NO_TTL)).await;
    assert_eq!((sent, read_all(&mut phone)), (Ok(Outcome::Delivered), 3), "keys 3, 4 and 5");
}

#[tokio::test(start_paused = true)]
async fn remembered_outcomes_count_against_the_budget_until_they_are_forgotten() {
    let test = TestHub::new(1 << 20, |_| ());
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    let timekeeper = tokio::spawn(test.hub.clone().keep_time());
    assert_eq!(test.send("phone", 100, NO_TTL).await, Ok(Outcome::Delivered));
    let without_key = test.budget.messages();
    assert_eq!(test.repeat("phone", "1", NO_TTL).await, Ok(Outcome::Delivered));
    assert_eq!(test.budget.messages(), 2 * without_key + 64);
    assert_eq!(read_all(&mut phone), 2);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(test.budget.messages(), 0);
    timekeeper.abort();
}

#[tokio::test]
async fn a_broadcast_takes_no_key() {
    let test = TestHub::new(1 << 20, |_| ());
    let (_, mut phone) = test.subscribe("phone", Start::Anew).expect("a stream");
    let sent = test.hub.broadcast(&test.caller, &super::user(), keyed("1", 100, NO_TTL)).await;
    assert_eq!((sent, read_all(&mut phone)), (Err(Error::from(Invalid::BroadcastKey).into()), 0));
}
