//! What watchers see of a mailbox that comes to their own node.

use std::time::Duration;

use tokio::time::timeout;
use tokio_stream::StreamExt as _;

use super::*;
use crate::{
    auth::{Caller, Subscriber},
    budget::Budget,
    cluster::memory_engine::MemoryServer,
    hub::{Change, Hub, Inbound as _, Limits, Local, Opening, Placed, Taken, UserSet, WatchItem},
    model::Start,
};

/// A parcel of a mailbox without a stream.
async fn parcel() -> Placed {
    let limits = Limits::only_times(Duration::from_secs(300), Duration::from_secs(300));
    let hub = Hub::new(limits, Budget::new(64 << 20), Local, ());
    let opening = Opening { start: Start::Anew, heartbeat: Duration::from_secs(15) };
    drop(hub.subscribe(&Subscriber::proven(address()), &opening).await.expect("a stream"));
    match hub.take(&phone(), None, 0) {
        Taken::Parcel(parcel) => Placed::Parcel(parcel),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_goes_offline_for_watchers_of_the_node_to_which_its_mailbox_came_without_a_stream() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    let (_, _stream) = two.subscribe(Start::Anew).await;
    let users = UserSet::one(address().user);
    let mut watch = one.hub.watch(&Caller::anonymous(), &users, Duration::from_secs(600)).await.expect("a watch");
    let first = watch.next().await;
    assert!(matches!(&first, Some(WatchItem::Devices(_, devices)) if devices.len() == 1), "{first:?}");
    // Of the two mailboxes the one with the higher term counts.
    one.hub.place(&phone(), parcel().await, 1 << 60, one.node.link.era()).expect("no mailbox of a higher term");
    let next = timeout(Duration::from_secs(5), watch.next()).await.expect("a change");
    let Some(WatchItem::Changes(_, changes)) = next else { panic!("{next:?}") };
    assert_eq!(changes.iter().collect::<Vec<_>>(), [&Change::Offline(phone().device)]);
}
