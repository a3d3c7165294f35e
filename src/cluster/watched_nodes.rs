//! Which nodes watchers take for alive, and which for dead.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::directory::NodeId;

/// What the beats have shown so far.
#[derive(Default)]
pub(super) struct WatchedNodes(Mutex<Nodes>);

#[derive(Default)]
struct Nodes {
    alive: BTreeSet<NodeId>,
    /// The nodes that died. Their devices are offline for watchers here.
    dead: BTreeSet<NodeId>,
}

/// What a beat showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Changed {
    /// The nodes that were alive and are not any more.
    pub(super) died: Vec<NodeId>,
    /// A node that had died is alive.
    pub(super) has_returned: bool,
}

impl WatchedNodes {
    /// Takes note of the nodes that are alive by a beat. `young`: the link came back a moment ago, so a node that is missing may only not
    /// be back yet.
    pub(super) fn note(&self, alive: BTreeSet<NodeId>, young: bool) -> Changed {
        let nodes = &mut *self.0.lock();
        let before = nodes.dead.len();
        nodes.dead.retain(|node| !alive.contains(node));
        let has_returned = nodes.dead.len() < before;
        if young {
            nodes.alive.extend(alive);
            return Changed { died: Vec::new(), has_returned };
        }
        let died: Vec<_> = nodes.alive.difference(&alive).copied().collect();
        nodes.alive = alive;
        nodes.dead.extend(&died);
        while nodes.dead.len() > REMEMBERED {
            nodes.dead.pop_first();
        }
        Changed { died, has_returned }
    }
}

/// How many dead nodes are remembered. Most never come back: a process that starts again is another node.
const REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_missing_on_a_young_link_has_not_died_yet() {
        let (nodes, [one, two, both]) = (WatchedNodes::default(), [&[1][..], &[2], &[1, 2]]);
        let note = |alive: &[u64], young| nodes.note(alive.iter().copied().map(NodeId).collect(), young);
        let changed =
            |died: &[u64], has_returned| Changed { died: died.iter().copied().map(NodeId).collect(), has_returned };
        assert_eq!(note(both, false), changed(&[], false));
        assert_eq!(note(one, true), changed(&[], false));
        assert_eq!(note(two, true), changed(&[], false));
        assert_eq!(note(two, false), changed(&[1], false));
        assert_eq!(note(two, false), changed(&[], false), "it died once");
        assert_eq!(note(both, true), changed(&[], true));
        assert_eq!(note(one, false), changed(&[2], false));
    }
}
