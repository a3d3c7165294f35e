//! Freezes and kills a node: its futures are not polled while it is frozen, and dropped when it is killed.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// What all futures of a node pass through. A cheap handle.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    frozen: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    killed: CancellationToken,
}

impl Gate {
    pub(super) fn freeze(&self) {
        self.0.frozen.store(true, Ordering::Release);
    }

    pub(super) fn thaw(&self) {
        self.0.frozen.store(false, Ordering::Release);
        let waiting = std::mem::take(&mut *self.0.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn kill(&self) {
        self.0.killed.cancel();
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.0.frozen.load(Ordering::Acquire)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.killed.is_cancelled()
    }

    /// Runs a future as a part of the node. `None`: the node was killed.
    pub(super) async fn pass<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let (mut killed, mut future) = (pin!(self.0.killed.cancelled()), pin!(future));
        poll_fn(|context| {
            if killed.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            if self.is_frozen() {
                self.0.waiting.lock().push(context.waker().clone());
                return Poll::Pending;
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    }
}
