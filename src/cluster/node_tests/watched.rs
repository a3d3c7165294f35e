//! What watchers are told while links are lost and come back.

use tokio_stream::StreamExt as _;

use super::*;
use crate::hub::WatchItem;

#[tokio::test(start_paused = true)]
async fn a_node_that_is_back_first_does_not_take_the_devices_of_others_for_offline() {
    for outage in [0, 8] {
        let server = MemoryServer::new(1);
        let [one, two] = Running::two(&server).await;
        let (_, _stream) = one.subscribe(Start::Anew).await;
        let users = UserSet::one(address().user);
        let mut watch = two.hub.watch(&Caller::anonymous(), &users, Duration::from_secs(600)).await.expect("a watch");
        assert!(matches!(watch.next().await, Some(WatchItem::Devices(_, devices)) if devices.len() == 1));
        server.cut(one.node.id);
        if outage == 0 {
            server.restart(None);
        } else {
            server.go_away();
            sleep(Duration::from_secs(outage)).await;
            server.come_back();
        }
        sleep(Duration::from_millis(1_500)).await;
        assert!(two.node.link.up().is_some(), "it is back");
        server.mend(one.node.id);
        let change = timeout(Duration::from_secs(10), watch.next()).await;
        assert!(change.is_err(), "after {outage} s without a server: {change:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_devices_of_a_node_that_died_while_nobody_was_linked_go_offline() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let (_, _stream) = one.subscribe(Start::Anew).await;
    let users = UserSet::one(address().user);
    let _watch = two.hub.watch(&Caller::anonymous(), &users, Duration::from_secs(600)).await.expect("a watch");
    server.cut(one.node.id);
    server.restart(None);
    sleep(Duration::from_secs(4)).await;
    assert!(!two.sees_phone());
}
