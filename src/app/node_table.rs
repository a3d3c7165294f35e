//! `backend-signal cluster`: shows the nodes that share a Redis. It reads, and joins nothing.

use std::{fmt::Write as _, process::ExitCode};

use serde_json::json;

use super::{App, redis_setup};
use crate::{
    cluster::{directory::Member, survey::Survey},
    config::ClusterView,
    drain::StopSignals,
    telemetry::phase_name,
    terminal::{fail, print},
};

impl App {
    /// Writes the nodes to standard output.
    #[must_use]
    pub fn show_nodes(view: &ClusterView, mut signals: StopSignals) -> ExitCode {
        let server = match redis_setup::server(&view.redis) {
            Ok(Some(server)) => server,
            Ok(None) => return fail(2, "there is no --redis"),
            Err(error) => return fail(2, error),
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(1, error),
        };
        let survey = runtime.block_on(async {
            tokio::select! {
                survey = server.survey() => survey,
                () = signals.any() => Err("stopped by a signal".to_owned()),
            }
        });
        // Dropping the runtime would wait for its thread that may still resolve the host name.
        runtime.shutdown_background();
        match survey {
            Ok(survey) if view.json => print(&format!("{}\n", object(&survey))),
            Ok(survey) => print(&table(&survey)),
            Err(reason) => fail(1, format!("--redis: {reason}")),
        }
    }
}

/// One line about the directory, then one for each node.
fn table(survey: &Survey) -> String {
    let Survey { generation, members, debtors } = survey;
    if *generation == 0 {
        return "no node has been here\n".to_owned();
    }
    let doubt = if debtors.is_empty() { "sure" } else { "not sure: \"not connected\" is 503 until no node owes" };
    let mut text = format!("generation {generation}, {doubt}\n\n");
    let mut row = |cells: [&str; 7]| {
        let [node, phase, beat, streams, mailboxes, version, owes] = cells;
        let line = format!("{node:<16}  {phase:<8}  {beat:>8}  {streams:>10}  {mailboxes:>10}  {version:<10}  {owes}");
        let _never_fails = writeln!(text, "{}", line.trim_end());
    };
    row(["node", "phase", "beat", "streams", "mailboxes", "version", "owes"]);
    for member in sorted(members) {
        let Member { node, age_ms, about, .. } = member;
        let age = format!("{}.{} s", age_ms / 1_000, age_ms % 1_000 / 100);
        let owes = if debtors.contains(node) { "yes" } else { "" };
        let (streams, mailboxes) = (about.streams.to_string(), about.mailboxes.to_string());
        row([&node.to_string(), phase_name(member), &age, &streams, &mailboxes, &about.version, owes]);
    }
    // A node that owes and whose row is gone.
    for node in debtors.iter().filter(|node| members.iter().all(|member| member.node != **node)) {
        row([&node.to_string(), "gone", "", "", "", "", "yes"]);
    }
    text
}

fn object(survey: &Survey) -> serde_json::Value {
    let Survey { generation, members, debtors } = survey;
    let node = |member: &Member| {
        let Member { node, age_ms, about, .. } = member;
        json!({
            "node": node.to_string(),
            "phase": phase_name(member),
            "beat_ms": age_ms,
            "streams": about.streams,
            "mailboxes": about.mailboxes,
            "version": about.version,
        })
    };
    let nodes: Vec<_> = sorted(members).into_iter().map(node).collect();
    let owes: Vec<_> = debtors.iter().map(ToString::to_string).collect();
    json!({"generation": generation, "sure": debtors.is_empty(), "nodes": nodes, "owes": owes})
}

fn sorted(members: &[Member]) -> Vec<&Member> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|member| member.node);
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::directory::{About, DEAD_MS, NodeId, Phase};

    fn survey() -> Survey {
        let about = |streams, mailboxes| About { version: "0.1.0".to_owned(), streams, mailboxes };
        let member = |node, phase, age_ms, about| Member { node: NodeId(node), phase, age_ms, about };
        Survey {
            generation: 3,
            members: vec![
                member(0xb, Phase::Up, DEAD_MS + 1_050, about(7, 1_234_567)),
                member(0xa, Phase::Joining, 40, About::default()),
            ],
            debtors: vec![NodeId(0xb), NodeId(0xc)],
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_node_and_for_each_that_owes() {
        let expected = "generation 3, not sure: \"not connected\" is 503 until no node owes\n\n\
            node              phase         beat     streams   mailboxes  version     owes\n\
            000000000000000a  joining      0.0 s           0           0\n\
            000000000000000b  dead         7.0 s           7     1234567  0.1.0       yes\n\
            000000000000000c  gone                                                    yes\n";
        assert_eq!(table(&survey()), expected);
        let nobody = Survey { generation: 0, members: Vec::new(), debtors: Vec::new() };
        assert_eq!(table(&nobody), "no node has been here\n");
    }

    #[test]
    fn the_object_has_what_the_table_has() {
        let expected = json!({
            "generation": 3, "sure": false, "owes": ["000000000000000b", "000000000000000c"],
            "nodes": [
                {"node": "000000000000000a", "phase": "joining", "beat_ms": 40, "streams": 0, "mailboxes": 0, "version": ""},
                {"node": "000000000000000b", "phase": "dead", "beat_ms": 7_050, "streams": 7, "mailboxes": 1_234_567,
                 "version": "0.1.0"},
            ],
        });
        assert_eq!(object(&survey()), expected);
    }
}
