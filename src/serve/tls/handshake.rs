//! Lets TLS handshakes compute in turns, so that a flood of them does not hold up the connections that are served.
//!
//! A handshake computes when bytes of its peer have come: up to a millisecond, in which its worker thread does nothing else. tokio
//! runs tasks in the order in which they became ready, and checks sockets only after all of them, or after 61 of them. So
//! when thousands of handshakes become ready, each step of everybody else would wait for dozens or thousands of computations.
//!
//! A limit of turns alone does not help: a computation never waits, so its turn is free before the next task runs. So a handshake
//! that has got its turn first goes behind everything else that is ready.
//!
//! The handshakes wait for turns in one queue, in which each address has its share (`shares.rs`).

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{runtime::Handle, sync::Semaphore, task::yield_now};

use super::shares::{HandshakeClient, Shares};

/// The turns of all handshakes of a server.
pub(super) struct Turns {
    turns: Semaphore,
    shares: Shares,
}

impl Turns {
    /// As many turns as the runtime has worker threads: more would finish no handshake earlier, and let everybody else wait longer.
    ///
    /// Measured with two workers and 6,000 handshakes (RSA, 2,048 bits) at once. A post to a stream over another connection took 4 s at
    /// the median without turns, as long with 256 turns, and 20 ms with few.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn for_this_runtime() -> Self {
        Self::new(Handle::current().metrics().num_workers().min(MOST_TURNS))
    }

    fn new(count: usize) -> Self {
        Self { turns: Semaphore::new(count), shares: Shares::new(count) }
    }

    /// Runs a handshake. It holds a turn only while it computes, not while it waits for its peer.
    pub(super) async fn run<F: Future>(&self, client: HandshakeClient, mut handshake: Pin<&mut F>) -> F::Output {
        let place = self.shares.place(client);
        loop {
            // The semaphores are never closed.
            let admitted = place.admitted().await;
            let turn = self.turns.acquire().await;
            // tokio polls this task again when all other tasks of this worker have run and it has looked for new bytes.
            yield_now().await;
            let polled = poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await;
            drop((turn, admitted));
            match polled {
                Poll::Ready(output) => return output,
                Poll::Pending => woken().await,
            }
        }
    }
}

/// Waits until something wakes this task: the socket, because the handshake has left its waker there.
async fn woken() {
    let mut has_waited = false;
    let wait =
        |_: &mut Context<'_>| if std::mem::replace(&mut has_waited, true) { Poll::Ready(()) } else { Poll::Pending };
    poll_fn(wait).await;
}

/// For a machine with very many processors.
const MOST_TURNS: usize = 256;

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };

    use tokio::{sync::Notify, task::JoinSet};

    use super::*;
    use crate::limits::AddressKey;

    fn client(last: u8) -> HandshakeClient {
        HandshakeClient::Counted(AddressKey::of([192, 0, 2, last].into()))
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the tasks end with the test")]
    async fn between_two_polls_of_another_task_only_few_of_many_handshakes_compute() {
        let (turns, computed, peers) =
            (Arc::new(Turns::new(4)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut handshakes = JoinSet::new();
        let client = client(1);
        for _ in 0..1_000 {
            let (turns, computed, peers) = (turns.clone(), computed.clone(), peers.clone());
            handshakes.spawn(async move {
                // Waits for its peer in between, as every handshake does.
                let handshake = pin!(async {
                    computed.fetch_add(1, Relaxed);
                    peers.notified().await;
                    computed.fetch_add(1, Relaxed);
                });
                turns.run(client, handshake).await;
            });
        }
        let (mut most, mut before) = (0, 0);
        while before < 2_000 {
            yield_now().await;
            let now = computed.load(Relaxed);
            most = most.max(now - before);
            before = now;
            if before >= 1_000 {
                // Each of them waits for its peer now, so all turns are free.
                peers.notify_waiters();
            }
        }
        assert!((1..=4).contains(&most), "{most} of 1,000 handshakes computed while a ready task waited");
        while let Some(ended) = handshakes.join_next().await {
            ended.unwrap();
        }
    }

    /// How many of 1,000 handshakes of a client compute before a later one of 192.0.2.2 has computed twice.
    #[expect(clippy::disallowed_methods, reason = "the tasks end with the test")]
    async fn computed_before_another(first: HandshakeClient) -> usize {
        let (turns, computed) = (Arc::new(Turns::new(4)), Arc::new(AtomicUsize::new(0)));
        let mut flood = JoinSet::new();
        for _ in 0..1_000 {
            let (turns, computed) = (turns.clone(), computed.clone());
            flood.spawn(async move {
                turns.run(first, pin!(async { computed.fetch_add(1, Relaxed) })).await;
            });
        }
        // All of them wait for a turn now.
        yield_now().await;
        let before = computed.load(Relaxed);
        // The peer of this handshake answers at once.
        turns.run(client(2), pin!(yield_now())).await;
        let computed_before = computed.load(Relaxed) - before;
        flood.shutdown().await;
        assert_eq!(turns.shares.gates(), 0, "no gate is left behind");
        computed_before
    }

    #[tokio::test]
    async fn a_handshake_waits_only_for_a_few_of_each_other_address() {
        let counted = computed_before_another(client(1)).await;
        // Four compute at a time, and this one waits twice.
        assert!((1..=32).contains(&counted), "{counted}");
        // A proxy has more of the queue than one of its clients would have, but not all of it.
        let proxy = HandshakeClient::Uncounted(AddressKey::of([10, 0, 0, 1].into()));
        let uncounted = computed_before_another(proxy).await;
        assert!((65..=256).contains(&uncounted), "{uncounted}");
    }
}
