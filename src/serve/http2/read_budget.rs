//! Limits how much one poll of an HTTP/2 connection reads, and polls all new requests before the connection reads more.
//!
//! h2 0.4 reads all that the socket holds before hyper 1.12 serves the first request. A peer that sends a thousand requests at once
//! makes the tables of h2 and hyper grow to a thousand entries, and the tables never shrink while the connection lives. With the
//! budget, about fifty requests are in hand at a time: a stream of such a peer takes 1,815 bytes instead of 2,249. Their responses
//! also share writes: 0.12 instead of 0.26 writes for a gRPC send.
//!
//! This relies on hyper: in one poll it calls the service for every request that h2 has read. If hyper kept a request for a later
//! poll, `unpolled` would not count it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::serve::filtered_io::Filter;

/// Bytes for one poll of the connection.
const BUDGET: u64 = 4 * 1024;

/// The read budget of one connection, and the requests that were not polled yet.
#[derive(Clone, Default)]
pub(super) struct ReadBudget(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    unpolled: usize,
    /// Wakes the connection when every request was polled.
    connection: Option<Waker>,
    /// Bytes that may still be read in this poll of the connection.
    left: u64,
    /// Nothing is read in this poll of the connection.
    is_paused: bool,
}

/// Counts one request as not polled until this is dropped.
pub(super) struct UnpolledRequest(ReadBudget);

impl ReadBudget {
    /// Ready with a whole budget when every request was polled. Do not poll the connection while this is pending.
    pub(super) fn poll_refill(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.unpolled > 0 {
            state.connection = Some(cx.waker().clone());
            return Poll::Pending;
        }
        (state.left, state.is_paused) = (BUDGET, false);
        Poll::Ready(())
    }

    /// The next poll of the connection reads nothing. The caller must wake the connection when it may read again.
    pub(super) fn pause(&self) {
        let mut state = self.0.lock();
        (state.left, state.is_paused) = (0, true);
    }

    pub(super) fn is_paused(&self) -> bool {
        self.0.lock().is_paused
    }

    /// Counts a new request.
    pub(super) fn count_unpolled(&self) -> UnpolledRequest {
        self.0.lock().unpolled += 1;
        UnpolledRequest(self.clone())
    }
}

impl Filter for ReadBudget {
    fn poll_read(
        &mut self,
        io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let State { left, is_paused, .. } = *self.0.lock();
        if left == 0 {
            if !is_paused {
                // The socket may hold more, and would not wake the connection again for it.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut io.take(left)).poll_read(cx, buffer))?;
        self.0.lock().left = left - (buffer.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl Drop for UnpolledRequest {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.unpolled -= 1;
        let connection = if state.unpolled == 0 { state.connection.take() } else { None };
        drop(state);
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::poll_fn,
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use axum::body::Body;
    use http::{Request, Response};
    use hyper::{body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::{io::AsyncWriteExt as _, sync::Notify};

    use super::*;
    use crate::serve::{filtered_io::FilteredIo, http2::testing};

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn refills(budget: &ReadBudget, waker: &Arc<Wakes>) -> bool {
        budget.poll_refill(&Context::from_waker(&waker.clone().into())).is_ready()
    }

    /// How many bytes a read gives; `None` when it is pending.
    fn read(budget: &mut ReadBudget, io: &mut &[u8], waker: &Arc<Wakes>) -> Option<usize> {
        let mut bytes = [0; 10_000];
        let mut buffer = ReadBuf::new(&mut bytes);
        let waker = waker.clone().into();
        match budget.poll_read(Pin::new(io), &mut Context::from_waker(&waker), &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()).ok(),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_poll_of_the_connection_reads_the_budget_however_small_the_reads() {
        let (mut budget, waker) = (ReadBudget::default(), Arc::new(Wakes(AtomicUsize::new(0))));
        for pieces in [&[5_000, 5_000][..], &[1_000; 9], &[100; 90]] {
            assert!(refills(&budget, &waker));
            let mut found = 0;
            let before = waker.0.load(Ordering::Relaxed);
            let all_read = pieces.iter().all(|&piece| {
                let read = read(&mut budget, &mut vec![1; piece].as_slice(), &waker);
                found += read.unwrap_or_default() as u64;
                read.is_some()
            });
            assert_eq!((all_read, found, waker.0.load(Ordering::Relaxed)), (false, BUDGET, before + 1), "{pieces:?}");
        }
    }

    #[test]
    fn the_connection_waits_until_every_request_was_polled() {
        let (budget, waker) = (ReadBudget::default(), Arc::new(Wakes(AtomicUsize::new(0))));
        let (first, second) = (budget.count_unpolled(), budget.count_unpolled());
        assert!(!refills(&budget, &waker));
        drop(first);
        assert_eq!((refills(&budget, &waker), waker.0.load(Ordering::Relaxed)), (false, 0));
        drop(second);
        assert_eq!((waker.0.load(Ordering::Relaxed), refills(&budget, &waker)), (1, true));
    }

    /// A peer sends 500 requests at once. Returns the most of them that hyper has accepted and not polled at the same time.
    async fn most_unpolled(with_budget: bool) -> usize {
        const REQUESTS: usize = 500;
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(&testing::requests(REQUESTS)).await.expect("space");
        let budget = ReadBudget::default();
        let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0), Notify::new()));
        let (accepting, counting) = (budget.clone(), counts.clone());
        let service = service_fn(move |_: Request<Incoming>| {
            let (accepted, counts) = (accepting.count_unpolled(), counting.clone());
            let (unpolled, most, ..) = &*counts;
            most.fetch_max(unpolled.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            async move {
                let (unpolled, _, polled, all_polled) = &*counts;
                drop(accepted);
                unpolled.fetch_sub(1, Ordering::Relaxed);
                if polled.fetch_add(1, Ordering::Relaxed) + 1 == REQUESTS {
                    all_polled.notify_one();
                }
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let io = TokioIo::new(FilteredIo::new(server, budget.clone()));
        let connection =
            http2::Builder::new(TokioExecutor::new()).max_concurrent_streams(1_000).serve_connection(io, service);
        let mut connection = pin!(connection);
        let driver = poll_fn(|cx| {
            if with_budget {
                ready!(budget.poll_refill(cx));
            } else {
                budget.0.lock().left = u64::MAX;
            }
            connection.as_mut().poll(cx)
        });
        tokio::select! {
            ended = driver => panic!("{ended:?}"),
            () = counts.3.notified() => counts.1.load(Ordering::Relaxed),
        }
    }

    #[tokio::test]
    async fn hyper_has_few_requests_in_hand_with_the_budget_and_all_of_them_without() {
        let frame = testing::requests(2).len() - testing::requests(1).len();
        let with_budget = most_unpolled(true).await;
        assert!((2..=usize::try_from(BUDGET).expect("small") / frame).contains(&with_budget), "{with_budget}");
        // When this fails, hyper limits by itself how much it reads before it serves: delete this file.
        assert_eq!(most_unpolled(false).await, 500);
    }
}
