//! The rules of holes: what may be lost is told, and what need not be lost arrives, once.

use tokio::time::sleep;

use super::{
    super::{rules::Rule, running_node::read},
    HELD, LIVE, ms, seconds, with_and_without,
};
use crate::model::{Continuity, Outcome, Start};

#[test]
fn a_mailbox_that_is_asked_for_too_late_stays_so_that_what_waits_in_it_can_be_sent_on() {
    let [with, without] = with_and_without(Rule::DropsLateRequests, async |server, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        server.stall(one.node.id, ms(700));
        let (ready, mut stream) = two.subscribe(Start::Anew).await;
        assert_eq!((ready.continuity, read(&mut stream).await), (Continuity::Broken, (0, true)));
        two.visit(Start::After(ready.cursor)).await
    });
    assert_eq!(with, (Continuity::Broken, 1));
    assert_eq!(without, (Continuity::Broken, 0), "it left in an answer that nobody waited for");
}

#[test]
fn a_device_whose_mailbox_was_taken_from_a_silent_node_is_told_that_messages_may_be_lost() {
    let [with, without] = with_and_without(Rule::MarksGaps, async |server, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        server.cut(one.node.id);
        two.visit(Start::Anew).await
    });
    assert_eq!(with, (Continuity::Broken, 0));
    assert_eq!(without, (Continuity::New, 0), "lost, and the device is not told");
}

#[test]
fn what_waits_in_a_mailbox_that_is_given_up_is_sent_on() {
    let [with, without] = with_and_without(Rule::SendsWaitingOn, async |server, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        server.cut(one.node.id);
        let (ready, mut stream) = two.subscribe(Start::Anew).await;
        server.mend(one.node.id);
        assert_eq!(read(&mut stream).await, (0, true));
        two.visit(Start::After(ready.cursor)).await
    });
    assert_eq!(with, (Continuity::Broken, 1));
    assert_eq!(without, (Continuity::Broken, 0));
}

#[test]
fn messages_whose_hole_was_not_answered_do_not_come_twice() {
    let [with, without] = with_and_without(Rule::SendsMessagesOnce, async |server, [one, two]| {
        assert_eq!(one.send(HELD).await, Ok(Outcome::Held));
        server.cut(one.node.id);
        let (ready, stream) = two.subscribe(Start::Anew).await;
        server.set_latency(ms(20));
        server.mend(one.node.id);
        while two.holes() == 0 {
            sleep(ms(1)).await;
        }
        // The answer comes when one no longer waits for it.
        server.stall(one.node.id, ms(800));
        sleep(seconds(3)).await;
        drop(stream);
        two.visit(Start::After(ready.cursor)).await
    });
    assert_eq!(with, (Continuity::Broken, 1));
    assert_eq!(without, (Continuity::Broken, 2));
}

#[test]
fn a_parcel_that_another_node_has_opened_leaves_no_hole_there() {
    let [with, without] = with_and_without(Rule::HolesKnowTheirEpoch, async |server, [one, two]| {
        let (ready, mut stream) = one.subscribe(Start::Anew).await;
        assert_eq!(one.send(LIVE).await, Ok(Outcome::Delivered));
        assert_eq!(read(&mut stream).await, (1, false));
        drop(stream);
        let (entry, parcel) = one.lend();
        // One does not hear that two opens it.
        server.cut(one.node.id);
        assert!(two.open(entry, &parcel).await);
        let (back, mut stream) = two.subscribe(Start::After(ready.cursor)).await;
        server.mend(one.node.id);
        sleep(seconds(8)).await;
        (back.continuity, read(&mut stream).await)
    });
    assert_eq!(with, (Continuity::Resumed, (1, false)));
    assert_eq!(without, (Continuity::Resumed, (0, true)), "it has everything, and is told `broken`");
}
