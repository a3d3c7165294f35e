//! What the streams of one HTTP/2 connection share. Limits their unsent bytes to about [`MAX_UNSENT`].
//!
//! At the limit, streams that want to produce more bytes wait in a queue. One at a time leaves it, in order. Without the limit, a
//! thousand requests for a long list would make a thousand lists in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::receive_window::ReceiveWindow;
use crate::serve::write_watchdog::{
    Watchdog,
    waiter::{QueueState, Waiter},
};

/// Unsent bytes from which on streams queue: the last response may exceed it. As many as may wait in one mailbox.
const MAX_UNSENT: usize = 256 * 1024;

/// The unsent bytes of the streams of one connection, their queue, and their number.
pub(in crate::serve) struct Streams {
    watchdog: Watchdog,
    unsent: AtomicUsize,
    /// A counter of all bytes that were ever removed; wraps.
    removed: AtomicUsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
    queue: Mutex<VecDeque<Arc<Waiter>>>,
    queue_length: AtomicUsize,
    /// A stream was admitted and not polled since.
    has_admitted: AtomicBool,
    /// When the peer last took bytes, on the watchdog's clock.
    last_progress: AtomicU32,
    /// The watchdog's time of the last early cut (see [`Streams::claim_cut_at`]).
    cut_at: AtomicU32,
    /// Closed streams with unsent bytes, for [`UnflushedStreams`](super::unflushed_streams::UnflushedStreams). `None` once the
    /// connection is over: the streams hold an `Arc` of this, so a list of them would be a reference cycle.
    unflushed: Mutex<Option<Vec<Arc<Waiter>>>>,
    receive_window: ReceiveWindow,
    /// Bytes of request bodies that were read ahead of their handlers.
    pub(super) read_ahead: AtomicUsize,
    /// The watchdog was asked to end calls that hold the window, and has not looked yet.
    is_reported: AtomicBool,
    /// When it was asked, on its clock.
    reported_at: AtomicU32,
    /// The last write was refused, because the socket is full.
    is_write_blocked: AtomicBool,
    /// Wakes the connection for a new entry of `unflushed`, or because it may read again.
    connection_waker: Mutex<Option<Waker>>,
    /// The connection stops when its last stream has closed.
    wakes_at_last_close: AtomicBool,
}

impl Streams {
    pub(in crate::serve) fn new(watchdog: Watchdog) -> Arc<Self> {
        Arc::new(Self {
            watchdog,
            unsent: AtomicUsize::new(0),
            removed: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            queue: Mutex::default(),
            queue_length: AtomicUsize::new(0),
            has_admitted: AtomicBool::new(false),
            last_progress: AtomicU32::new(0),
            cut_at: AtomicU32::new(u32::MAX),
            unflushed: Mutex::new(Some(Vec::new())),
            receive_window: ReceiveWindow::new(),
            read_ahead: AtomicUsize::new(0),
            is_reported: AtomicBool::new(false),
            reported_at: AtomicU32::new(0),
            is_write_blocked: AtomicBool::new(false),
            connection_waker: Mutex::default(),
            wakes_at_last_close: AtomicBool::new(false),
        })
    }

