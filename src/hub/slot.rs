//! A slot: one device's mailbox behind a lock, with the waker of the attached stream.

mod marks;
mod placing;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use parking_lot::Mutex;

use self::marks::Marks;
use super::{
    Core, Evicted, Sending,
    deadlines::DeadlineKind,
    mailbox::{Attachment, Checked, Mailbox, Next, Outgoing},
    schedule::Schedule,
    shared_message::SharedMessage,
    time::{Millis, Tick},
    user_devices::Purpose,
};
use crate::{
    auth::TenantAddress,
    error::Error,
    model::{EndReason, Outcome, Start},
};

/// Sums over all mailboxes.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) streams: AtomicUsize,
    pub(super) mailboxes: AtomicUsize,
    /// Bytes of memory that are used because senders asked to hold messages.
    pub(super) held_bytes: AtomicUsize,
}

pub(super) struct Slot {
    pub(super) address: TenantAddress,
    marks: Marks,
    /// When the slot was made.
    pub(super) made: Tick,
    state: Mutex<State>,
}

struct State {
    mailbox: Mailbox,
    waker: Option<Waker>,
    schedule: Schedule,
}

/// The registry removed the slot after the caller had found it. The caller has to find or make another one.
#[derive(Debug)]
pub(super) struct Gone;

