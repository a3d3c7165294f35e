//! The metrics of a node among other nodes. They are there only if the daemon has other nodes.

use std::sync::{Arc, atomic::AtomicI64};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{Histograms, Label, count_and_sample, histograms, register::Register as _};
use crate::cluster::{
    Happened, Move, RequestKind, RequestOutcome,
    directory::{Member, Phase},
};

/// A cheap handle to these metrics.
#[derive(Clone)]
pub struct ClusterMetrics(Arc<Families>);

struct Families {
    registry: Registry,
    link_up: Gauge<i64, AtomicI64>,
    link_changes: Family<Label, Counter>,
    generation: Gauge<i64, AtomicI64>,
    nodes: Family<Label, Gauge<i64, AtomicI64>>,
    entries: Gauge<i64, AtomicI64>,
    moves: Family<Label, Counter>,
    requests: Vec<Request>,
    gave_up: Counter,
    holes: Counter,
    mourned: Counter,
    told: Counter,
}

/// The metrics of one kind of request. A look-up by label for each request would cost more than the counting.
struct Request {
    kind: RequestKind,
    outcomes: Vec<(RequestOutcome, Counter)>,
    seconds: Histogram,
}

impl ClusterMetrics {
    /// All metrics at zero.
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("signal_cluster");
        let requests = Family::<[(&'static str, &'static str); 2], Counter>::default();
        let seconds: Histograms = histograms();
        let of_kind = |kind: RequestKind| Request {
            kind,
            outcomes: OUTCOMES
                .map(|outcome| {
                    let labels = [("kind", kind_name(kind)), ("outcome", outcome_name(outcome))];
                    (outcome, requests.get_or_create_owned(&labels))
                })
                .to_vec(),
            seconds: seconds.get_or_create_owned(&[("kind", kind_name(kind).to_owned())]),
        };
        Self(Arc::new(Families {
            link_up: registry.zero("link_up", "Whether the link to Redis is up"),
            link_changes: registry.add("link_changes", LINK_CHANGES, both_ways()),
            generation: registry.zero("generation", "The generation of the directory"),
            nodes: registry.add("nodes", "Nodes by phase, as of the last beat; none while the link is down", phases()),
            entries: registry.zero("entries", "Mailboxes of all nodes together, as of their last beats"),
            moves: registry.add("moves", "Mailboxes that came to this node, by kind", moves()),
            requests: KINDS.map(of_kind).into(),
            gave_up: registry.zero("gave_up", "Mailboxes given up because another node has a newer one"),
            holes: registry.zero("holes", "Mailboxes of this node whose device is told of a possible loss"),
            mourned: registry.zero("mourned", MOURNED),
            told: registry.zero("told", "Mailboxes of this node told to the directory again"),
            registry: {
                registry.register("requests", "Requests to other nodes, by kind and outcome", requests);
                registry.register("request_seconds", REQUEST_SECONDS, seconds);
                registry
            },
        }))
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Takes note of one thing that happened.
    pub fn observe(&self, happened: &Happened<'_>) {
        let families = &self.0;
        match happened {
            Happened::LinkUp { generation } => {
                families.generation.set(i64::try_from(*generation).unwrap_or(i64::MAX));
                self.link_is(true);
            }
            Happened::LinkDown { .. } => {
                self.link_is(false);
                self.members_are(&[]);
            }
            Happened::Beat { members, .. } => self.members_are(members),
            Happened::Moved(kind) => {
                families.moves.get_or_create_owned(&[("kind", move_name(*kind))]).inc();
            }
            Happened::Asked(kind, outcome, after) => {
                let Some(request) = families.requests.iter().find(|request| request.kind == *kind) else { return };
                let Some((_, count)) = request.outcomes.iter().find(|(of, _)| of == outcome) else { return };
                if count_and_sample(count) {
                    request.seconds.observe(after.as_secs_f64());
                }
            }
            Happened::GaveUp => {
                families.gave_up.inc();
            }
            Happened::Hole => {
                families.holes.inc();
            }
            Happened::Mourned => {
                families.mourned.inc();
            }
            Happened::Told(mailboxes) => {
                families.told.inc_by(*mailboxes as u64);
            }
        }
    }

