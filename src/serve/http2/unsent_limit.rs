//! Limits the unsent bytes of one HTTP/2 connection to [`ROOM`].
//!
//! Past that its other streams queue, and are polled one at a time, first come, first served. Without it a thousand requests for a
//! long list would make a thousand lists in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::response_body::PIECE;
use crate::serve::write_watchdog::{
    Watchdog,
    waiter::{QueueState, Waiter},
};

/// Bytes of responses that one connection keeps for its peer and shares with nobody. As much as one mailbox may hold.
pub(in crate::serve) const ROOM: usize = 256 * 1024;

/// What the streams of one connection share.
pub(in crate::serve) struct UnsentLimit {
    watchdog: Watchdog,
    /// Bytes that wait for the peer.
    owned: AtomicUsize,
    /// All bytes that the peer took or never will.
    taken: AtomicUsize,
    /// StreamTasks that were opened, and those that are over.
    opened: AtomicUsize,
    closed: AtomicUsize,
    queue: Mutex<VecDeque<Arc<Waiter>>>,
    queued: AtomicUsize,
    /// The first of the queue was let through and not polled yet.
    admitted: AtomicBool,
    /// When the peer last took something, by the watchdog's clock.
    progressed_at: AtomicU32,
    /// When a stream was last cut for those in the queue, by the watchdog's clock.
    blamed: AtomicU32,
    /// StreamTasks whose task is over before the peer took all; none once the connection is over, because they know it.
    leftover: Mutex<Option<Vec<Arc<Waiter>>>>,
    /// The connection, to be told of such streams.
    connection: Mutex<Option<Waker>>,
}

impl UnsentLimit {
    pub(in crate::serve) fn new(watchdog: Watchdog) -> Arc<Self> {
        Arc::new(Self {
            watchdog,
            owned: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            admitted: AtomicBool::new(false),
            progressed_at: AtomicU32::new(0),
            blamed: AtomicU32::new(u32::MAX),
            leftover: Mutex::new(Some(Vec::new())),
            connection: Mutex::default(),
        })
    }

