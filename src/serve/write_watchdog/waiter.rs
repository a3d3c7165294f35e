//! The transport state of one socket or HTTP/2 stream: its unsent bytes, its place in the queue, and whether it waits for its peer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::{Watchdog, request_state::RequestState};
use crate::serve::http2::Streams;

/// A socket or an HTTP/2 stream. While it waits, the watchdog's list holds it, at most once.
pub(in crate::serve) struct Waiter {
    /// What a stream shares with the other streams of its connection; `None` for a socket.
    streams: Option<Arc<Streams>>,
    /// `None` unless it waits, is listed or is queued. Boxed, because this is `None` for nearly all streams nearly all the
    /// time.
    wait: Mutex<Option<Box<Wait>>>,
    /// Bytes that only this waiter keeps in memory and its peer has not taken.
    unsent: AtomicU32,
    cut: AtomicBool,
    /// What the body of a stream has done; see the flags below.
    body: AtomicU8,
    pub(in crate::serve) request: RequestState,
}

#[derive(Default)]
struct Wait {
    waker: Option<Waker>,
    /// When it began to wait, on the watchdog's clock.
    since: u32,
    is_waiting: bool,
    /// It is in the watchdog's list until its next check, even if it no longer waits.
    is_listed: bool,
    queue: QueueState,
}

/// Whether a stream is in the queue of its connection (see [`Streams`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::serve) enum QueueState {
    #[default]
    NotQueued,
    Queued,
    /// Has left the queue: its task may be polled once, then the next stream is admitted.
    Admitted,
}

impl Waiter {
    pub(in crate::serve) fn of_stream(streams: Arc<Streams>) -> Arc<Self> {
        Arc::new(Self::new(Some(streams)))
    }

    pub(in crate::serve) fn of_socket() -> Arc<Self> {
        Arc::new(Self::new(None))
    }

    fn new(streams: Option<Arc<Streams>>) -> Self {
        let (cut, body, request) = (AtomicBool::new(false), AtomicU8::new(0), RequestState::new());
        Self { streams, wait: Mutex::default(), unsent: AtomicU32::new(0), cut, body, request }
    }

    /// Waits for the peer. A wait that has begun keeps its start time, unless `restart` is true.
    pub(in crate::serve) fn start_waiting(self: &Arc<Self>, watchdog: &Watchdog, restart: bool, waker: &Waker) {
        let (is_new, since) = self.update(|wait| {
            if restart || !wait.is_waiting {
                (wait.is_waiting, wait.since) = (true, watchdog.now());
            }
            wait.set_waker(waker);
            (!std::mem::replace(&mut wait.is_listed, true), wait.since)
        });
        if is_new {
            watchdog.add(self.clone(), since);
        }
    }

    /// The peer has taken what this waited for.
    pub(in crate::serve) fn stop_waiting(&self) {
        self.update_existing(|wait| wait.is_waiting = false);
    }

    /// Changes the wait, and makes one first if there is none.
    fn update<T>(&self, change: impl FnOnce(&mut Wait) -> T) -> T {
        let mut wait = self.wait.lock();
        let result = change(wait.get_or_insert_default());
        wait.take_if(|wait| wait.is_over());
        result
    }

    /// Changes the wait if there is one.
    fn update_existing<T>(&self, change: impl FnOnce(&mut Wait) -> T) -> Option<T> {
        let mut wait = self.wait.lock();
        let result = wait.as_mut().map(|wait| change(wait));
        wait.take_if(|wait| wait.is_over());
        result
    }

    /// Whether the watchdog has cut this socket or stream. Its task must then end.
    pub(in crate::serve) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(super) fn is_stream(&self) -> bool {
        self.streams.is_some()
    }

    /// When the wait began. `None`: it does not wait, and the caller must drop it from the list.
    pub(super) fn waiting_since_or_remove(&self) -> Option<u32> {
        self.update_existing(|wait| {
            wait.is_listed = wait.is_waiting;
            wait.is_waiting.then(|| self.since(wait))
        })?
    }