    fn link_is(&self, up: bool) {
        // A try that failed is no change.
        if self.0.link_up.set(up.into()) != i64::from(up) {
            self.0.link_changes.get_or_create_owned(&[("to", if up { "up" } else { "down" })]).inc();
        }
    }

    fn members_are(&self, members: &[Member]) {
        for name in PHASES {
            let nodes = members.iter().filter(|member| phase_name(member) == name).count();
            self.0.nodes.get_or_create_owned(&[("phase", name)]).set(i64::try_from(nodes).unwrap_or(i64::MAX));
        }
        let entries: u64 = members.iter().filter(|member| !member.is_dead()).map(|member| member.about.mailboxes).sum();
        self.0.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
}

/// How far a node is, in words. A dead one has no phase.
#[must_use]
pub fn phase_name(member: &Member) -> &'static str {
    match member.phase {
        _ if member.is_dead() => "dead",
        Phase::Joining => "joining",
        Phase::Up => "up",
        Phase::Leaving => "leaving",
    }
}

/// Every value of a label is there from the start: an alert does not see the first event of a counter that appears with it.
fn both_ways() -> Family<Label, Counter> {
    all("to", ["up", "down"])
}

fn phases() -> Family<Label, Gauge<i64, AtomicI64>> {
    all("phase", PHASES)
}

fn moves() -> Family<Label, Counter> {
    all("kind", MOVES.map(move_name))
}

fn all<M: Default + Clone, const N: usize>(label: &'static str, values: [&'static str; N]) -> Family<Label, M> {
    let family = Family::<Label, M>::default();
    for value in values {
        drop(family.get_or_create_owned(&[(label, value)]));
    }
    family
}

fn move_name(kind: Move) -> &'static str {
    match kind {
        Move::New => "new",
        Move::Parcel => "parcel",
        Move::Forced => "forced",
        Move::Alone => "alone",
        Move::Revived => "revived",
        Move::Adopted => "adopted",
    }
}

fn kind_name(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Push => "push",
        RequestKind::Take => "take",
        RequestKind::Hole => "hole",
        RequestKind::Adopt => "adopt",
        RequestKind::Live => "live",
        RequestKind::Broadcast => "broadcast",
    }
}

fn outcome_name(outcome: RequestOutcome) -> &'static str {
    match outcome {
        RequestOutcome::Answered => "answered",
        RequestOutcome::Silent => "silent",
        RequestOutcome::NoLink => "no_link",
        RequestOutcome::Down => "down",
    }
}

const MOVES: [Move; 6] = [Move::New, Move::Parcel, Move::Forced, Move::Alone, Move::Revived, Move::Adopted];

const KINDS: [RequestKind; 6] = [
    RequestKind::Push,
    RequestKind::Take,
    RequestKind::Hole,
    RequestKind::Adopt,
    RequestKind::Live,
    RequestKind::Broadcast,
];

const OUTCOMES: [RequestOutcome; 4] =
    [RequestOutcome::Answered, RequestOutcome::Silent, RequestOutcome::NoLink, RequestOutcome::Down];

const PHASES: [&str; 4] = ["joining", "up", "leaving", "dead"];

const LINK_CHANGES: &str = "Times that the link to Redis came up or went down";

const MOURNED: &str = "Mailboxes that left this node, and that no node is known to have opened";

