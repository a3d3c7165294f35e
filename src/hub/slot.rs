//! One device's place in the hub: its mailbox behind a lock, with the waker of the stream attached to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Waker,
};

use parking_lot::Mutex;

use super::{
    Core,
    deadlines::{DeadlineKind, Tick},
    liveness::Millis,
    mailbox::{Attachment, Checked, Delivery, Mailbox, Next},
    parcel::Parcel,
    schedule::Schedule,
    user_devices::Purpose,
};
use crate::{
    error::Error,
    model::{Address, EndReason, Outcome, Start},
};

/// What all mailboxes come to together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) streams: AtomicUsize,
    pub(super) mailboxes: AtomicUsize,
    /// Bytes of memory that exist because somebody asked to hold messages.
    pub(super) held: AtomicUsize,
}

pub(super) struct Slot {
    pub(super) address: Address,
    /// As the mailbox has it; readable without the lock.
    live: AtomicBool,
    /// The mailbox only holds: no stream was ever attached. Readable without the lock, too.
    only_holds: AtomicBool,
    /// Set, under the lock, when the registry lets go of this slot: nothing may enter it any more. It stands here because there is
    /// room beside `live`.
    gone: AtomicBool,
    /// When it was made.
    pub(super) made: Tick,
    state: Mutex<State>,
}

struct State {
    mailbox: Mailbox,
    waker: Option<Waker>,
    schedule: Schedule,
}

/// The slot was forgotten between finding and locking it; look again.
#[derive(Debug)]
pub(super) struct Gone;

