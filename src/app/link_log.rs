//! The log of the link to other nodes: one line for each change of the link and of the nodes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use crate::{
    cluster::{
        Happened,
        directory::{Member, NodeId},
    },
    telemetry::{LogThrottle, phase_name},
};

/// What was logged last.
pub(super) struct LinkLog {
    me: NodeId,
    known: Mutex<Known>,
    /// While the link is down, each try may fail for another reason.
    reasons: LogThrottle,
    /// This node has left, so that its link goes down is no news.
    has_left: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// Why the link is down, as the log says. `None`: it is up, or has not been tried.
    down: Option<String>,
    nodes: BTreeMap<NodeId, &'static str>,
}

/// A change of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// Its row is new, or has another phase.
    Is(NodeId, &'static str, String),
    /// Its row is gone: it has stopped, or has been dead for long. What it was before.
    Gone(NodeId, &'static str),
}

impl LinkLog {
    pub(super) fn new(me: NodeId) -> Self {
        Self { me, known: Mutex::default(), reasons: LogThrottle::default(), has_left: AtomicBool::default() }
    }

    /// From now on nothing is written.
    pub(super) fn end(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    /// Writes a line if something has changed.
    pub(super) fn observe(&self, happened: &Happened<'_>) {
        if self.has_left.load(Ordering::Relaxed) {
            return;
        }
        match happened {
            Happened::LinkUp { generation } => {
                self.known.lock().down = None;
                tracing::info!(node = %self.me, generation, "the link to Redis is up");
            }
            Happened::LinkDown { reason } if self.is_news(reason) => {
                tracing::warn!(node = %self.me, reason, "the link to Redis is down");
            }
            Happened::Beat { members, young } => {
                let changes = self.known.lock().changes(self.me, members, *young);
                changes.iter().for_each(Change::log);
            }
            _ => {}
        }
    }

    /// Whether a try that failed is worth a line.
    fn is_news(&self, reason: &str) -> bool {
        let known = &mut *self.known.lock();
        let is_news = match known.down.as_deref() {
            None => true,
            Some(before) => before != reason && self.reasons.admit().is_some(),
        };
        if is_news {
            known.down = Some(reason.to_owned());
        }
        is_news
    }
}

impl Known {
    /// What has changed since the last beat, apart from this node itself. On a young link, a node that is dead or missing may only not be
    /// back yet: it is as it was.
    fn changes(&mut self, me: NodeId, members: &[Member], young: bool) -> Vec<Change> {
        let others = || members.iter().filter(|member| member.node != me && !(young && member.is_dead()));
        let mut now = if young { self.nodes.clone() } else { BTreeMap::new() };
        now.extend(others().map(|member| (member.node, phase_name(member))));
        let gone = self.nodes.iter().filter(|(node, _)| !now.contains_key(node));
        let gone = gone.map(|(node, phase)| Change::Gone(*node, phase));
        let other = others().filter(|member| self.nodes.get(&member.node) != Some(&phase_name(member)));
        let other = other.map(|member| Change::Is(member.node, phase_name(member), member.about.version.clone()));
        let changes = gone.chain(other).collect();
        self.nodes = now;
        changes
    }
}

impl Change {
    fn log(&self) {
        match self {
            Self::Is(node, phase, version) if *phase == "dead" => {
                tracing::warn!(other = %node, phase, version, "another node is dead: it has not been heard of for 6 s");
            }
            Self::Is(node, phase, version) => tracing::info!(other = %node, phase, version, "another node"),
            Self::Gone(node, was) => tracing::info!(other = %node, was, "another node is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::directory::{About, DEAD_MS, Phase};

    fn member(id: u64, phase: Phase, age_ms: u64) -> Member {
        let about = About { version: "0.1.0".to_owned(), ..About::default() };
        Member { node: NodeId(id), phase, age_ms, about }
    }

    #[test]
    fn each_change_of_another_node_is_one_line() {
        let (mut known, me) = (Known::default(), NodeId(1));
        let is = |id, phase| Change::Is(NodeId(id), phase, "0.1.0".to_owned());
        let own = member(1, Phase::Up, 0);
        let rows = |rows: &[Member]| [std::slice::from_ref(&own), rows].concat();
        for (members, changes) in [
            (rows(&[]), vec![]),
            (rows(&[member(2, Phase::Joining, 0)]), vec![is(2, "joining")]),
            (rows(&[member(2, Phase::Up, 0), member(3, Phase::Up, 0)]), vec![is(2, "up"), is(3, "up")]),
            (rows(&[member(2, Phase::Up, 5_999), member(3, Phase::Up, 999)]), vec![]),
            (
                rows(&[member(2, Phase::Up, DEAD_MS), member(3, Phase::Leaving, 0)]),
                vec![is(2, "dead"), is(3, "leaving")],
            ),
            (rows(&[member(2, Phase::Up, 0)]), vec![Change::Gone(NodeId(3), "leaving"), is(2, "up")]),
            (rows(&[]), vec![Change::Gone(NodeId(2), "up")]),
        ] {
            assert_eq!(known.changes(me, &members, false), changes, "{members:?}");
        }
    }

    #[test]
    fn a_node_that_is_not_back_yet_after_an_outage_is_neither_dead_nor_gone() {
        let (mut known, me) = (Known::default(), NodeId(1));
        let is = |id, phase| Change::Is(NodeId(id), phase, "0.1.0".to_owned());
        let (back, stale) = (member(2, Phase::Up, 0), member(2, Phase::Up, DEAD_MS));
        assert_eq!(known.changes(me, std::slice::from_ref(&back), false), [is(2, "up")]);
        assert_eq!(known.changes(me, std::slice::from_ref(&stale), true), []);
        assert_eq!(known.changes(me, &[], true), []);
        assert_eq!(known.changes(me, &[back, member(3, Phase::Up, 0)], true), [is(3, "up")]);
        assert_eq!(known.changes(me, &[stale], false), [Change::Gone(NodeId(3), "up"), is(2, "dead")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_goes_down_is_one_line_and_so_is_each_new_reason_at_most_once_a_second() {
        let log = LinkLog::new(NodeId(1));
        let down = |reason| log.is_news(reason);
        assert_eq!([down("refused"), down("refused"), down("late"), down("refused")], [true, false, true, false]);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!([down("late"), down("refused"), down("late")], [false, true, false]);
        log.observe(&Happened::LinkUp { generation: 1 });
        assert_eq!([down("refused"), down("refused")], [true, false]);
    }
}