impl Slot {
    /// Until its stream is attached, a slot made for a stream does not count as one that only holds messages: otherwise the
    /// slot could be pushed out.
    pub(super) fn new(address: TenantAddress, mailbox: Mailbox, purpose: Purpose, era: u32, now: Millis) -> Self {
        let state = State { mailbox, waker: None, schedule: Schedule::default() };
        Self {
            address,
            marks: Marks::new(purpose == Purpose::Hold, era),
            made: Tick::reached(now),
            state: Mutex::new(state),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.marks.is_live()
    }

    pub(super) fn only_holds(&self) -> bool {
        self.marks.only_holds()
    }

    /// See [`Mailbox::live_page`].
    pub(super) fn live_page(&self) -> Option<(u64, u32)> {
        self.state.lock().mailbox.live_page()
    }

    /// See [`Mailbox::push`].
    pub(super) fn push(
        self: &Arc<Self>,
        core: &Core,
        shared: Arc<SharedMessage>,
        sending: Sending,
        now: Millis,
    ) -> Result<Result<Outcome, Error>, Gone> {
        self.change(core, now, |mailbox| mailbox.push(shared, sending, now))
    }

    /// See [`Mailbox::attach`]. Wakes the stream that was attached before, so that it ends.
    pub(super) fn attach(
        self: &Arc<Self>,
        core: &Core,
        start: Start,
        heartbeat_ms: u32,
        now: Millis,
    ) -> Result<Result<Attachment, Error>, Gone> {
        self.change(core, now, |mailbox| mailbox.attach(start, heartbeat_ms, now))
    }

    /// Changes a mailbox that is still in the registry. Wakes its stream if the change succeeded.
    fn change<T>(
        self: &Arc<Self>,
        core: &Core,
        now: Millis,
        change: impl FnOnce(&mut Mailbox) -> Result<T, Error>,
    ) -> Result<Result<T, Error>, Gone> {
        let (result, waker) = self.update(core, now, |state| {
            if self.marks.is_gone() {
                return (Err(Gone), None);
            }
            let changed = change(&mut state.mailbox);
            let waker = if changed.is_ok() { state.waker.take() } else { None };
            (Ok(changed), waker)
        });
        wake(waker);
        result
    }

    /// See [`Mailbox::next`]. Keeps the waker when there is nothing yet.
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
    pub(super) fn more(self: &Arc<Self>, core: &Core, (generation, page): (u32, u32), now: Millis) -> Option<Outgoing> {
        self.update(core, now, |state| state.mailbox.more(generation, page, now))
    }

    /// Whether the stream of this generation is attached.
    pub(super) fn is_attached(&self, generation: u32) -> bool {
        self.state.lock().mailbox.attached_generation() == Some(generation)
    }

    /// See [`Mailbox::end`]. With a generation, ends only the stream of this generation.
    pub(super) fn end(self: &Arc<Self>, core: &Core, generation: Option<u32>, reason: EndReason, now: Millis) {
        let waker = self.update(core, now, |state| {
            let is_meant = generation.is_none() || state.mailbox.attached_generation() == generation;
            let ended = is_meant && state.mailbox.end(reason);
            if ended { state.waker.take() } else { None }
        });
        wake(waker);
    }

    /// See [`Mailbox::leave`].
    pub(super) fn leave(
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

    /// See [`Mailbox::check`]. `tick` is the tick of the entry that came up. Does nothing when the entry is outdated or the slot is
    /// gone. The caller has to remove the slot from the registry when the result says `remove`.
    pub(super) fn check(self: &Arc<Self>, core: &Core, kind: DeadlineKind, tick: Tick, now: Millis) -> Checked {
        let (checked, waker) = self.update(core, now, |state| {
            let is_gone = self.marks.is_gone();
            if !state.schedule.take(kind, tick) || is_gone {
                return (Checked::default(), None);
            }
            let checked = state.mailbox.check(core.window_ms, now);
            if checked.remove {
                self.marks.set_gone();
            }
            let waker = if checked.wake { state.waker.take() } else { None };
            (checked, waker)
        });
        wake(waker);
        checked
    }

    /// See [`Mailbox::evict_oldest`] and [`Mailbox::drop_waiting`]. `tick` is as in [`Slot::check`]. Returns how many messages were
    /// dropped.
    pub(super) fn evict(self: &Arc<Self>, core: &Core, kind: Evicted, tick: Tick, now: Millis) -> usize {
        self.update(core, now, |state| {
            if !state.schedule.take(kind.into(), tick) {
                return 0;
            }
            match kind {
                Evicted::Replay => state.mailbox.evict_oldest().into(),
                Evicted::Waiting => state.mailbox.drop_waiting(now),
            }
        })
    }

    /// Closes a slot that the registry has removed: drops its waiting messages, and takes no message and no stream any more. A stream
    /// that was attached at the same moment ends without a reason, so that its client comes back. Returns how many messages were
    /// dropped.
    pub(super) fn close(self: &Arc<Self>, core: &Core, now: Millis) -> usize {
        let (dropped, waker) = self.update(core, now, |state| {
            self.marks.set_gone();
            state.mailbox.release(now);
            (state.mailbox.drop_waiting(now), state.waker.take())
        });
        wake(waker);
        dropped
    }

    /// Changes the state under its lock. Then, without the lock, updates all that depends on it: the totals, the deadlines, the
    /// registry's index of live devices, the boards and other nodes. No other function changes the state, so none can forget an
    /// update.
    fn update<T>(self: &Arc<Self>, core: &Core, now: Millis, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let before = self.snapshot(&state.mailbox);
        let result = change(&mut state);
        let after = self.snapshot(&state.mailbox);
        let gone = self.marks.is_gone();
        let changed = (before.live, before.attached, before.held) != (after.live, after.attached, after.held);
        let needs_no_entry = gone || !changed && state.schedule.is_complete();
        let State { schedule, mailbox, .. } = &mut *state;
        let entries =
            if needs_no_entry { Default::default() } else { schedule.update(mailbox, changed, core.window_ms, now) };
        self.marks.set_live(after.live.is_some());
        self.marks.set_only_holds(state.mailbox.only_holds());
        let standing = (before.live != after.live).then(|| self.standing_of(&state.mailbox));
        drop(state);
        // Wrapping, so that adding a negative difference subtracts.
        let add = |total: &AtomicUsize, before: usize, after: usize| {
            if before != after {
                total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
            }
        };
        add(&core.totals.held_bytes, before.held, after.held);
        core.budget.change_messages(before.memory, after.memory);
        for (kind, tick) in DeadlineKind::ALL.into_iter().zip(entries) {
            if let Some(tick) = tick {
                core.deadlines.schedule_slot(kind, tick, self.clone());
            }
        }
        if let Some(standing) = standing {
            add(&core.totals.streams, before.live.is_some().into(), after.live.is_some().into());
            core.registry.index(self);
            core.presence.changed(&core.deadlines, &self.address, now);
            core.backplane.changed(&self.address, standing);
        }
        result
    }

    fn snapshot(&self, mailbox: &Mailbox) -> Snapshot {
        if self.marks.is_gone() {
            return Snapshot::default();
        }
        let (live, attached) = (mailbox.live_page(), mailbox.attached_generation());
        Snapshot { live, attached, memory: mailbox.memory(), held: mailbox.held() }
    }
}

/// What the rest of the hub depends on in a mailbox.
#[derive(Default)]
struct Snapshot {
    live: Option<(u64, u32)>,
    /// The generation of the attached stream: a newer one may have a shorter heartbeat.
    attached: Option<u32>,
    memory: usize,
    held: usize,
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
