//! What each rule of the node code is for: the same steps with the rule and without it.
//!
//! Few seeds of the simulation show that. Without one of the twelve rules from `DropsLateRequests` to `RevivesStubs` 0 to 3 of
//! 1,000 seeds failed, and with all of them 2 of 1,000. Its checks allow a loss that is declared, a `broken` without need, and a false 404 while something fails; and a
//! device that comes back with a cursor of another mailbox is told `broken` whatever the rules say. Some counts moved: without
//! `AsksBeforeAbsence` there were 45 % more false 404, without `SendsWaitingOn` 4 % more messages were lost and declared.
//! Of the other rules, only one seed of 8 without `LeavesStubs` failed.
//!
//! | Without this rule | happens this | in |
//! | --- | --- | --- |
//! | `AsksBeforeAbsence` | a false 404: the device has gone on, and its old node has not heard that yet | `absence_rules` |
//! | `DoubtsYoungLinks` | a false 404: the directory is empty, and only some nodes have told it what they hold | |
//! | `OwesWhatItMadeAlone` | a false 404 when the link is back, until the mailbox is told | |
//! | `DisownsEmptyEntries` | 503 for an hour instead of 404: the entry stays | |
//! | `TellsWithoutDoubt` | a false 404 for a live device whose entry was lost, or has expired | |
//! | `KeepsTimeForAnswers` | 504 instead of 503: the sender cannot know that nobody has the message | |
//! | `UsesDirectoryTime` | 504 for every send between nodes whose clocks differ | |
//! | `SeesSkippedClocks` | after a freeze, a dead stream takes a message: the device is told `broken` without need | `doubt_rules` |
//! | `TellsSuspects` | the same after a loss of link | |
//! | `ListsAfterALoss` | watchers do not see a device that came while the link was down; in 71 of 90 seeds | |
//! | `ArrivalsYield` | two streams of one device | |
//! | `RevivesItsEntry` | two mailboxes: an old parcel is opened beside the new mailbox, which is a false 404 from then on | |
//! | `OwnTermsRise` | the stream that opened while the link was down ends: the mailbox that its device left wins | |
//! | `MournsOldGenerations` | a message is lost, and the device is told `resumed` | |
//! | `DropsLateRequests` | a message that waits is lost, and declared: its mailbox left in an answer that nobody waits for | `hole_rules` |
//! | `MarksGaps` | a message is lost, and the device is told `new` | |
//! | `SendsWaitingOn` | a message that waits is lost, and declared | |
//! | `SendsMessagesOnce` | a message comes twice | |
//! | `HolesKnowTheirEpoch` | a stream that has everything ends, and the device is told `broken` | |
//! | `LeavesStubs` | the mailbox is lost with the node that asked for it, and the device is told `new` | `move_rules` |
//! | `RepeatsParcels` | the next node takes the device by force: what waited is lost, and declared | |
//! | `ReopensItsStub` | a device that comes back where its mailbox was loses what waited, and is told `broken` | |
//! | `RevivesStubs` | the same, anywhere, after the time of the stub | |
//! | `PinsLargeMailboxes` | a large mailbox moves whenever its device jumps: 100 times in 4 s | |
//! | `ForgetsMovedStubs` | a node that stops does not know when it is done, and takes all its time | |
//! | `NewerPagesStay` | an older page ends the stream of a newer one | |
//! | `ForcesAtLast` | a device whose mailbox never comes gets no stream | |

mod absence_rules;
mod doubt_rules;
mod hole_rules;
mod move_rules;

use std::time::Duration;

use tokio::runtime::Builder;

use super::{
    memory_engine::MemoryServer,
    rules::{Rule, without},
    running_node::Running,
};

/// Takes the same steps on two nodes that are linked, with a rule and without it, each on virtual time of its own. Gives what both
/// led to.
fn with_and_without<T>(rule: Rule, steps: impl AsyncFn(MemoryServer, [Running; 2]) -> T) -> [T; 2] {
    [None, Some(rule)].map(|out| {
        fastrand::seed(1);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let all = async {
            let server = MemoryServer::new(1);
            let both = Running::two(&server).await;
            steps(server, both).await
        };
        without(out, || runtime.block_on(all))
    })
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The message is not held.
const LIVE: Duration = Duration::ZERO;
/// The message is held for a device that is away.
const HELD: Duration = seconds(60);

#[test]
fn every_rule_has_a_scenario() {
    let scenarios = [
        include_str!("rule_tests/absence_rules.rs"),
        include_str!("rule_tests/doubt_rules.rs"),
        include_str!("rule_tests/hole_rules.rs"),
        include_str!("rule_tests/move_rules.rs"),
    ]
    .concat();
    for rule in Rule::ALL {
        assert!(scenarios.contains(&format!("with_and_without(Rule::{rule:?},")), "{rule:?}");
    }
}
