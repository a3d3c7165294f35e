//! What a node knows that is no longer so.

use super::*;
use crate::cluster::{
    directory::Fault,
    peer_messages::{Adopted, Plain, WireParcel},
};

#[tokio::test(start_paused = true)]
async fn a_node_that_was_silent_is_not_asked_again_for_a_device_that_is_elsewhere() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let three = Running::linked(&server, NodeId(3)).await;
    let (_, _before) = one.subscribe(Start::Anew).await;
    assert_eq!(two.send(Duration::ZERO).await, Ok(Outcome::Delivered));
    one.freeze();
    let (_, _stream) = three.subscribe(Start::Anew).await;
    assert_eq!(two.send(Duration::ZERO).await, Err(Error::UnknownOutcome));
    assert_eq!(two.send(Duration::ZERO).await, Ok(Outcome::Delivered));
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_was_adopted_and_has_left_is_not_adopted_again() {
    let [one, two] = Running::two(&MemoryServer::new(1)).await;
    assert_eq!(one.send(Duration::from_secs(60)).await, Ok(Outcome::Held));
    let (entry, parcel) = one.lend();
    let mailbox = Adopted { address: (&phone()).into(), term: entry.term, parcel: WireParcel::from(&*parcel) };
    let adopt = async || two.node.adopt(entry.node, vec![mailbox.clone()]).await;
    assert_eq!(adopt().await, Plain::Ok);
    assert!(two.hub.standing(&phone()).is_some());
    let (entry, parcel) = two.lend();
    assert_eq!(adopt().await, Plain::Ok);
    assert!(two.hub.standing(&phone()).is_none(), "a copy of what has left");
    assert!(one.open(entry, &parcel).await, "the right one goes on");
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_waits_for_its_adoption_grows_older() {
    let [one, two] = Running::two(&MemoryServer::new(1)).await;
    assert_eq!(one.send(Duration::from_secs(2)).await, Ok(Outcome::Held));
    two.freeze();
    let thaw = async {
        sleep(Duration::from_millis(2_500)).await;
        two.thaw();
    };
    tokio::join!(one.cluster.leave(Duration::from_secs(10)), thaw);
    assert!(two.hub.standing(&phone()).is_some(), "it was adopted");
    assert_eq!(two.subscribe(Start::Anew).await.0.replayed, 0, "its time was over");
}

#[tokio::test(start_paused = true)]
async fn a_parcel_that_was_given_before_the_directory_was_made_anew_is_not_opened() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    assert_eq!(one.send(Duration::from_secs(60)).await, Ok(Outcome::Held));
    let (entry, _parcel) = one.lend();
    let generation = two.node.link.generation();
    one.freeze();
    server.restart(Some(&server.snapshot()));
    sleep(Duration::from_secs(1)).await;
    assert!(two.node.link.up().is_some(), "it is back");
    assert_eq!(two.node.take_over_in(generation, &phone(), entry).await, Err(Fault::Reborn));
    assert_eq!(server.entry(&phone()), Some(entry));
}