    /// When the wait began, if it waits.
    pub(in crate::serve) fn waiting_since(&self) -> Option<u32> {
        self.update_existing(|wait| wait.is_waiting.then(|| self.since(wait))).flatten()
    }

    /// When its peer began to owe it a read. `None` if it does not wait, or waits for other streams in the queue.
    pub(super) fn unread_since(&self) -> Option<u32> {
        let wait = self.wait.lock();
        wait.as_ref().filter(|wait| wait.is_waiting && wait.queue == QueueState::NotQueued).map(|wait| wait.since)
    }

    /// A queued stream waits for the whole connection, so every byte that the peer takes on it starts the time anew.
    fn since(&self, wait: &Wait) -> u32 {
        match &self.streams {
            Some(streams) if wait.queue == QueueState::Queued => wait.since.max(streams.last_progress()),
            _ => wait.since,
        }
    }

    /// Marks this as cut and returns the waker of its task. `None` if it was cut before or has no waker.
    pub(in crate::serve) fn cut(&self) -> Option<Waker> {
        if self.cut.swap(true, Ordering::AcqRel) {
            return None;
        }
        let waker = self.update_existing(|wait| {
            wait.is_waiting = false;
            wait.waker.take()
        });
        waker.flatten()
    }

    /// Whether its unread request body may hold a part of the connection's receive window.
    pub(super) fn holds_window_of(&self, streams: &Arc<Streams>) -> bool {
        self.request.is_full() && self.streams.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, streams))
    }

    /// The rest of the request must not be read. Returns the waker of the stream's task.
    pub(super) fn refuse_request(&self) -> Option<Waker> {
        self.request.refuse();
        self.update_existing(|wait| wait.waker.clone()).flatten()
    }

    pub(in crate::serve) fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Relaxed) as usize
    }

    /// Whether other streams of its connection are queued behind the unsent bytes of this stream.
    pub(super) fn blocks_others(&self) -> bool {
        self.streams.as_ref().is_some_and(|streams| streams.has_queue()) && self.unsent() > 0
    }

    /// True once for each time and connection, and false for a socket.
    pub(super) fn claim_cut_at(&self, now: u32) -> bool {
        self.streams.as_ref().is_some_and(|streams| streams.claim_cut_at(now))
    }

    /// Counts bytes that only this stream keeps in memory.
    pub(in crate::serve) fn add_unsent(&self, bytes: u32) {
        self.unsent.fetch_add(bytes, Ordering::Relaxed);
        if let Some(streams) = &self.streams {
            streams.add_unsent(bytes as usize);
        }
    }

    /// Stops counting bytes: the peer has taken them or, if the stream was cut, never will.
    pub(in crate::serve) fn remove_unsent(&self, bytes: u32) {
        self.unsent.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(streams) = &self.streams {
            if !self.is_cut() {
                streams.note_progress();
            }
            streams.remove_unsent(bytes as usize);
        }
    }

    /// Sets the unsent bytes of a socket, and returns how many there were before.
    pub(in crate::serve) fn set_unsent(&self, bytes: u32) -> u32 {
        self.unsent.swap(bytes, Ordering::Relaxed)
    }

    /// Ready when the stream's connection may produce more unsent bytes; queues the stream otherwise.
    pub(in crate::serve) fn poll_capacity(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.streams.as_ref().map_or(Poll::Ready(()), |streams| streams.poll_capacity(self, cx))
    }

    /// Queues the stream unless it was admitted, and returns its state before.
    pub(in crate::serve) fn enqueue(&self, waker: &Waker) -> QueueState {
        self.update(|wait| {
            let before = wait.queue;
            if before != QueueState::Admitted {
                wait.queue = QueueState::Queued;
                wait.set_waker(waker);
            }
            before
        })
    }

    /// Admits the stream, which was taken from the queue. Returns the waker of its task.
    pub(in crate::serve) fn admit(&self) -> Option<Waker> {
        self.update(|wait| {
            (wait.queue, wait.is_waiting) = (QueueState::Admitted, false);
            wait.waker.clone()
        })
    }

    /// The task of the stream was polled. If it was admitted, the next stream may be admitted now.
    fn end_admission(&self) {
        let was_admitted = self.update_existing(|wait| {
            let was_admitted = wait.queue == QueueState::Admitted;
            if was_admitted {
                wait.queue = QueueState::NotQueued;
            }
            was_admitted
        });
        if let Some(streams) = self.streams.as_ref().filter(|_| was_admitted == Some(true)) {
            streams.end_admission();
        }
    }

    /// The task of the stream has ended.
    pub(in crate::serve) fn close(self: &Arc<Self>) {
        let queue = self.update_existing(|wait| {
            (wait.is_waiting, wait.waker) = (false, None);
            std::mem::take(&mut wait.queue)
        });
        self.request.set_read();
        if let Some(streams) = &self.streams {
            match queue.unwrap_or_default() {
                QueueState::NotQueued => {}
                QueueState::Queued => streams.dequeue(self),
                QueueState::Admitted => streams.end_admission(),
            }
            streams.stream_closed(self);
        }
    }

    /// hyper polls for the next frame, so h2 had capacity for all earlier frames.
    pub(in crate::serve) fn on_body_poll(&self) {
        self.body.fetch_and(!(UNACKNOWLEDGED | NEW_FRAME), Ordering::Relaxed);
    }

    /// The body gives hyper a frame.
    pub(in crate::serve) fn on_frame(&self) {
        self.body.fetch_or(UNACKNOWLEDGED | NEW_FRAME, Ordering::Relaxed);
    }

    /// The task of the stream was polled and is pending. It waits for its peer if hyper has not polled past the last frame.
    pub(in crate::serve) fn on_pending(self: &Arc<Self>, cx: &Context<'_>) {
        let Some(streams) = &self.streams else { return };
        let body = self.body.load(Ordering::Relaxed);
        if body & UNACKNOWLEDGED != 0 {
            self.start_waiting(streams.watchdog(), body & NEW_FRAME != 0, cx.waker());
            self.body.store(UNACKNOWLEDGED | WAITING, Ordering::Relaxed);
            streams.check_receive_window();
        } else if body & WAITING != 0 {
            self.stop_waiting();
            self.body.store(0, Ordering::Relaxed);
        }
        if streams.has_admitted() {
            self.end_admission();
        }
    }
}

