//! Tests of single flows of the node code: real hubs on two nodes over the engine in memory, on virtual time.

mod cut_off;
mod first_links;
mod full_mailboxes;
mod moved_presence;
mod outages;
mod outdated;
mod watched;

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    directory::{Claim, NodeId},
    memory_engine::MemoryServer,
    running_node::{Running, address, draft, phone},
};
use crate::{
    auth::Caller,
    error::Error,
    hub::{BroadcastFault, Inbound as _, Placed, Sending, Taken, UserSet},
    model::{Address, Continuity, Data, Outcome, Start},
};

#[tokio::test(start_paused = true)]
async fn a_node_that_has_left_does_not_come_back_and_owes_nothing() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    one.cluster.begin_leaving().await;
    one.cluster.leave(Duration::from_secs(1)).await;
    sleep(Duration::from_millis(1_500)).await;
    assert!(server.is_sure());
    let members = two.cluster.status().members;
    assert_eq!(members.iter().map(|member| member.node).collect::<Vec<_>>(), [NodeId(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_back_while_its_mailbox_is_released_does_not_wait() {
    let [one, _two] = Running::two(&MemoryServer::new(1)).await;
    let turn = one.node.turns.take(&phone()).await;
    let subscribe = timeout(Duration::from_secs(1), one.subscribe(Start::Anew));
    let release = async {
        sleep(Duration::from_millis(1)).await;
        one.node.release(&phone(), 7);
        sleep(Duration::from_millis(1)).await;
        drop(turn);
    };
    let (opened, ()) = tokio::join!(subscribe, release);
    assert_eq!(opened.expect("at once").0.continuity, Continuity::New);
}

#[tokio::test(start_paused = true)]
async fn watchers_elsewhere_learn_what_changed_on_a_node_while_it_was_cut_off() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let users = UserSet::one(address().user);
    let _watch = two.hub.watch(&Caller::anonymous(), &users, Duration::from_secs(15)).await.expect("a watch");
    let (_, stream) = one.subscribe(Start::Anew).await;
    sleep(Duration::from_millis(100)).await;
    assert!(two.sees_phone());
    server.cut(one.node.id);
    drop(stream);
    sleep(Duration::from_secs(2)).await;
    assert!(two.sees_phone(), "nobody could say so");
    server.mend(one.node.id);
    sleep(Duration::from_secs(2)).await;
    assert!(!two.sees_phone());
}

#[tokio::test(start_paused = true)]
async fn the_devices_of_a_node_that_was_thought_dead_are_online_again_when_it_is_back() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let users = UserSet::one(address().user);
    let _watch = two.hub.watch(&Caller::anonymous(), &users, Duration::from_secs(15)).await.expect("a watch");
    let (_, _stream) = one.subscribe(Start::Anew).await;
    for away in [10, 90] {
        server.cut(one.node.id);
        sleep(Duration::from_secs(away)).await;
        assert!(!two.sees_phone(), "it is dead");
        server.mend(one.node.id);
        sleep(Duration::from_secs(5)).await;
        assert!(two.sees_phone(), "away for {away} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_with_a_device_on_a_silent_node_does_not_keep_the_lists_of_others_waiting() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let three = Running::start(&server, NodeId(3));
    sleep(Duration::from_secs(3)).await;
    let alice = Address::new("alice", "phone").expect("ids");
    let users = UserSet::new([alice.user.clone(), address().user].map(Ok)).expect("not too many");
    let _watch = two.hub.watch(&Caller::anonymous(), &users, Duration::from_secs(15)).await.expect("a watch");
    let (_, _of_alice) = three.subscribe_as(alice, Start::Anew).await;
    let (_, of_bob) = one.subscribe(Start::Anew).await;
    sleep(Duration::from_millis(100)).await;
    assert!(two.sees_phone());
    server.cut(two.node.id);
    server.cut(three.node.id);
    drop(of_bob);
    sleep(Duration::from_millis(200)).await;
    server.mend(two.node.id);
    sleep(Duration::from_secs(4)).await;
    assert!(!two.sees_phone());
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_is_adopted_does_not_hide_what_another_one_of_its_device_held() {
    let [one, two] = Running::two(&MemoryServer::new(1)).await;
    let (ready, stream) = one.subscribe(Start::Anew).await;
    drop(stream);
    // As if made while the link was down.
    two.hub.place(&phone(), Placed::Fresh { hole: false, only_holds: true }, 5, 0).expect("no mailbox is here");
    let message = two.hub.receive(crate::model::Message {
        from: None,
        event: None,
        data: Data::new("ring").expect("not empty"),
        sent_at: std::time::SystemTime::UNIX_EPOCH,
    });
    let held = two.hub.push_here(&phone(), &message, Sending { ttl_ms: 60_000, key: None });
    assert_eq!(held, Some(Ok(Outcome::Held)));
    one.cluster.leave(Duration::from_secs(5)).await;
    sleep(Duration::from_secs(2)).await;
    let (back, _stream) = two.subscribe(Start::After(ready.cursor)).await;
    assert_eq!((back.continuity, back.replayed), (Continuity::Broken, 1));
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_says_why_a_device_of_another_node_did_not_take_it() {
    let [one, two] = Running::two(&MemoryServer::new(1)).await;
    let (_, _stream) = one.subscribe(Start::Anew).await;
    while one.send(Duration::ZERO).await.is_ok() {}
    let user = address().user;
    let refused = two.hub.broadcast(&Caller::anonymous(), &user, draft(Duration::ZERO)).await;
    assert_eq!(refused, Err(BroadcastFault { error: Error::MAILBOX_FULL, delivered: Vec::new() }));
}

#[tokio::test(start_paused = true)]
async fn a_parcel_that_nobody_opened_grows_older_while_the_link_is_down() {
    let server = MemoryServer::new(1);
    let [one, _two] = Running::two(&server).await;
    assert_eq!(one.send(Duration::from_secs(30)).await, Ok(Outcome::Held));
    one.lend();
    server.cut(one.node.id);
    sleep(Duration::from_secs(40)).await;
    server.mend(one.node.id);
    sleep(Duration::from_secs(4)).await;
    let (back, _stream) = one.subscribe(Start::Anew).await;
    assert_eq!((back.continuity, back.replayed), (Continuity::Broken, 0), "its time was over");
}

#[tokio::test(start_paused = true)]
async fn a_hole_finds_a_place_when_only_a_dead_node_or_an_entry_has_the_device() {
    for is_dead in [true, false] {
        let server = MemoryServer::new(1);
        let [one, two] = Running::two(&server).await;
        assert_eq!(two.send(Duration::from_secs(30)).await, Ok(Outcome::Held));
        let term = two.hub.standing(&phone()).expect("it holds").term;
        let Taken::Parcel(parcel) = two.hub.take(&phone(), None, term) else { panic!("a parcel") };
        if is_dead {
            server.cut(two.node.id);
            sleep(Duration::from_secs(8)).await;
        } else {
            let [one, two] = [&one, &two].map(Running::directory);
            two.release(&phone(), term).await.expect("an answer");
            assert!(matches!(one.claim(&phone(), 0).await, Ok(Claim::New { .. })));
        }
        one.node.mourn(&phone(), &parcel);
        sleep(Duration::from_secs(2)).await;
        assert!(one.hub.standing(&phone()).is_some(), "dead: {is_dead}");
        assert_eq!(one.subscribe(Start::Anew).await.0.continuity, Continuity::Broken);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_waits_for_its_link_to_hand_over_what_it_has() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    assert_eq!(one.send(Duration::from_secs(60)).await, Ok(Outcome::Held));
    server.cut(one.node.id);
    sleep(Duration::from_millis(10)).await;
    let mend = async {
        sleep(Duration::from_secs(1)).await;
        server.mend(one.node.id);
    };
    tokio::join!(one.cluster.leave(Duration::from_secs(5)), mend);
    assert_eq!(two.subscribe(Start::Anew).await.0.replayed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_waits_until_its_holes_are_taken() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let (_, _stream) = two.subscribe(Start::Anew).await;
    server.cut(one.node.id);
    sleep(Duration::from_secs(1)).await;
    // Made without the directory, while the device is elsewhere.
    assert_eq!(one.subscribe(Start::Anew).await.0.continuity, Continuity::Broken);
    assert_eq!(one.send(Duration::from_secs(60)).await, Ok(Outcome::Held));
    server.mend(one.node.id);
    one.cluster.leave(Duration::from_secs(5)).await;
    assert_eq!(two.subscribe(Start::Anew).await.0.replayed, 1);
}