    pub(in crate::serve) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    pub(super) fn open_stream(self: &Arc<Self>) -> Arc<Waiter> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Waiter::of_stream(self.clone())
    }

    pub(in crate::serve) fn receive_window(&self) -> &ReceiveWindow {
        &self.receive_window
    }

    /// Asks the watchdog to end calls if request bodies that nobody reads hold too much of the connection. Not done here, because
    /// the watchdog knows which of them has waited longest.
    ///
    /// Called after each poll of the connection, and when a stream begins to wait for its peer: a peer that has used up the window
    /// sends nothing more, so nothing polls the connection, and the watchdog may have looked before the stream waited.
    pub(in crate::serve) fn check_receive_window(self: &Arc<Self>) {
        if self.receive_window.calls_to_end() > 0 && !self.is_reported.swap(true, Ordering::Relaxed) {
            self.reported_at.store(self.watchdog.now(), Ordering::Relaxed);
            self.watchdog.end_unread_of(self.clone());
        }
    }

    /// The watchdog has looked: the next check may report again.
    pub(in crate::serve) fn end_report(&self, was_paused: bool) {
        self.is_reported.store(false, Ordering::Relaxed);
        if was_paused {
            self.wake_connection();
        }
    }

    /// When calls were reported that hold up the reading of the connection. `None`: the connection reads.
    pub(in crate::serve) fn paused_since(&self) -> Option<u32> {
        self.must_pause_reads().then(|| self.reported_at.load(Ordering::Relaxed))
    }

    /// Whether the connection must not read, because another read could use up h2's budget for small frames. Ends with the report.
    pub(super) fn must_pause_reads(&self) -> bool {
        self.is_reported.load(Ordering::Relaxed) && self.receive_window.must_pause()
    }

    /// A handler has read a DATA frame that was not the last one of its stream.
    pub(super) fn on_frame_read(&self, payload: usize) {
        if self.receive_window.on_frame_read(payload) {
            self.wake_connection();
        }
    }

    /// How many calls must end so that the others can go on.
    pub(in crate::serve) fn calls_to_end(&self) -> usize {
        self.receive_window.calls_to_end()
    }

    pub(super) fn set_write_blocked(&self, is_blocked: bool) {
        self.is_write_blocked.store(is_blocked, Ordering::Relaxed);
    }

    pub(super) fn is_write_blocked(&self) -> bool {
        self.is_write_blocked.load(Ordering::Relaxed)
    }

    fn wake_connection(&self) {
        let connection = self.connection_waker.lock().take();
        if let Some(connection) = connection {
            connection.wake();
        }
    }

    /// The task of a stream has ended. h2 may still hold bytes of the stream.
    pub(in crate::serve) fn stream_closed(&self, waiter: &Arc<Waiter>) {
        // This and `wake_at_last_close` are SeqCst: either this sees the flag, or the connection sees that the stream has closed.
        self.closed.fetch_add(1, Ordering::SeqCst);
        let is_listed = waiter.unsent() > 0
            && self.unflushed.lock().as_mut().map(|unflushed| unflushed.push(waiter.clone())).is_some();
        if is_listed || self.has_last_closed() {
            self.wake_connection();
        }
    }

    /// From now on the connection is woken when its last stream closes.
    pub(super) fn wake_at_last_close(&self) {
        self.wakes_at_last_close.store(true, Ordering::SeqCst);
    }

    /// Whether no stream is open since [`Streams::wake_at_last_close`].
    pub(super) fn has_last_closed(&self) -> bool {
        self.wakes_at_last_close.load(Ordering::SeqCst) && self.open_streams() == 0
    }

    pub(super) fn closed_streams(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn open_streams(&self) -> usize {
        // Reads `closed` first: read later, it could be larger than `opened`.
        let closed = self.closed_streams();
        self.opened.load(Ordering::Acquire).wrapping_sub(closed)
    }

    fn is_reached(&self) -> bool {
        self.unsent.load(Ordering::SeqCst) >= MAX_UNSENT
    }

    pub(in crate::serve) fn has_queue(&self) -> bool {
        self.queue_length.load(Ordering::SeqCst) > 0
    }

    /// Whether a stream that wants to produce more bytes has to queue.
    pub(super) fn must_queue(&self) -> bool {
        self.is_reached() || self.has_queue()
    }

    pub(in crate::serve) fn has_admitted(&self) -> bool {
        self.has_admitted.load(Ordering::Relaxed)
    }

    pub(in crate::serve) fn add_unsent(&self, bytes: usize) {
        self.unsent.fetch_add(bytes, Ordering::SeqCst);
        self.watchdog.add_unsent(bytes);
    }

    /// Stops counting bytes: the peer took them, or never will.
    pub(in crate::serve) fn remove_unsent(&self, bytes: usize) {
        self.unsent.fetch_sub(bytes, Ordering::SeqCst);
        self.removed.fetch_add(bytes, Ordering::Relaxed);
        self.watchdog.remove_unsent(bytes);
        self.admit_next();
    }

    pub(super) fn removed(&self) -> usize {
        self.removed.load(Ordering::Relaxed)
    }

    pub(in crate::serve) fn note_progress(&self) {
        self.last_progress.store(self.watchdog.now(), Ordering::Relaxed);
    }

    /// When the peer last took bytes, on the watchdog's clock.
    pub(in crate::serve) fn last_progress(&self) -> u32 {
        self.last_progress.load(Ordering::Relaxed)
    }

    /// Ready when the stream may make more bytes; queues the stream otherwise.
    pub(in crate::serve) fn poll_capacity(self: &Arc<Self>, waiter: &Arc<Waiter>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.must_queue() {
            return Poll::Ready(());
        }
        match waiter.enqueue(cx.waker()) {
            QueueState::Admitted => return Poll::Ready(()),
            QueueState::Queued => {}
            QueueState::NotQueued => {
                let mut queue = self.queue.lock();
                queue.push_back(waiter.clone());
                self.queue_length.store(queue.len(), Ordering::SeqCst);
                drop(queue);
                // The watchdog also cuts queued streams: a peer that takes nothing must not keep requests in memory.
                waiter.start_waiting(&self.watchdog, true, cx.waker());
                self.check_receive_window();
            }
        }
        // Checks again: if bytes were removed after `must_queue`, nothing else would admit this stream.
        self.admit_next();
        Poll::Pending
    }

    /// The admitted stream was polled, or has ended.
    pub(in crate::serve) fn end_admission(&self) {
        self.has_admitted.store(false, Ordering::SeqCst);
        self.admit_next();
    }

    /// A queued stream has ended.
    pub(in crate::serve) fn dequeue(&self, waiter: &Arc<Waiter>) {
        let mut queue = self.queue.lock();
        queue.retain(|other| !Arc::ptr_eq(other, waiter));
        self.queue_length.store(queue.len(), Ordering::SeqCst);
    }

    /// Returns true once for each tick: one tick cuts at most one blocking stream of this connection.
    pub(in crate::serve) fn claim_cut_at(&self, now: u32) -> bool {
        self.cut_at.swap(now, Ordering::Relaxed) != now
    }

    /// Admits the first stream of the queue if there is capacity: one at a time, because only polling shows how many bytes it
    /// produces.
    fn admit_next(&self) {
        while self.has_queue() && !self.is_reached() && !self.has_admitted.swap(true, Ordering::SeqCst) {
            let first = {
                let mut queue = self.queue.lock();
                let first = queue.pop_front();
                self.queue_length.store(queue.len(), Ordering::SeqCst);
                first
            };
            if let Some(waker) = first.and_then(|waiter| waiter.admit()) {
                return waker.wake();
            }
            // The queue was empty, or its first stream has just ended. Another stream may have been queued since: check again.
            self.has_admitted.store(false, Ordering::SeqCst);
        }
    }

    /// Moves the closed streams with unsent bytes into `streams`. `waker` is woken when another such stream closes.
    pub(super) fn take_unflushed(&self, streams: &mut Vec<Arc<Waiter>>, waker: &Waker) {
        self.connection_waker.lock().get_or_insert_with(|| waker.clone());
        if let Some(unflushed) = &mut *self.unflushed.lock() {
            streams.append(unflushed);
        }
    }

    /// The connection is over: keeps no more closed streams, and returns those that it kept.
    pub(super) fn end_unflushed(&self) -> Vec<Arc<Waiter>> {
        self.unflushed.lock().take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::{
        budget::Budget,
        drain::Drain,
        serve::http2::frame_headers::{DATA, FrameHeader},
        telemetry::Metrics,
    };

    /// The peer has used up the window and sends nothing more, so the connection is not polled again.
    #[tokio::test(start_paused = true)]
    async fn a_call_that_begins_to_wait_after_the_connection_was_last_polled_is_refused_too() {
        let watchdog = Watchdog::new(Duration::from_secs(60), Budget::new(0), Metrics::new());
        let drain = Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let streams = Streams::new(watchdog);
        let (waiter, cx) = (streams.open_stream(), Context::from_waker(Waker::noop()));
        waiter.request.set_open();
        waiter.request.set_full(true);
        let data = FrameHeader { kind: DATA, flags: 0, length: 65_535, stream: 1, increment: 0, padding: 0 };
        streams.receive_window().on_received(&data);
        streams.check_receive_window();
        sleep(Duration::from_secs(1)).await;
        waiter.on_frame();
        waiter.on_pending(&cx);
        sleep(Duration::from_secs(2)).await;
        assert!(waiter.request.is_refused());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_in_the_queue_is_not_refused() {
        let watchdog = Watchdog::new(Duration::from_secs(60), Budget::new(0), Metrics::new());
        let drain = Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let streams = Streams::new(watchdog);
        let (waiter, mut cx) = (streams.open_stream(), Context::from_waker(Waker::noop()));
        waiter.request.set_open();
        waiter.request.set_full(true);
        streams.add_unsent(MAX_UNSENT);
        assert!(streams.poll_capacity(&waiter, &mut cx).is_pending());
        let data = FrameHeader { kind: DATA, flags: 0, length: 65_535, stream: 1, increment: 0, padding: 0 };
        streams.receive_window().on_received(&data);
        streams.check_receive_window();
        sleep(Duration::from_secs(5)).await;
        assert!(!waiter.request.is_refused());
    }

    #[tokio::test(start_paused = true)]
    async fn small_frames_that_can_never_be_read_stop_the_reading_once() {
        let watchdog = Watchdog::new(Duration::from_secs(60), Budget::new(0), Metrics::new());
        let drain = Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let streams = Streams::new(watchdog);
        let data = FrameHeader { kind: DATA, flags: 0, length: 1, stream: 1, increment: 0, padding: 0 };
        for _ in 0..1_100 {
            streams.receive_window().on_received(&data);
        }
        streams.check_receive_window();
        assert!(streams.must_pause_reads());
        sleep(Duration::from_secs(5)).await;
        streams.check_receive_window();
        assert!(!streams.must_pause_reads() && streams.receive_window().small_frames() == 0);
    }
}
