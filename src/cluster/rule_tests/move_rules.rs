//! The rules of moving: a mailbox on its way is not lost, goes to the right page, and does not fly.

use tokio::time::{Instant, sleep};

use super::{
    super::{
        rules::Rule,
        running_node::{address, draft, phone, read},
    },
    HELD, LIVE, ms, seconds, with_and_without,
};
use crate::{
    auth::Caller,
    error::Error,
    hub::Draft,
    model::{Continuity, Data, Outcome, Start},
};

#[test]
fn a_mailbox_is_not_lost_when_the_node_that_asked_for_it_dies() {
    let [with, without] = with_and_without(Rule::LeavesStubs, async |_, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        one.lend();
        let answer = two.send(LIVE).await;
        sleep(seconds(4)).await;
        (answer, two.visit(Start::Anew).await)
    });
    assert_eq!(with, (Err(Error::UNREACHABLE), (Continuity::New, 1)));
    assert_eq!(without, (Err(Error::NotConnected), (Continuity::New, 0)), "lost, and the device is not told");
}

#[test]
fn a_mailbox_whose_taker_died_is_given_to_the_next_one() {
    let [with, without] = with_and_without(Rule::RepeatsParcels, async |_, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        one.lend();
        two.visit(Start::Anew).await
    });
    assert_eq!(with, (Continuity::New, 1));
    assert_eq!(without, (Continuity::Broken, 0), "taken by force");
}

#[test]
fn a_mailbox_whose_taker_died_is_where_it_was_when_its_device_comes_back_there() {
    let [with, without] = with_and_without(Rule::ReopensItsStub, async |_, [one, _two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        one.lend();
        one.visit(Start::Anew).await
    });
    assert_eq!(with, (Continuity::New, 1));
    assert_eq!(without, (Continuity::Broken, 0), "its stub was thrown away");
}

#[test]
fn a_mailbox_that_nobody_took_in_time_is_where_it_was() {
    let [with, without] = with_and_without(Rule::RevivesStubs, async |_, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        one.lend();
        sleep(seconds(4)).await;
        two.visit(Start::Anew).await
    });
    assert_eq!(with, (Continuity::New, 1));
    assert_eq!(without, (Continuity::Broken, 0), "its stub was mourned");
}

#[test]
fn a_large_mailbox_does_not_fly_between_nodes() {
    let [with, without] = with_and_without(Rule::PinsLargeMailboxes, async |_, [one, two]| {
        let (ready, mut stream) = one.subscribe(Start::Anew).await;
        for _ in 0..4 {
            let large = Draft { data: Data::new("x".repeat(100_000)).expect("not empty"), ..draft(LIVE) };
            assert_eq!(one.hub.send(&Caller::anonymous(), &address(), large).await, Ok(Outcome::Delivered));
            assert_eq!(read(&mut stream).await, (1, false));
        }
        drop(stream);
        let (began, mut moves) = (Instant::now(), 0);
        while began.elapsed() < seconds(4) {
            let node = [&two, &one][moves % 2];
            assert_eq!(node.visit(Start::After(ready.cursor)).await, (Continuity::Resumed, 4));
            moves += 1;
            sleep(ms(10)).await;
        }
        moves
    });
    assert!((8..=11).contains(&with), "400,000 bytes stay for 0.38 s: {with} moves in 4 s");
    assert!(without > 100, "{without} moves");
}

#[test]
fn a_node_that_stops_knows_when_all_its_mailboxes_are_elsewhere() {
    let [with, without] = with_and_without(Rule::ForgetsMovedStubs, async |_, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        let began = Instant::now();
        one.cluster.leave(seconds(9)).await;
        (began.elapsed() < seconds(1), two.visit(Start::Anew).await)
    });
    assert_eq!(with, (true, (Continuity::New, 1)));
    assert_eq!(without, (false, (Continuity::New, 1)), "it hands them over again and again, until its time is over");
}

#[test]
fn an_older_page_that_reconnects_to_another_node_does_not_end_the_newer_one() {
    let [with, without] = with_and_without(Rule::NewerPagesStay, async |_, [one, two]| {
        let (older, _) = one.subscribe(Start::Anew).await;
        let (_, mut newer) = one.subscribe(Start::Anew).await;
        (two.try_visit(Start::After(older.cursor)).await, read(&mut newer).await)
    });
    assert_eq!(with, (Err(Error::Superseded), (0, false)));
    assert_eq!(without, (Ok((Continuity::Resumed, 0)), (0, true)), "the two pages fight for the device");
}

#[test]
fn a_device_whose_mailbox_does_not_come_gets_a_new_one_in_the_end() {
    let [with, without] = with_and_without(Rule::ForcesAtLast, async |_, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        let _turn = one.node.turns.take(&phone()).await;
        two.try_visit(Start::Anew).await
    });
    assert_eq!(with, Ok((Continuity::Broken, 0)));
    assert_eq!(without, Err(Error::UNREACHABLE), "at each attempt, for as long as the other flow takes");
}
