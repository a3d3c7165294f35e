//! What a node does for itself while its link is down, and when it is back.

use super::*;

#[tokio::test(start_paused = true)]
async fn mailboxes_are_told_at_once_when_the_link_is_back_also_during_a_sweep() {
    for seconds in (540..680).step_by(20) {
        let server = MemoryServer::new(1);
        let [one, _two] = Running::two(&server).await;
        let (_, _stream) = one.subscribe(Start::Anew).await;
        sleep(Duration::from_secs(seconds)).await;
        server.cut(one.node.id);
        server.mend(one.node.id);
        sleep(Duration::from_secs(1)).await;
        let standing = one.hub.standing(&phone()).expect("it has the phone");
        assert!(one.node.link.up().is_some() && standing.era == one.node.link.era(), "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_whose_time_is_over_leaves_nothing_while_the_link_is_down() {
    let server = MemoryServer::new(1);
    let [one, two] = Running::two(&server).await;
    one.visit(Start::Anew).await;
    server.cut(one.node.id);
    sleep(Duration::from_secs(310)).await;
    assert!(one.hub.standing(&phone()).is_none(), "its time is over");
    assert!(!one.node.stubs.has(&phone()));
    server.mend(one.node.id);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(two.send(Duration::ZERO).await, Err(Error::NotConnected));
    assert_eq!(two.send(Duration::from_secs(5)).await, Ok(Outcome::Held));
}