impl Wait {
    fn is_over(&self) -> bool {
        !self.is_waiting && !self.is_listed && self.queue == QueueState::NotQueued
    }

    fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|ours| ours.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// The body gave a frame, and hyper has not polled for the next one since.
const UNACKNOWLEDGED: u8 = 1;
/// The unacknowledged frame is new: the body gave it in the current poll of the stream's task.
const NEW_FRAME: u8 = 2;
/// The stream waits for its peer.
const WAITING: u8 = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::{budget::Budget, drain::Drain, telemetry::Metrics};

    #[tokio::test(start_paused = true)]
    async fn a_stream_stops_waiting_when_its_peer_reads_the_last_frames_within_one_poll() {
        let watchdog = Watchdog::new(Duration::from_secs(1), Budget::new(0), Metrics::new());
        let drain = Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let (waiter, cx) = (Waiter::of_stream(Streams::new(watchdog)), Context::from_waker(Waker::noop()));
        // The peer has no window for this frame.
        waiter.on_frame();
        waiter.on_pending(&cx);
        sleep(Duration::from_millis(500)).await;
        // The peer opens its window: hyper polls past both frames.
        waiter.on_frame();
        waiter.on_body_poll();
        waiter.on_pending(&cx);
        sleep(Duration::from_secs(5)).await;
        assert!(!waiter.is_cut());
        // The peer does not take the next frame.
        waiter.on_frame();
        waiter.on_pending(&cx);
        sleep(Duration::from_secs(5)).await;
        assert!(waiter.is_cut());
    }
}
