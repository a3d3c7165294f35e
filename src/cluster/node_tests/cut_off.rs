//! Tests of a node that is cut off from the others for a while.

use super::{super::arrival::Purpose, *};
use crate::{auth::TenantAddress, error::Limit};

#[tokio::test(start_paused = true)]
async fn a_message_of_a_live_stream_that_was_given_up_waits_for_the_resume_window() {
    for (away, replayed) in [(250, 1), (310, 0)] {
        let server = MemoryServer::new(1);
        let [one, two] = Running::two(&server).await;
        let (_, _stream) = one.subscribe(Start::Anew).await;
        server.cut(one.node.id);
        sleep(Duration::from_secs(8)).await;
        assert_eq!(one.send(Duration::ZERO).await, Ok(Outcome::Delivered), "its stream did not read it");
        drop(two.subscribe(Start::Anew).await);
        server.mend(one.node.id);
        sleep(Duration::from_secs(5)).await;
        assert!(one.hub.standing(&phone()).is_none(), "it was given up");
        sleep(Duration::from_secs(away - 5)).await;
        assert_eq!(two.subscribe(Start::Anew).await.0.replayed, replayed, "after {away} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_its_link_counts_the_devices_of_a_user_that_it_has() {
    let server = MemoryServer::new(1);
    let [one, _two] = Running::two(&server).await;
    server.cut(one.node.id);
    sleep(Duration::from_secs(2)).await;
    let (phone, laptop) = (phone(), TenantAddress::of(&Address::new("bob", "laptop").expect("ids")));
    let arrive = async |address, limit| one.node.arrive(address, Purpose::Stream(Start::Anew), limit).await.err();
    assert_eq!(arrive(&phone, 1).await, None);
    assert_eq!(arrive(&laptop, 1).await, Some(Error::too_many(Limit::UserDevices)));
    assert_eq!(arrive(&laptop, 2).await, None);
}
