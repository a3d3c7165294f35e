//! The rules of doubt: of two mailboxes of a device only the newer one is used.

use tokio::time::sleep;

use super::{
    super::{
        Move,
        directory::Claim,
        rules::Rule,
        running_node::{address, phone, read},
    },
    HELD, LIVE, ms, seconds, with_and_without,
};
use crate::{
    auth::Caller,
    error::Error,
    hub::{Placed, UserSet},
    model::{Continuity, Outcome, Start},
};

#[test]
fn a_node_that_thaws_asks_whether_its_mailboxes_are_still_its_own() {
    let [with, without] = with_and_without(Rule::SeesSkippedClocks, async |_, [one, two]| {
        let (_, _stream) = one.subscribe(Start::Anew).await;
        one.freeze();
        sleep(seconds(3)).await;
        let (_, mut there) = two.subscribe(Start::Anew).await;
        one.thaw();
        // Before it has read that two has the device.
        (one.send(LIVE).await, read(&mut there).await)
    });
    assert_eq!(with, (Ok(Outcome::Delivered), (1, false)));
    assert_eq!(without, (Ok(Outcome::Delivered), (0, true)), "the dead stream took it, so the device is told `broken`");
}

#[test]
fn a_node_whose_link_is_back_asks_whether_its_mailboxes_are_still_its_own() {
    let [with, without] = with_and_without(Rule::TellsSuspects, async |server, [one, two]| {
        let (_, _stream) = one.subscribe(Start::Anew).await;
        server.set_latency(ms(20));
        server.cut(one.node.id);
        let (_, mut there) = two.subscribe(Start::Anew).await;
        server.mend(one.node.id);
        one.until_linked().await;
        (one.send(LIVE).await, read(&mut there).await)
    });
    assert_eq!(with, (Ok(Outcome::Delivered), (1, false)));
    assert_eq!(without, (Ok(Outcome::Delivered), (0, true)), "the dead stream took it, so the device is told `broken`");
}

#[test]
fn a_device_that_goes_on_while_its_mailbox_arrives_has_one_stream() {
    let [with, without] = with_and_without(Rule::ArrivalsYield, async |_, [one, two]| {
        let (turn, era) = (two.node.turns.take(&phone()).await, two.node.link.era());
        let Ok(Claim::New { term, .. }) = two.directory().claim(&phone(), 0).await else { panic!("nobody has it") };
        // The task that claimed does not run for a moment, in which two also hears that one has the device.
        let (_, mut here) = one.subscribe(Start::Anew).await;
        sleep(ms(50)).await;
        two.node.put(&turn, &phone(), Placed::Fresh { hole: false, only_holds: false }, (term, era), Move::New);
        drop(turn);
        let (_, mut there) = two.subscribe(Start::Anew).await;
        (read(&mut here).await, read(&mut there).await)
    });
    assert_eq!(with, ((0, true), (0, false)));
    assert_eq!(without, ((0, false), (0, false)), "two streams");
}

#[test]
fn a_parcel_of_a_term_is_not_opened_once_a_new_mailbox_has_its_entry() {
    let [with, without] = with_and_without(Rule::RevivesItsEntry, async |_, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        let (entry, parcel) = one.lend();
        // The stub yielded to a server whose writes were lost in a failover.
        one.node.stubs.remove(&phone(), None);
        let (ready, mut stream) = one.subscribe(Start::Anew).await;
        assert_eq!(ready.continuity, Continuity::Broken);
        let opened = two.open(entry, &parcel).await;
        (opened, two.send(LIVE).await, read(&mut stream).await)
    });
    assert_eq!(with, (false, Ok(Outcome::Delivered), (1, false)));
    assert_eq!(without, (true, Err(Error::NotConnected), (0, false)), "it is live on one, and parked on two");
}

#[test]
fn a_stream_that_opens_while_the_link_is_down_stays_also_when_the_clock_is_behind_its_last_term() {
    let [with, without] = with_and_without(Rule::OwnTermsRise, async |server, [one, two]| {
        server.set_ahead(seconds(60));
        sleep(seconds(15)).await;
        two.visit(Start::Anew).await;
        assert_eq!(one.send(LIVE).await, Err(Error::NotConnected), "one knows the term now");
        server.set_ahead(ms(0));
        sleep(seconds(15)).await;
        server.cut(one.node.id);
        let (_, mut here) = one.subscribe(Start::Anew).await;
        server.mend(one.node.id);
        read(&mut here).await;
        read(&mut here).await
    });
    assert_eq!(with, (0, false));
    assert_eq!(without, (0, true), "the mailbox that it left has the higher term");
}

#[test]
fn a_parcel_of_an_older_directory_is_not_a_mailbox_again() {
    let [with, without] = with_and_without(Rule::MournsOldGenerations, async |server, [one, two]| {
        let (ready, stream) = one.subscribe(Start::Anew).await;
        drop(stream);
        let older = server.snapshot();
        let (entry, parcel) = one.lend();
        server.cut(one.node.id);
        assert!(two.open(entry, &parcel).await);
        assert_eq!(two.send(HELD).await, Ok(Outcome::Held));
        // A failover: the entry of two is lost, and one finds the promoted server first.
        server.cut(two.node.id);
        server.restart(Some(&older));
        server.mend(one.node.id);
        sleep(seconds(8)).await;
        server.mend(two.node.id);
        sleep(seconds(4)).await;
        one.visit(Start::After(ready.cursor)).await
    });
    assert_eq!(with, (Continuity::Resumed, 1));
    assert_eq!(without, (Continuity::Resumed, 0), "lost, and the device is not told");
}

#[test]
fn a_node_whose_link_is_back_lists_the_users_that_are_watched_there() {
    let [with, without] = with_and_without(Rule::ListsAfterALoss, async |server, [one, two]| {
        let users = UserSet::one(address().user);
        let _watch = one.hub.watch(&Caller::anonymous(), &users, seconds(15)).await.expect("a watch");
        server.cut(one.node.id);
        sleep(seconds(1)).await;
        let (_, _stream) = two.subscribe(Start::Anew).await;
        server.mend(one.node.id);
        sleep(seconds(5)).await;
        one.sees_phone()
    });
    assert!(with);
    assert!(!without, "the device came while the link was down, and its presence was published once");
}
