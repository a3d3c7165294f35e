//! Polls every request that was already read once before reading more from its HTTP/2 connection.
//!
//! A peer may open a thousand streams at once. hyper would take all of them in before it serves the first, and its tables, which
//! never shrink, would keep room for as many requests and responses on their way for as long as the connection lives. So one
//! poll of the connection reads a bite at most; hyper begins to serve every request in it before that poll is over, and the next
//! poll waits until each of them was polled. What they answer at once is then mostly written at once, with one call of the system.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// Bytes, some fifty requests. hyper itself would read 8 KiB at a time, again and again.
const BITE: u64 = 4 * 1024;

/// The requests of one connection that wait for their first turn, and the connection if it waits for them.
#[derive(Clone, Default)]
pub(in crate::serve) struct ReadBudget(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Requests that were not polled yet.
    waiting: usize,
    /// The connection, which wants to be polled when all of them were.
    connection: Option<Waker>,
    /// What may still be read in this poll of the connection.
    left: u64,
}

/// One request that waits. It has its turn, or none any more, when this is dropped.
pub(in crate::serve) struct UnpolledRequest(ReadBudget);

impl ReadBudget {
    /// The connection may be polled, and read a bite: no request waits.
    pub(in crate::serve) fn poll_begin(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.waiting > 0 {
            state.connection = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.left = BITE;
        Poll::Ready(())
    }

    /// A request begins to wait.
    pub(in crate::serve) fn enter(&self) -> UnpolledRequest {
        self.0.lock().waiting += 1;
        UnpolledRequest(self.clone())
    }

    /// Reads what is left of the bite.
    pub(in crate::serve) fn poll_read(
        &self,
        io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.0.lock().left;
        if left == 0 {
            // There may be more, so the connection is polled once more after the requests that it has read.
            cx.waker().wake_by_ref();
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
        state.waiting -= 1;
        let connection = if state.waiting == 0 { state.connection.take() } else { None };
        drop(state);
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn begins(turns: &ReadBudget, waker: &Arc<Wakes>) -> bool {
        turns.poll_begin(&Context::from_waker(&waker.clone().into())).is_ready()
    }

    /// How much was read, none where the reader has to wait.
    fn read(turns: &ReadBudget, io: &mut &[u8], waker: &Arc<Wakes>) -> Option<usize> {
        let mut bytes = [0; 10_000];
        let mut buffer = ReadBuf::new(&mut bytes);
        let waker = waker.clone().into();
        match turns.poll_read(Pin::new(io), &mut Context::from_waker(&waker), &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()).ok(),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_poll_of_the_connection_reads_a_bite_however_small_the_pieces() {
        let (turns, waker) = (ReadBudget::default(), Arc::new(Wakes(AtomicUsize::new(0))));
        for pieces in [&[5_000, 5_000][..], &[1_000; 9], &[100; 90]] {
            assert!(begins(&turns, &waker));
            let mut found = 0;
            let before = waker.0.load(Ordering::Relaxed);
            let all_read = pieces.iter().all(|&piece| {
                let read = read(&turns, &mut vec![1; piece].as_slice(), &waker);
                found += read.unwrap_or_default() as u64;
                read.is_some()
            });
            assert_eq!((all_read, found, waker.0.load(Ordering::Relaxed)), (false, BITE, before + 1), "{pieces:?}");
        }
    }

    #[test]
    fn the_connection_waits_until_every_request_had_its_turn() {
        let (turns, waker) = (ReadBudget::default(), Arc::new(Wakes(AtomicUsize::new(0))));
        let (first, second) = (turns.enter(), turns.enter());
        assert!(!begins(&turns, &waker));
        drop(first);
        assert_eq!((begins(&turns, &waker), waker.0.load(Ordering::Relaxed)), (false, 0));
        drop(second);
        assert_eq!((waker.0.load(Ordering::Relaxed), begins(&turns, &waker)), (1, true));
    }
}