    pub(in crate::serve) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// A stream begins.
    pub(in crate::serve) fn open(self: &Arc<Self>) -> Arc<Waiter> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Waiter::of_stream(self.clone())
    }

    /// A stream is over.
    pub(in crate::serve) fn closed(&self, waiter: &Arc<Waiter>) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        if waiter.owned() == 0 {
            return;
        }
        let listed = self.leftover.lock().as_mut().map(|leftover| leftover.push(waiter.clone()));
        if let Some(connection) = listed.and_then(|()| self.connection.lock().take()) {
            connection.wake();
        }
    }

    /// How many streams were opened, and how many are open.
    pub(in crate::serve) fn streams(&self) -> (usize, usize) {
        let closed = self.closed.load(Ordering::Acquire);
        let opened = self.opened.load(Ordering::Acquire);
        (opened, opened.wrapping_sub(closed))
    }

    /// It owes its peer as much as it may.
    pub(in crate::serve) fn is_full(&self) -> bool {
        self.owned.load(Ordering::SeqCst) >= ROOM
    }

    /// StreamTasks wait for room.
    pub(in crate::serve) fn is_crowded(&self) -> bool {
        self.queued.load(Ordering::SeqCst) > 0
    }

    pub(in crate::serve) fn has_admitted(&self) -> bool {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Counts bytes that wait for the peer.
    pub(in crate::serve) fn charge(&self, bytes: usize) {
        self.owned.fetch_add(bytes, Ordering::SeqCst);
        self.watchdog.charge(bytes);
    }

    /// The peer took them.
    pub(in crate::serve) fn took(&self, bytes: usize) {
        self.progressed_at.store(self.watchdog.now(), Ordering::Relaxed);
        self.release(bytes);
    }

    /// When the peer last took something, by the watchdog's clock.
    pub(in crate::serve) fn progressed_at(&self) -> u32 {
        self.progressed_at.load(Ordering::Relaxed)
    }

    /// The peer took them, or never will.
    pub(in crate::serve) fn release(&self, bytes: usize) {
        self.owned.fetch_sub(bytes, Ordering::SeqCst);
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.watchdog.release(bytes);
        self.admit();
    }

    /// Ready when there is room and nobody came earlier.
    pub(in crate::serve) fn poll_room(&self, waiter: &Arc<Waiter>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_crowded() && !self.is_full() {
            return Poll::Ready(());
        }
        match waiter.take_turn(cx.waker()) {
            QueueState::Admitted => return Poll::Ready(()),
            QueueState::Queued => {}
            QueueState::None => {
                let mut queue = self.queue.lock();
                queue.push_back(waiter.clone());
                self.queued.store(queue.len(), Ordering::SeqCst);
                drop(queue);
                // A peer that takes nothing at all does not get its further requests answered either.
                waiter.wait(&self.watchdog, true, cx.waker());
            }
        }
        // There may be room since.
        self.admit();
        Poll::Pending
    }

    /// The stream that was let through had its turn.
    pub(in crate::serve) fn passed(&self) {
        self.admitted.store(false, Ordering::SeqCst);
        self.admit();
    }

    /// A stream that stands in the queue is over.
    pub(in crate::serve) fn forget(&self, waiter: &Arc<Waiter>) {
        let mut queue = self.queue.lock();
        queue.retain(|other| !Arc::ptr_eq(other, waiter));
        self.queued.store(queue.len(), Ordering::SeqCst);
    }

    /// Whether nobody else of this connection was blamed at this time.
    pub(in crate::serve) fn blame(&self, now: u32) -> bool {
        self.blamed.swap(now, Ordering::Relaxed) != now
    }

    /// Lets the first of the queue through, one at a time: what it then takes of the room is not known before.
    fn admit(&self) {
        while self.is_crowded() && !self.is_full() && !self.admitted.swap(true, Ordering::SeqCst) {
            let first = {
                let mut queue = self.queue.lock();
                let first = queue.pop_front();
                self.queued.store(queue.len(), Ordering::SeqCst);
                first
            };
            if let Some(waker) = first.and_then(|waiter| waiter.admit()) {
                return waker.wake();
            }
            // It has just left, and another one may have come meanwhile: look again.
            self.admitted.store(false, Ordering::SeqCst);
        }
    }
}

/// StreamTasks whose task is over, which it is when the peer has given room for all of it. A peer may take room back, and then
/// nobody but the connection can end them.
pub(in crate::serve) struct UnflushedStreams {
    account: Arc<UnsentLimit>,
    waiters: Vec<Arc<Waiter>>,
    taken: usize,
}

impl UnflushedStreams {
    pub(in crate::serve) fn of(account: Arc<UnsentLimit>) -> Self {
        Self { account, waiters: Vec::new(), taken: 0 }
    }

    /// The connection was polled, and has written what it could. Says whether its peer has been given up for one of them.
    pub(in crate::serve) fn is_cut(&mut self, waker: &Waker) -> bool {
        let account = &self.account;
        account.connection.lock().get_or_insert_with(|| waker.clone());
        if let Some(leftover) = &mut *account.leftover.lock() {
            self.waiters.append(leftover);
        }
        if self.waiters.is_empty() {
            return false;
        }
        self.waiters.retain(|waiter| {
            let waits = waiter.owned() > 0;
            if !waits {
                waiter.rest();
            }
            waits
        });
        let taken = account.taken.load(Ordering::Relaxed);
        let reads = taken.wrapping_sub(self.taken) >= PIECE;
        if reads || self.waiters.is_empty() {
            self.taken = taken;
        }
        self.waiters.iter().for_each(|waiter| waiter.wait(&account.watchdog, reads, waker));
        self.waiters.iter().any(|waiter| waiter.is_cut())
    }
}

impl Drop for UnflushedStreams {
    fn drop(&mut self) {
        let leftover = self.account.leftover.lock().take();
        leftover.iter().flatten().chain(&self.waiters).for_each(|waiter| waiter.rest());
    }
}
