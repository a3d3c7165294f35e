//! One device's place in the hub: its mailbox behind a lock, with the way to wake and to cut the stream attached to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Waker,
};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::{
    mailbox::{Attachment, Delivery, Mailbox, Next, Ticked},
    pace::Millis,
};
use crate::{
    error::Error,
    model::{Address, EndReason, Message, Outcome, Start},
};

/// Cuts a stream whose peer does not read by aborting its task: nobody polls that any more, so it would not end itself.
pub type Breaker = AbortHandle;

/// What all mailboxes come to together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) streams: AtomicUsize,
    pub(super) mailboxes: AtomicUsize,
    pub(super) memory: AtomicUsize,
}

pub(super) struct Slot {
    pub(super) address: Address,
    /// As the mailbox has it; readable without the lock.
    live: AtomicBool,
    /// Set, under the lock, when the registry lets go of this slot: nothing may enter it any more. It stands here because there is
    /// room beside `live`.
    gone: AtomicBool,
    state: Mutex<State>,
}

struct State {
    mailbox: Mailbox,
    waker: Option<Waker>,
    breaker: Option<Breaker>,
}

/// The slot was forgotten between finding and locking it; look again.
#[derive(Debug)]
pub(super) struct Gone;

/// The stream that has to make room for another one: wake it so that it says its last word, cut it if it does not.
#[derive(Default)]
pub(super) struct Leaving {
    waker: Option<Waker>,
    pub(super) breaker: Option<Breaker>,
}

impl Leaving {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Slot {
    pub(super) fn new(address: Address, epoch: u64, now: Millis) -> Self {
        let state = State { mailbox: Mailbox::new(epoch, now), waker: None, breaker: None };
        Self { address, live: AtomicBool::new(false), gone: AtomicBool::new(false), state: Mutex::new(state) }
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// See [`Mailbox::push`].
    pub(super) fn push(
        &self,
        totals: &Totals,
        message: Arc<Message>,
        ttl_ms: u64,
        now: Millis,
    ) -> Result<Result<Outcome, Error>, Gone> {
        let (pushed, waker) = self.update(totals, |state| {
            if self.gone.load(Ordering::Relaxed) {
                return (Err(Gone), None);
            }
            let pushed = state.mailbox.push(message, ttl_ms, now);
            let waker = if pushed.is_ok() { state.waker.take() } else { None };
            (Ok(pushed), waker)
        });
        wake(waker);
        pushed
    }

    /// See [`Mailbox::attach`]; also gives the stream that was attached before.
    pub(super) fn attach(
        &self,
        totals: &Totals,
        start: Start,
        heartbeat_ms: u32,
        breaker: Option<Breaker>,
        now: Millis,
    ) -> Result<Result<(Attachment, Leaving), Error>, Gone> {
        let mut attached = self.update(totals, |state| {
            if self.gone.load(Ordering::Relaxed) {
                return Err(Gone);
            }
            Ok(state.mailbox.attach(start, heartbeat_ms, now).map(|attachment| {
                let before = std::mem::replace(&mut state.breaker, breaker);
                (attachment, Leaving { waker: state.waker.take(), breaker: before })
            }))
        });
        if let Ok(Ok((_, leaving))) = &mut attached {
            leaving.wake();
        }
        attached
    }

    /// See [`Mailbox::next`]; keeps the waker when there is nothing yet.
    pub(super) fn next(&self, totals: &Totals, generation: u32, page: u32, waker: &Waker, now: Millis) -> Next {
        self.update(totals, |state| {
            let next = state.mailbox.next(generation, page, now);
            if next == Next::Wait && !state.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                state.waker = Some(waker.clone());
            }
            next
        })
    }

    /// See [`Mailbox::more`].
    pub(super) fn more(&self, totals: &Totals, generation: u32, page: u32, now: Millis) -> Option<Delivery> {
        self.update(totals, |state| state.mailbox.more(generation, page, now))
    }

    /// See [`Mailbox::end`].
    pub(super) fn end(&self, totals: &Totals, reason: EndReason, now: Millis) {
        let waker = self.update(totals, |state| {
            let ended = state.mailbox.end(reason, now);
            if ended { state.waker.take() } else { None }
        });
        wake(waker);
    }

    /// See [`Mailbox::leave`].
    pub(super) fn detach(&self, totals: &Totals, generation: u32, page: u32, now: Millis) -> Option<EndReason> {
        self.update(totals, |state| {
            let reason = state.mailbox.leave(generation, page, now);
            if !state.mailbox.has_stream() {
                (state.waker, state.breaker) = (None, None);
            }
            reason
        })
    }

    /// See [`Mailbox::tick`]; also gives the stream that was cut for not reading. A slot to forget lets nothing in any more.
    pub(super) fn tick(&self, totals: &Totals, stall_ms: u64, window_ms: u64, now: Millis) -> (Ticked, Leaving) {
        let (ticked, mut leaving) = self.update(totals, |state| {
            let ticked = state.mailbox.tick(stall_ms, window_ms, now);
            if ticked.forget {
                self.gone.store(true, Ordering::Relaxed);
            }
            let waker = if ticked.wake { state.waker.take() } else { None };
            let breaker = if ticked.stalled { state.breaker.take() } else { None };
            (ticked, Leaving { waker, breaker })
        });
        leaving.wake();
        (ticked, leaving)
    }

    /// Changes the state under its lock and keeps the totals true.
    fn update<T>(&self, totals: &Totals, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let memory = state.mailbox.memory();
        let result = change(&mut state);
        let live = state.mailbox.is_live();
        if self.live.load(Ordering::Relaxed) != live {
            self.live.store(live, Ordering::Release);
            // Wrapping, so that one less is added too.
            totals.streams.fetch_add(if live { 1 } else { usize::MAX }, Ordering::Relaxed);
        }
        // Wrapping, so that a smaller log subtracts.
        let delta = state.mailbox.memory().wrapping_sub(memory);
        if delta != 0 {
            totals.memory.fetch_add(delta, Ordering::Relaxed);
        }
        result
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
