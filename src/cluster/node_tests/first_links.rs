//! The first link of a node: what it believes of a directory that it has just met.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_when_the_directory_was_emptied_does_not_take_a_device_of_another_one_for_absent() {
    let server = MemoryServer::new(1);
    let [one, _two] = Running::two(&server).await;
    let (_, _stream) = one.subscribe(Start::Anew).await;
    server.flush();
    let three = Running::linked(&server, NodeId(3)).await;
    assert_eq!(server.entry(&phone()), None, "nobody has told it again");
    assert_ne!(three.send(Duration::ZERO).await, Err(Error::NotConnected));
    assert_ne!(three.hub.devices(&Caller::anonymous(), &address().user).await, Ok(Vec::new()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(three.send(Duration::ZERO).await, Ok(Outcome::Delivered));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_directory_was_emptied_does_not_take_a_device_for_absent_when_another_one_joined_first() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let (_, _stream) = one.subscribe(Start::Anew).await;
    server.flush();
    let _three = Running::linked(&server, NodeId(3)).await;
    assert!(two.node.link.up().is_some(), "it has not noticed");
    assert_eq!(server.entry(&phone()), None, "nobody has told it again");
    assert_ne!(two.send(Duration::ZERO).await, Err(Error::NotConnected));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(two.send(Duration::ZERO).await, Ok(Outcome::Delivered));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_others_at_work_knows_at_once_that_a_device_is_absent() {
    let server = MemoryServer::new(1);
    let [_one, _two] = Running::two(&server).await;
    let three = Running::linked(&server, NodeId(3)).await;
    let answer = timeout(Duration::from_millis(50), three.send(Duration::ZERO)).await;
    assert_eq!(answer, Ok(Err(Error::NotConnected)));
}
