//! A slot whose mailbox goes to another node, is confirmed, or gets a hole.

use std::sync::Arc;

use super::{
    super::{
        Core, Parcel, Repeat, Standing, Term, Waits, mailbox::Mailbox, shared_message::SharedMessage, time::Millis,
    },
    Gone, Slot, wake,
};
use crate::error::Error;

impl Slot {
    /// Whether the mailbox was confirmed in this era.
    pub(in crate::hub) fn is_certain(&self, era: u32) -> bool {
        self.marks.is_of(era)
    }

    /// What other nodes may know of the mailbox. `None`: it is gone.
    pub(in crate::hub) fn standing(&self) -> Option<Standing> {
        let state = self.state.lock();
        (!self.marks.is_gone()).then(|| self.standing_of(&state.mailbox))
    }

    /// The term of the mailbox, also when that is gone.
    pub(in crate::hub) fn term(&self) -> Term {
        self.state.lock().mailbox.term()
    }

    pub(super) fn standing_of(&self, mailbox: &Mailbox) -> Standing {
        mailbox.standing(self.marks.era())
    }

    /// See [`Mailbox::confirm`].
    pub(in crate::hub) fn confirm(
        self: &Arc<Self>,
        core: &Core,
        (known, new): (Term, Term),
        era: u32,
        now: Millis,
    ) -> bool {
        self.update(core, now, |state| {
            let confirmed = !self.marks.is_gone() && state.mailbox.confirm(known, new);
            if confirmed {
                self.marks.set_era(era);
            }
            confirmed
        })
    }

    /// Takes the mailbox out of the slot, unless `depart` refuses that. The slot is gone then: the caller has to remove it from the
    /// registry. Wakes the stream, so that it ends.
    pub(in crate::hub) fn depart<E>(
        self: &Arc<Self>,
        core: &Core,
        now: Millis,
        depart: impl FnOnce(&mut Mailbox) -> Result<Parcel, E>,
    ) -> Result<Result<Parcel, E>, Gone> {
        let (departed, waker) = self.update(core, now, |state| {
            if self.marks.is_gone() {
                return (Err(Gone), None);
            }
            let parcel = depart(&mut state.mailbox);
            if parcel.is_err() {
                return (Ok(parcel), None);
            }
            self.marks.set_gone();
            (Ok(parcel), state.waker.take())
        });
        wake(waker);
        departed
    }

    /// See [`Mailbox::hole`]. Does nothing when the mailbox has this epoch.
    pub(in crate::hub) fn hole(
        self: &Arc<Self>,
        core: &Core,
        epoch: u64,
        waiting: Vec<(Arc<SharedMessage>, Waits, Option<Repeat>)>,
        now: Millis,
    ) -> Result<(), Gone> {
        let changed = self.change(core, now, |mailbox| {
            if mailbox.standing(0).epoch != epoch {
                mailbox.hole(waiting, core.window_ms, now);
            }
            Ok::<(), Error>(())
        });
        changed.map(|_| ())
    }

    /// Schedules the deadlines of a slot that has just been put into the registry.
    pub(in crate::hub) fn settle(self: &Arc<Self>, core: &Core, now: Millis) {
        self.update(core, now, |_| ());
    }
}
