//! StreamTasks of one HTTP/2 connection that have something to write at the same time share one write.
//!
//! A stream that has something to write wakes its connection, and the runtime runs what was woken last at once: each ping of a
//! thousand idle streams had a `writev` of its own. So a connection that is woken first goes behind all tasks that are ready: a task
//! that wakes itself is put at the end of the queue. 300,000 idle streams with the default heartbeat: 10.2 -> 4.2 % of a core.

use std::task::{Context, Poll};

/// Whether a connection has let the others go first since it was woken.
#[derive(Default)]
pub(in crate::serve) struct WriteBatching {
    waited: bool,
}

impl WriteBatching {
    /// Pending once, then ready once, and so on; always ready for a connection with so few streams that a write of its own for
    /// each costs little.
    pub(in crate::serve) fn poll(&mut self, streams: usize, cx: &Context<'_>) -> Poll<()> {
        self.waited = !self.waited && streams > FEW;
        if self.waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

/// StreamTasks of a connection that has nothing to gather.
const FEW: usize = 8;

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::sync::Notify;

    use super::*;
    use crate::drain::Drain;

    /// How many of a hundred tasks, which are ready together, ran before a task that each of them wakes.
    async fn ran_before(streams: usize) -> usize {
        let (drain, wake) = (Drain::new(), Arc::new(Notify::new()));
        let (ran, found) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (spawner, result) = (drain.clone(), found.clone());
        // From inside the runtime, so that all of them stand in one queue.
        drain.spawn(async move {
            let (ran_already, woken) = (ran.clone(), wake.clone());
            spawner.spawn(async move {
                woken.notified().await;
                let mut gathering = WriteBatching::default();
                poll_fn(|cx| gathering.poll(streams, cx)).await;
                found.store(ran_already.load(Ordering::Relaxed), Ordering::Relaxed);
            });
            for _ in 0..100 {
                let (ran, wake) = (ran.clone(), wake.clone());
                spawner.spawn(async move {
                    ran.fetch_add(1, Ordering::Relaxed);
                    wake.notify_one();
                });
            }
        });
        assert!(drain.wait(Duration::from_secs(20)).await);
        result.load(Ordering::Relaxed)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_connection_runs_once_for_all_that_were_ready_with_the_first_one() {
        assert_eq!(ran_before(100).await, 100);
        // Where the runtime lets the others go first by itself, this file can go.
        assert!(ran_before(FEW).await < 100);
    }
}
