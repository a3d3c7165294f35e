//! How much may be on its way to each node: it fills the buffer of that node's link in the engine, and a full buffer breaks the link.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::directory::NodeId;

/// A lane to each node: room for the bytes on their way there.
///
/// A lane has room for [`ROOM`] bytes divided by the number of nodes, because all nodes send to one. So that nothing has to change when
/// nodes come and go, all lanes have the same permits, and a byte takes as many of them as there are nodes.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<NodeId, Arc<Semaphore>>>);

/// Bytes on their way. Dropping it says that they have come, or never will.
pub(super) type OnWay = OwnedSemaphorePermit;

impl Lanes {
    /// Waits for room, in turn. One message always finds room in an empty lane, however large it is. Always `Some`: no lane is closed.
    pub(super) async fn enter(&self, to: NodeId, bytes: usize, nodes: usize) -> Option<OnWay> {
        self.lane(to).acquire_many_owned(permits(bytes, nodes)).await.ok()
    }

    /// Enters without waiting, also when less room is left than the bytes need. `None`: the lane is full.
    pub(super) fn squeeze(&self, to: NodeId, bytes: usize, nodes: usize) -> Option<OnWay> {
        let lane = self.lane(to);
        let left = u32::try_from(lane.available_permits()).unwrap_or(ROOM);
        if left == 0 { None } else { lane.try_acquire_many_owned(permits(bytes, nodes).min(left)).ok() }
    }

    pub(super) fn is_full(&self, to: NodeId) -> bool {
        self.0.lock().get(&to).is_some_and(|lane| lane.available_permits() == 0)
    }

    fn lane(&self, to: NodeId) -> Arc<Semaphore> {
        let mut lanes = self.0.lock();
        if lanes.len() >= IDLE && !lanes.contains_key(&to) {
            // Only the map holds a lane with nothing in it and nobody before it.
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        lanes.entry(to).or_insert_with(|| Arc::new(Semaphore::new(ROOM as usize))).clone()
    }
}

fn permits(bytes: usize, nodes: usize) -> u32 {
    u32::try_from(bytes.saturating_mul(nodes)).unwrap_or(ROOM).min(ROOM)
}

/// The bytes of requests that all nodes together may have on their way to one, and as many bytes of parcels. With what is not counted
/// (answers to pushes, presence) they stay below the soft limit of 64 MB for a minute that `docs/cluster.md` asks for.
const ROOM: u32 = 24 << 20;
/// With so many lanes, those of nodes that are gone are looked for.
const IDLE: usize = 64;

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Poll, Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>, waker: &Waker) -> Option<T> {
        match future.poll(&mut Context::from_waker(waker)) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        poll(pin!(future), Waker::noop())
    }

    #[test]
    fn an_answer_wakes_only_the_requests_that_it_makes_room_for() {
        let (lanes, woken) = (Lanes::default(), Arc::new(Woken::default()));
        let first = at_once(lanes.enter(NODE, ALL, 1)).expect("an empty lane");
        let mut waiting: Vec<_> = (0..MANY).map(|_| Box::pin(lanes.enter(NODE, ALL / 10, 1))).collect();
        let waker = woken.clone().into();
        waiting.retain_mut(|enter| poll(enter.as_mut(), &waker).is_none());
        assert_eq!(waiting.len(), MANY);
        drop(first);
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut entered = Vec::new();
            waiting.retain_mut(|enter| poll(enter.as_mut(), &waker).map(|on_way| entered.push(on_way)).is_none());
            assert!(waiting.len() < before, "{before} wait for ever");
        }
        let woken = woken.0.load(Ordering::Relaxed);
        assert!(woken <= MANY, "{woken} times");
    }

    #[test]
    fn a_large_message_is_not_overtaken_by_small_ones() {
        let lanes = Lanes::default();
        let half = at_once(lanes.enter(NODE, ALL / 2, 1));
        let (mut large, mut small) = (pin!(lanes.enter(NODE, 2 * ALL, 1)), pin!(lanes.enter(NODE, 1, 1)));
        assert!(poll(large.as_mut(), Waker::noop()).is_none());
        assert!(poll(small.as_mut(), Waker::noop()).is_none());
        drop(half);
        let entered = poll(large.as_mut(), Waker::noop()).expect("the lane is empty");
        assert!(poll(small.as_mut(), Waker::noop()).is_none());
        drop(entered);
        assert!(poll(small.as_mut(), Waker::noop()).is_some());
    }

    #[test]
    fn nodes_share_what_may_be_on_its_way_and_the_lane_of_a_node_that_is_gone_is_forgotten() {
        let lanes = Lanes::default();
        let quarter: Vec<_> = (0..8).filter_map(|_| at_once(lanes.enter(NODE, ALL / 4 / 8, 4))).collect();
        assert_eq!(quarter.len(), 8);
        assert!(lanes.is_full(NODE) && lanes.squeeze(NODE, 1, 1).is_none());
        assert!(at_once(lanes.enter(NODE, 1, 4)).is_none());
        for node in 100..1_000 {
            assert!(at_once(lanes.enter(NodeId(node), ALL, 4)).is_some());
        }
        assert!(lanes.0.lock().len() <= IDLE);
        assert!(lanes.is_full(NODE));
        drop(quarter);
        assert!(lanes.squeeze(NODE, 2 * ALL, 1).is_some());
    }

    const NODE: NodeId = NodeId(7);
    const ALL: usize = ROOM as usize;
    const MANY: usize = 1_000;
}
