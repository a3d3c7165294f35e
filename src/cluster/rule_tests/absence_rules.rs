//! The rules of "not connected": a device that is connected must not be 404.

use tokio::time::sleep;

use super::{
    super::{
        directory::Claim,
        rules::Rule,
        running_node::{phone, read},
    },
    LIVE, ms, seconds, with_and_without,
};
use crate::{
    error::Error,
    hub::Inbound as _,
    model::{Outcome, Start},
};

#[test]
fn a_node_that_has_not_heard_yet_that_its_device_went_on_asks_before_it_says_not_connected() {
    let [with, without] = with_and_without(Rule::AsksBeforeAbsence, async |server, [one, two]| {
        one.visit(Start::Anew).await;
        server.stall(one.node.id, ms(800));
        let (_, mut stream) = two.subscribe(Start::Anew).await;
        (one.send(LIVE).await, read(&mut stream).await)
    });
    assert_eq!(with, (Ok(Outcome::Delivered), (1, false)));
    assert_eq!(without, (Err(Error::NotConnected), (0, false)), "it is live on two");
}

#[test]
fn a_node_that_found_an_empty_directory_waits_until_the_others_have_found_it_too() {
    let [with, without] = with_and_without(Rule::DoubtsYoungLinks, async |server, [one, two]| {
        let (_, mut stream) = one.subscribe(Start::Anew).await;
        server.cut(one.node.id);
        server.restart(None);
        // Two is linked again after 0.2 s.
        sleep(ms(300)).await;
        let early = two.send(LIVE).await;
        server.mend(one.node.id);
        sleep(seconds(3)).await;
        (early, two.send(LIVE).await, read(&mut stream).await)
    });
    let later = Ok(Outcome::Delivered);
    assert_eq!(with, (Err(Error::UNREACHABLE), later, (1, false)));
    assert_eq!(without, (Err(Error::NotConnected), later, (1, false)), "it was live on one all the time");
}

#[test]
fn a_device_that_came_while_the_link_was_down_is_not_404_when_it_is_back() {
    let [with, without] = with_and_without(Rule::OwesWhatItMadeAlone, async |server, [one, two]| {
        server.set_latency(ms(20));
        server.cut(two.node.id);
        let (_, mut stream) = two.subscribe(Start::Anew).await;
        server.mend(two.node.id);
        two.until_linked().await;
        // What it tells takes a moment.
        server.stall(two.node.id, ms(500));
        (one.send(LIVE).await, read(&mut stream).await)
    });
    assert_eq!(with, (Ok(Outcome::Delivered), (1, false)));
    assert_eq!(without, (Err(Error::NotConnected), (0, false)), "it is live on two, whose link is up");
}

#[test]
fn an_entry_behind_which_nothing_stands_goes_when_somebody_asks() {
    let [with, without] = with_and_without(Rule::DisownsEmptyEntries, async |server, [one, two]| {
        assert!(matches!(one.directory().claim(&phone(), 0).await, Ok(Claim::New { .. })));
        (two.send(LIVE).await, server.entry(&phone()).is_some())
    });
    assert_eq!(with, (Err(Error::NotConnected), false));
    assert_eq!(without, (Err(Error::UNREACHABLE), true), "again and again, until the entry expires");
}

#[test]
fn an_entry_that_was_lost_is_there_again_after_some_minutes() {
    let [with, without] = with_and_without(Rule::TellsWithoutDoubt, async |_, [one, two]| {
        let (ready, mut stream) = one.subscribe(Start::Anew).await;
        let term = one.hub.standing(&ready.address).expect("it has the phone").term;
        // As it expires after an hour, but this test is quicker.
        one.directory().release(&ready.address, term).await.expect("an answer");
        sleep(seconds(12 * 60)).await;
        (two.send(LIVE).await, read(&mut stream).await)
    });
    assert_eq!(with, (Ok(Outcome::Delivered), (1, false)));
    assert_eq!(without, (Err(Error::NotConnected), (0, false)), "it is live on one");
}

#[test]
fn a_sender_whose_message_cannot_be_answered_in_time_learns_that_it_was_not_sent() {
    let [with, without] = with_and_without(Rule::KeepsTimeForAnswers, async |server, [one, two]| {
        assert!(matches!(one.directory().claim(&phone(), 0).await, Ok(Claim::New { .. })));
        // The device is always on its way, so two asks until its time is over.
        let _turn = one.node.turns.take(&phone()).await;
        server.set_latency(ms(120));
        sleep(seconds(20)).await;
        two.send(LIVE).await
    });
    assert_eq!(with, Err(Error::UNREACHABLE));
    assert_eq!(without, Err(Error::UnknownOutcome));
}

#[test]
fn nodes_whose_clocks_differ_understand_when_a_request_was_sent() {
    let [with, without] = with_and_without(Rule::UsesDirectoryTime, async |_, [one, two]| {
        let (_, _stream) = one.subscribe(Start::Anew).await;
        one.set_ahead(seconds(2));
        sleep(seconds(15)).await;
        two.send(LIVE).await
    });
    assert_eq!(with, Ok(Outcome::Delivered));
    assert_eq!(without, Err(Error::UnknownOutcome), "one takes each request for a late one");
}
