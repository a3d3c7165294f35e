//! What each rule of the node code is for: the same steps with the rule and without it.

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