const REQUEST_SECONDS: &str =
    "Time of a request to another node, by kind; of one request in 16 of each kind and outcome";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cluster::directory::{About, DEAD_MS, NodeId},
        telemetry::{Levels, Metrics},
    };

    fn levels() -> Levels {
        Levels { streams: 0, mailboxes: 0, mailbox_bytes: 0, held_bytes: 0, watches: 0, unsent_bytes: 0 }
    }

    fn assert_has(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.render(levels()).unwrap();
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line} in\n{text}");
        }
    }

    fn member(id: u64, phase: Phase, age_ms: u64, mailboxes: u64) -> Member {
        Member { node: NodeId(id), phase, age_ms, about: About { mailboxes, ..About::default() } }
    }

    #[test]
    fn a_daemon_without_other_nodes_has_no_metrics_of_them() {
        let metrics = Metrics::new();
        assert!(!metrics.render(levels()).unwrap().contains("signal_cluster_"));
        let _ = metrics.of_cluster();
        let text = metrics.render(levels()).unwrap();
        assert!(text.contains("signal_streams 0") && text.contains("signal_cluster_link_up 0"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1, "{text}");
    }

    #[test]
    fn a_link_that_goes_down_has_no_nodes() {
        let metrics = Metrics::new();
        let cluster = metrics.of_cluster();
        for happened in [
            Happened::LinkUp { generation: 1 },
            Happened::Beat { members: &[member(1, Phase::Up, 0, 3)], young: false },
            Happened::LinkDown { reason: "gone" },
            Happened::LinkDown { reason: "still gone" },
        ] {
            cluster.observe(&happened);
        }
        assert_has(
            &metrics,
            &[
                "signal_cluster_link_up 0",
                r#"signal_cluster_link_changes_total{to="down"} 1"#,
                r#"signal_cluster_nodes{phase="up"} 0"#,
                "signal_cluster_entries 0",
            ],
        );
    }

    #[test]
    fn what_happens_between_nodes_is_counted() {
        let metrics = Metrics::new();
        let cluster = metrics.of_cluster();
        let members = [
            member(1, Phase::Up, 0, 3),
            member(2, Phase::Up, 900, 4),
            member(3, Phase::Leaving, 0, 5),
            member(4, Phase::Up, DEAD_MS, 100),
        ];
        for happened in [
            Happened::LinkDown { reason: "refused" },
            Happened::LinkUp { generation: 7 },
            Happened::LinkUp { generation: 8 },
            Happened::Moved(Move::Parcel),
            Happened::Asked(RequestKind::Push, RequestOutcome::Answered, Duration::from_micros(300)),
            Happened::Asked(RequestKind::Push, RequestOutcome::Answered, Duration::from_micros(300)),
            Happened::Asked(RequestKind::Take, RequestOutcome::NoLink, Duration::from_micros(300)),
            Happened::GaveUp,
            Happened::Hole,
            Happened::Mourned,
            Happened::Told(64),
            Happened::Told(2),
            Happened::Beat { members: &members, young: false },
        ] {
            cluster.observe(&happened);
        }
        assert_has(
            &metrics,
            &[
                "signal_cluster_link_up 1",
                r#"signal_cluster_link_changes_total{to="up"} 1"#,
                r#"signal_cluster_link_changes_total{to="down"} 0"#,
                "signal_cluster_generation 8",
                r#"signal_cluster_nodes{phase="up"} 2"#,
                r#"signal_cluster_nodes{phase="joining"} 0"#,
                r#"signal_cluster_nodes{phase="leaving"} 1"#,
                r#"signal_cluster_nodes{phase="dead"} 1"#,
                "signal_cluster_entries 12",
                r#"signal_cluster_moves_total{kind="parcel"} 1"#,
                r#"signal_cluster_moves_total{kind="forced"} 0"#,
                r#"signal_cluster_requests_total{kind="push",outcome="answered"} 2"#,
                r#"signal_cluster_requests_total{kind="take",outcome="no_link"} 1"#,
                r#"signal_cluster_requests_total{kind="hole",outcome="silent"} 0"#,
                r#"signal_cluster_request_seconds_count{kind="push"} 1"#,
                "signal_cluster_gave_up_total 1",
                "signal_cluster_holes_total 1",
                "signal_cluster_mourned_total 1",
                "signal_cluster_told_total 66",
            ],
        );
    }
}
