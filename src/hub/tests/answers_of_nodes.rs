//! What the hub makes of the answers of other nodes.

use std::{sync::Arc, time::Duration};

use super::{
    super::{BroadcastFault, Brought, Hub, Inbound as _, Limits, Opening, Placed, Sending, StubNodes, UserSet},
    HOLD, NO_TTL, TestHub, WINDOW, address, draft, place, read_all, user,
};
use crate::{
    auth::{Caller, Subscriber},
    budget::Budget,
    error::Error,
    model::{Continuity, DeviceId, Outcome, Start},
};

const TEN_SECONDS: Sending = Sending { ttl_ms: 10_000, key: None };

fn with(nodes: StubNodes) -> TestHub {
    let budget = Budget::new(1 << 20);
    let hub = Hub::new(Limits::only_times(WINDOW, WINDOW), budget.clone(), nodes, ());
    TestHub { hub, budget, caller: Caller::anonymous() }
}

fn ids<const N: usize>(names: [&str; N]) -> Vec<DeviceId> {
    names.map(|name| DeviceId::new(name).expect("an id")).to_vec()
}

async fn subscribe(test: &TestHub, device: &str) -> Result<Continuity, Error> {
    let opening = Opening { start: Start::Anew, heartbeat: Duration::from_secs(600) };
    let (ready, stream) = test.hub.subscribe(&Subscriber::proven(address(device)), &opening).await?;
    std::mem::forget(stream);
    Ok(ready.continuity)
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_refused_when_its_mailbox_cannot_be_brought_or_is_always_elsewhere() {
    for error in [Error::UNREACHABLE, Error::Superseded] {
        let test = with(StubNodes { brought: Err(error), ..StubNodes::default() });
        assert_eq!(subscribe(&test, "phone").await, Err(error));
        assert_eq!(test.send("phone", 10, HOLD).await, Err(error), "nor can a message be held");
        assert_eq!(test.hub.census().mailboxes, 0);
    }
    let test = with(StubNodes { brought: Ok(Brought::Here), ..StubNodes::default() });
    let began = tokio::time::Instant::now();
    assert_eq!(subscribe(&test, "phone").await, Err(Error::UNREACHABLE));
    assert_eq!(began.elapsed().as_millis() / 100, 25, "2.5 s");
    assert_eq!(test.send("phone", 10, HOLD).await, Err(Error::UNREACHABLE));
    assert_eq!(began.elapsed().as_millis() / 100, 35, "1 s more");
    assert_eq!(test.budget.messages(), 0);
}

#[tokio::test]
async fn a_message_goes_to_other_nodes_only_when_the_device_is_not_live_here() {
    for pushed in [Ok(Outcome::Delivered), Ok(Outcome::Held), Err(Error::UNREACHABLE), Err(Error::UnknownOutcome)] {
        let test = with(StubNodes { pushed, ..StubNodes::default() });
        for ttl in [NO_TTL, HOLD] {
            assert_eq!(test.send("phone", 10, ttl).await, pushed);
        }
        let (_, mut stream) = test.subscribe("phone", Start::Anew).expect("a stream");
        assert_eq!((test.send("phone", 10, NO_TTL).await, read_all(&mut stream)), (Ok(Outcome::Delivered), 1));
        drop(stream);
        assert_eq!(test.send("phone", 10, HOLD).await, pushed, "another node may have it by now");
    }
}

#[tokio::test]
async fn a_device_that_came_from_another_node_during_a_broadcast_gets_the_message_once() {
    for elsewhere in
        [Ok(ids(["phone"])), Err(BroadcastFault { error: Error::UnknownOutcome, delivered: ids(["phone"]) })]
    {
        let test = with(StubNodes { broadcast: elsewhere.clone(), ..StubNodes::default() });
        let (_, mut stream) = test.subscribe("phone", Start::Anew).expect("a stream");
        let answer = test.hub.broadcast(&test.caller, &user(), draft(10, NO_TTL)).await;
        assert_eq!((answer, read_all(&mut stream)), (elsewhere, 0), "its mailbox brought the message along");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_while_it_is_unknown_whether_it_got_a_broadcast_does_not_get_it_twice() {
    let unknown = Err(BroadcastFault { error: Error::UnknownOutcome, delivered: Vec::new() });
    let takes = Duration::from_millis(50);
    let test = with(StubNodes { takes, broadcast: unknown.clone(), ..StubNodes::default() });
    let (subscriber, user) = (Subscriber::proven(address("phone")), user());
    let opening = Opening { start: Start::Anew, heartbeat: Duration::from_secs(600) };
    let broadcast = async {
        tokio::time::sleep(takes / 2).await;
        test.hub.broadcast(&test.caller, &user, draft(10, NO_TTL)).await
    };
    let (opened, answer) = tokio::join!(test.hub.subscribe(&subscriber, &opening), broadcast);
    let (_, mut stream) = opened.expect("a stream");
    assert_eq!((answer, read_all(&mut stream)), (unknown, 0), "its mailbox may have brought the message along");
}

#[tokio::test]
async fn a_broadcast_whose_outcome_is_unknown_names_the_devices_of_all_nodes_that_have_it() {
    let fault = |error, delivered| Err(BroadcastFault { error, delivered });
    for (elsewhere, expected, got) in [
        (Ok(ids(["a"])), Ok(ids(["a", "phone"])), 1),
        (fault(Error::UnknownOutcome, ids(["z"])), fault(Error::UnknownOutcome, ids(["phone", "z"])), 1),
        (fault(Error::MAILBOX_FULL, ids(["z"])), Ok(ids(["phone", "z"])), 1),
        (fault(Error::UNREACHABLE, Vec::new()), fault(Error::UNREACHABLE, Vec::new()), 0),
    ] {
        let test = with(StubNodes { broadcast: elsewhere, ..StubNodes::default() });
        let (_, mut stream) = test.subscribe("phone", Start::Anew).expect("a stream");
        let answer = test.hub.broadcast(&test.caller, &user(), draft(10, NO_TTL)).await;
        assert_eq!((answer, read_all(&mut stream)), (expected, got));
    }
}

#[tokio::test]
async fn a_list_or_a_watch_that_may_be_incomplete_is_refused() {
    let (unreachable, followed) = (Err(Error::UNREACHABLE), StubNodes::default());
    let test = with(StubNodes { devices: Err(Error::UNREACHABLE), watched: unreachable, ..followed });
    let (_, _stream) = test.subscribe("phone", Start::Anew).expect("a stream");
    assert_eq!(test.hub.devices(&test.caller, &user()).await, Err(Error::UNREACHABLE));
    let watch = test.hub.watch(&test.caller, &UserSet::one(user()), Duration::from_secs(600)).await;
    assert_eq!((watch.err(), test.hub.census().watches), (Some(Error::UNREACHABLE), 0));
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_many_users_asks_about_all_at_the_same_time_and_leaves_nothing_when_its_client_does() {
    let test = with(StubNodes { takes: Duration::from_secs(1), ..StubNodes::default() });
    let users = UserSet::new((0..64).map(|user| crate::model::UserId::new(&user.to_string()))).expect("not too many");
    let began = tokio::time::Instant::now();
    let watch = test.hub.watch(&test.caller, &users, Duration::from_secs(600)).await.expect("a watch");
    assert_eq!((began.elapsed().as_millis() / 100, test.hub.census().watches), (10, 64));
    drop(watch);
    let left = tokio::time::timeout(
        Duration::from_millis(500),
        test.hub.watch(&test.caller, &users, Duration::from_secs(600)),
    );
    assert!(left.await.is_err());
    assert_eq!(test.hub.census().watches, 0);
}

#[tokio::test]
async fn of_two_mailboxes_of_a_device_the_one_with_the_higher_term_stays() {
    let test = with(StubNodes::default());
    let (phone, fresh) = (place("phone"), || Placed::Fresh { hole: false, only_holds: true });
    assert!(test.hub.place(&phone, fresh(), 5, 3).is_ok());
    let standing = test.hub.standing(&phone).expect("it is here");
    assert_eq!((standing.term, standing.era, standing.live), (5, 3, None));
    for term in [4, 5] {
        assert!(test.hub.place(&phone, fresh(), term, 3).is_err());
        assert!(test.hub.give_up(&phone, term).is_none());
    }
    let message = test.hub.receive(draft_message());
    assert_eq!(test.hub.push_here(&phone, &message, TEN_SECONDS), Some(Ok(Outcome::Held)));
    assert!(test.hub.place(&phone, fresh(), 6, 3).is_ok());
    assert!(test.hub.standing(&phone).expect("it is here").epoch != standing.epoch, "another mailbox");
    assert!(!test.hub.confirm(&phone, 5, 9, 4) && test.hub.confirm(&phone, 6, 7, 4));
    let confirmed = test.hub.standing(&phone).expect("it is here");
    assert_eq!((confirmed.term, confirmed.era), (7, 4));
    assert_eq!(test.hub.of_user(&phone.user), [(phone.device.clone(), confirmed)]);
    let parts: Vec<_> = (0..).map_while(|part| test.hub.of_part(part)).flatten().collect();
    assert_eq!(parts, [(phone.clone(), confirmed)]);
    assert_eq!(test.hub.push_here(&phone, &message, TEN_SECONDS), Some(Ok(Outcome::Held)));
    let lost = test.hub.give_up(&phone, 8).expect("a newer one is elsewhere");
    assert!(lost.may_lose());
    assert_eq!(lost.waiting().len(), 1);
    drop((message, lost));
    assert_eq!(
        (test.hub.standing(&phone), test.hub.push_here(&phone, &test.hub.receive(draft_message()), TEN_SECONDS)),
        (None, None)
    );
    let nothing = (test.hub.census().mailboxes, test.hub.census().held_bytes, test.budget.messages());
    assert_eq!(nothing, (0, 0, 0), "it counts no more");
}

fn draft_message() -> crate::model::Message {
    crate::model::Message::clone(&Arc::clone(&super::mailbox_properties::message(draft(10, NO_TTL).data)))
}

#[tokio::test]
async fn a_hole_is_for_a_mailbox_that_is_not_the_one_that_lost_its_messages() {
    let test = with(StubNodes::default());
    let phone = place("phone");
    assert!(!test.hub.hole(&phone, 1, Vec::new()), "nobody is told here");
    let (ready, mut stream) = test.subscribe("phone", Start::Anew).expect("a stream");
    assert!(test.hub.hole(&phone, ready.cursor.epoch, Vec::new()));
    assert_eq!(test.send("phone", 10, NO_TTL).await, Ok(Outcome::Delivered), "nothing was lost");
    assert_eq!(read_all(&mut stream), 1);
    assert!(test.hub.hole(&phone, ready.cursor.epoch ^ 1, Vec::new()));
    assert_eq!(test.hub.census().streams, 0);
    let (back, _stream) = test.subscribe("phone", Start::After(ready.cursor)).expect("a stream");
    assert_eq!(back.continuity, Continuity::Broken);
}