impl Slot {
    /// One that is made for a stream is not taken for one that only holds, though the stream is not attached yet.
    pub(super) fn new(address: Address, mailbox: Mailbox, purpose: Purpose, now: Millis) -> Self {
        let state = State { mailbox, waker: None, schedule: Schedule::default() };
        Self {
            address,
            live: AtomicBool::new(false),
            only_holds: AtomicBool::new(purpose == Purpose::Hold),
            gone: AtomicBool::new(false),
            made: Tick::reached(now),
            state: Mutex::new(state),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    pub(super) fn only_holds(&self) -> bool {
        self.only_holds.load(Ordering::Relaxed)
    }

    /// See [`Mailbox::live_page`].
    pub(super) fn live_page(&self) -> Option<(u64, u32)> {
        self.state.lock().mailbox.live_page()
    }

    /// See [`Mailbox::push`].
    pub(super) fn push(
        self: &Arc<Self>,
        core: &Core,
        parcel: Arc<Parcel>,
        ttl_ms: u64,
        now: Millis,
    ) -> Result<Result<Outcome, Error>, Gone> {
        self.change(core, now, |mailbox| mailbox.push(parcel, ttl_ms, now))
    }

    /// See [`Mailbox::attach`]; the stream that was attached before is woken, so that it ends.
    pub(super) fn attach(
        self: &Arc<Self>,
        core: &Core,
        start: Start,
        heartbeat_ms: u32,
        now: Millis,
    ) -> Result<Result<Attachment, Error>, Gone> {
        self.change(core, now, |mailbox| mailbox.attach(start, heartbeat_ms, now))
    }

    /// Changes a mailbox that is still in the registry, and wakes its stream if that was allowed.
    fn change<T>(
        self: &Arc<Self>,
        core: &Core,
        now: Millis,
        change: impl FnOnce(&mut Mailbox) -> Result<T, Error>,
    ) -> Result<Result<T, Error>, Gone> {
        let (result, waker) = self.update(core, now, |state| {
            if self.gone.load(Ordering::Relaxed) {
                return (Err(Gone), None);
            }
            let changed = change(&mut state.mailbox);
            let waker = if changed.is_ok() { state.waker.take() } else { None };
            (Ok(changed), waker)
        });
        wake(waker);
        result
    }

    /// See [`Mailbox::next`]; keeps the waker when there is nothing yet.
    pub(super) fn next(
        self: &Arc<Self>,
        core: &Core,
        (generation, page): (u32, u32),
        waker: &Waker,
        now: Millis,
    ) -> Next {
        self.update(core, now, |state| {
            let next = state.mailbox.next(generation, page, now);
            if next == Next::Wait && !state.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
                state.waker = Some(waker.clone());
            }
            next
        })
    }

    /// See [`Mailbox::more`].
    pub(super) fn more(self: &Arc<Self>, core: &Core, (generation, page): (u32, u32), now: Millis) -> Option<Delivery> {
        self.update(core, now, |state| state.mailbox.more(generation, page, now))
    }

    /// See [`Mailbox::end`].
    pub(super) fn end(self: &Arc<Self>, core: &Core, reason: EndReason, now: Millis) {
        let waker = self.update(core, now, |state| {
            let ended = state.mailbox.end(reason);
            if ended { state.waker.take() } else { None }
        });
        wake(waker);
    }

    /// See [`Mailbox::leave`].
    pub(super) fn detach(
        self: &Arc<Self>,
        core: &Core,
        (generation, page): (u32, u32),
        now: Millis,
    ) -> Option<EndReason> {
        self.update(core, now, |state| {
            let reason = state.mailbox.leave(generation, page, now);
            if !state.mailbox.has_stream() {
                state.waker = None;
            }
            reason
        })
    }

    /// See [`Mailbox::check`]. `tick` is the entry of the buckets that brought it here; nothing happens when it does not count any
    /// more. A slot to forget lets nothing in.
    pub(super) fn check(self: &Arc<Self>, core: &Core, kind: DeadlineKind, tick: Tick, now: Millis) -> Checked {
        let (checked, waker) = self.update(core, now, |state| {
            if !state.schedule.take(kind, tick) {
                return (Checked::default(), None);
            }
            let checked = state.mailbox.check(core.window_ms(), now);
            if checked.forget {
                self.gone.store(true, Ordering::Relaxed);
            }
            let waker = if checked.wake { state.waker.take() } else { None };
            (checked, waker)
        });
        wake(waker);
        checked
    }

    /// See [`Mailbox::evict_oldest`] and [`Mailbox::drop_held`]. `tick` is as in [`Slot::check`]. Says how many messages went.
    pub(super) fn evict(self: &Arc<Self>, core: &Core, kind: DeadlineKind, tick: Tick, now: Millis) -> usize {
        self.update(core, now, |state| match kind {
            _ if !state.schedule.take(kind, tick) => 0,
            DeadlineKind::Held => state.mailbox.drop_held(now),
            DeadlineKind::Replay | DeadlineKind::Stream => usize::from(state.mailbox.evict_oldest()),
        })
    }

    /// The registry has let go of this slot: nothing enters it any more, and what it held is gone. A stream that came in the same
    /// moment ends without a word, so that its client comes back. Says how many messages went.
    pub(super) fn close(self: &Arc<Self>, core: &Core, now: Millis) -> usize {
        let (dropped, waker) = self.update(core, now, |state| {
            self.gone.store(true, Ordering::Relaxed);
            state.mailbox.release(now);
            (state.mailbox.drop_held(now), state.waker.take())
        });
        wake(waker);
        dropped
    }

    /// Changes the state under its lock, and tells everybody who has to know: the totals, the buckets, the registry's index of
    /// live devices, and those who watch. It is the only place that does, and takes their locks after its own.
    fn update<T>(self: &Arc<Self>, core: &Core, now: Millis, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let before = self.snapshot(&state.mailbox);
        let result = change(&mut state);
        let after = self.snapshot(&state.mailbox);
        let gone = self.gone.load(Ordering::Relaxed);
        let changed = (before.live, before.attached, before.held) != (after.live, after.attached, after.held);
        let scheduled = gone || !changed && state.schedule.is_complete();
        let State { schedule, mailbox, .. } = &mut *state;
        let entries =
            if scheduled { Default::default() } else { schedule.update(mailbox, changed, core.window_ms(), now) };
        self.live.store(after.live.is_some(), Ordering::Release);
        self.only_holds.store(state.mailbox.only_holds(), Ordering::Relaxed);
        drop(state);
        // Wrapping, so that less is added too.
        let add = |total: &AtomicUsize, before: usize, after: usize| {
            if before != after {
                total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
            }
        };
        add(&core.totals.held, before.held, after.held);
        core.budget.change_messages(before.memory, after.memory);
        for (kind, tick) in DeadlineKind::ALL.into_iter().zip(entries) {
            if let Some(tick) = tick {
                core.deadlines.schedule_slot(kind, tick, self.clone());
            }
        }
        if before.live != after.live {
            add(&core.totals.streams, before.live.is_some().into(), after.live.is_some().into());
            core.registry.index(self);
            core.presence.changed(&core.deadlines, &self.address, now);
        }
        result
    }

    fn snapshot(&self, mailbox: &Mailbox) -> Snapshot {
        if self.gone.load(Ordering::Relaxed) {
            return Snapshot::default();
        }
        let (live, attached) = (mailbox.live_page(), mailbox.has_stream());
        Snapshot { live, attached, memory: mailbox.memory(), held: mailbox.held() }
    }
}

/// What others have to know of a mailbox.
#[derive(Default)]
struct Snapshot {
    live: Option<(u64, u32)>,
    attached: bool,
    memory: usize,
    held: usize,
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
