//! What a connection of HTTP/2 has brought gets its first turn before more is read from it.
//!
//! A peer may open a thousand streams at once. hyper would take all of them in before it serves the first, and its tables, which
//! never shrink, would keep room for as many requests and responses on their way for as long as the connection lives. So one
//! poll of the connection reads a bite at most; hyper begins to serve every request in it before that poll is over, and the next
//! bite waits until each of them was polled.

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

/// The requests of one connection that wait for their first turn, and who waits for them.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Requests that were not polled yet.
    waiting: usize,
    /// Who wants to read when all of them were.
    reader: Option<Waker>,
    /// What may still be read in this poll of the connection.
    left: u64,
}

/// One request that waits. It has its turn, or none any more, when this is dropped.
pub(super) struct Turn(Turns);

impl Turns {
    /// The connection is about to be polled.
    pub(super) fn begin(&self) {
        self.0.lock().left = BITE;
    }

    /// A request begins to wait.
    pub(super) fn enter(&self) -> Turn {
        self.0.lock().waiting += 1;
        Turn(self.clone())
    }

    /// Reads what is left of the bite, unless requests wait.
    pub(super) fn poll_read(
        &self,
        io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = ready!(self.poll_left(cx));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut io.take(left)).poll_read(cx, buffer))?;
        self.0.lock().left = left - (buffer.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }

    /// How much may be read, when anything may be.
    fn poll_left(&self, cx: &Context<'_>) -> Poll<u64> {
        let mut state = self.0.lock();
        if state.waiting > 0 {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if state.left == 0 {
            // There may be more, so the connection is polled once more after the requests that it has read.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(state.left)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.waiting -= 1;
        let reader = if state.waiting == 0 { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
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

    /// How much was read, none where the reader has to wait.
    fn read(turns: &Turns, io: &mut &[u8], waker: &Arc<Wakes>) -> Option<usize> {
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
        let (turns, waker) = (Turns::default(), Arc::new(Wakes(AtomicUsize::new(0))));
        for pieces in [&[5_000, 5_000][..], &[1_000; 9], &[100; 90]] {
            turns.begin();
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
    fn nothing_is_read_until_every_request_had_its_turn() {
        let (turns, waker) = (Turns::default(), Arc::new(Wakes(AtomicUsize::new(0))));
        turns.begin();
        let (first, second) = (turns.enter(), turns.enter());
        let mut io = [1; 7].as_slice();
        assert_eq!(read(&turns, &mut io, &waker), None);
        drop(first);
        assert_eq!((read(&turns, &mut io, &waker), waker.0.load(Ordering::Relaxed)), (None, 0));
        drop(second);
        assert_eq!((waker.0.load(Ordering::Relaxed), read(&turns, &mut io, &waker)), (1, Some(7)));
    }
}
