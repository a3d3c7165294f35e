//! What a connection of HTTP/2 has brought gets its first turn before more is read from it.
//!
//! A peer may open a thousand streams at once. hyper would take all of them in before it serves the first, and its tables, which
//! never shrink, would keep room for as many requests and responses on their way for as long as the connection lives. So it is
//! given a bite, and another one when it has begun to serve all requests in that.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes, some fifty requests. hyper itself would read 8 KiB at a time, again and again.
const BITE: usize = 4 * 1024;

/// The requests of one connection that wait for their first turn, and who waits for them.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: usize,
    reader: Option<Waker>,
    /// The last bite was a whole one, so that there may be more.
    more: bool,
}

/// One request that waits. It has its turn, or none any more, when this is dropped.
pub(super) struct Turn(Turns);

impl Turns {
    /// A request begins to wait.
    pub(super) fn wait(&self) -> Turn {
        self.0.lock().waiting += 1;
        Turn(self.clone())
    }

    /// Reads a bite, when its turn has come.
    pub(super) fn poll_read(
        &self,
        io: Pin<&mut impl AsyncRead>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_had(cx));
        let mut bite = ReadBuf::new(buffer.initialize_unfilled_to(BITE.min(buffer.remaining())));
        ready!(io.poll_read(cx, &mut bite))?;
        self.0.lock().more = bite.remaining() == 0;
        let length = bite.filled().len();
        buffer.advance(length);
        Poll::Ready(Ok(()))
    }

    /// Ready when nothing that was read has to be looked at first.
    fn poll_had(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.waiting > 0 {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if std::mem::take(&mut state.more) {
            // hyper reads until it has to wait, and only then looks at the requests.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
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
        let mut bytes = [0; 3 * BITE];
        let mut buffer = ReadBuf::new(&mut bytes);
        let waker = waker.clone().into();
        match turns.poll_read(Pin::new(io), &mut Context::from_waker(&waker), &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()).ok(),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_whole_bite_is_looked_at_before_the_next_one() {
        let (turns, waker) = (Turns::default(), Arc::new(Wakes(AtomicUsize::new(0))));
        let (bytes, mut found) = ([1; 2 * BITE + 1], Vec::new());
        let mut io = bytes.as_slice();
        for _ in 0..6 {
            found.push(read(&turns, &mut io, &waker));
        }
        assert_eq!(found, [Some(BITE), None, Some(BITE), None, Some(1), Some(0)]);
        assert_eq!(waker.0.load(Ordering::Relaxed), 2, "woken whenever it had to wait");
    }

    #[test]
    fn nothing_is_read_until_every_request_had_its_turn() {
        let (turns, waker) = (Turns::default(), Arc::new(Wakes(AtomicUsize::new(0))));
        let (first, second) = (turns.wait(), turns.wait());
        let mut io = [1; 7].as_slice();
        assert_eq!(read(&turns, &mut io, &waker), None);
        drop(first);
        assert_eq!((read(&turns, &mut io, &waker), waker.0.load(Ordering::Relaxed)), (None, 0));
        drop(second);
        assert_eq!((waker.0.load(Ordering::Relaxed), read(&turns, &mut io, &waker)), (1, Some(7)));
    }
}
