//! What other nodes ask of this hub: its side of the seam.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Hub, Inbound, Parcel, Placed, Sending, SharedMessage, Standing, Taken, Term, Waiting,
    log::ENTRY_BYTES,
    mailbox::Mailbox,
    registry::SHARDS,
    slot::{Gone, Slot},
    time::{Millis, millis},
    user_devices::Purpose,
};
use crate::{
    auth::{TenantAddress, TenantUser},
    error::Error,
    model::{DeviceId, Message, Outcome, Start},
};

/// Why a mailbox does not leave.
enum Stays {
    /// A newer page is connected.
    Refused,
    /// The mailbox has another term.
    OtherTerm,
}

impl Inbound for Hub {
    fn standing(&self, address: &TenantAddress) -> Option<Standing> {
        self.0.core.registry.find(address)?.standing()
    }

    fn push_here(
        &self,
        to: &TenantAddress,
        message: &Arc<SharedMessage>,
        sending: Sending,
    ) -> Option<Result<Outcome, Error>> {
        let (core, slot) = (&self.0.core, self.0.core.registry.find(to)?);
        let sending = Sending { ttl_ms: sending.ttl_ms.min(millis(core.limits.hold)), ..sending };
        let holds = sending.ttl_ms > 0 && !slot.is_live();
        let room = if holds { self.admit_held(to, message) } else { self.make_room(ENTRY_BYTES) };
        if let Err(full) = room {
            return Some(Err(full));
        }
        slot.push(core, message.clone(), sending, self.now()).ok()
    }

    fn receive(&self, message: Message) -> Arc<SharedMessage> {
        self.share(message, 1, self.elapsed())
    }

    fn take(&self, address: &TenantAddress, start: Option<Start>, term: Term) -> Taken {
        let core = &self.0.core;
        let Some(slot) = core.registry.find(address) else { return Taken::NotHere };
        let now = self.now();
        let departed = slot.depart(core, now, |mailbox| {
            if mailbox.term() != term {
                return Err(Stays::OtherTerm);
            }
            mailbox.depart(start, now).map_err(|_| Stays::Refused)
        });
        match departed {
            Err(Gone) => Taken::NotHere,
            Ok(Err(Stays::Refused)) => Taken::Refused,
            Ok(Err(Stays::OtherTerm)) => Taken::OtherTerm,
            Ok(Ok(parcel)) => {
                core.registry.remove(&slot, &core.totals);
                Taken::Parcel(Box::new(parcel))
            }
        }
    }

    fn give_up(&self, address: &TenantAddress, term: Term) -> Option<Box<Parcel>> {
        let core = &self.0.core;
        let slot = core.registry.find(address)?;
        let parcel = self.yield_to(&slot, term).ok()?;
        core.registry.remove(&slot, &core.totals);
        parcel
    }

    fn hole(&self, address: &TenantAddress, epoch: u64, waiting: Vec<Waiting>) -> bool {
        let core = &self.0.core;
        let share = |Waiting { message, waits, repeat }| (self.receive(message), waits, repeat);
        let Some(slot) = core.registry.find(address) else { return false };
        slot.hole(core, epoch, waiting.into_iter().map(share).collect(), self.now()).is_ok()
    }

    fn place(&self, address: &TenantAddress, placed: Placed, term: Term, era: u32) -> Result<(), Placed> {
        let core = &self.0.core;
        if Inbound::standing(self, address).is_some_and(|standing| standing.term >= term) {
            return Err(placed);
        }
        let fresh = match placed {
            Placed::Fresh { hole, only_holds } => Some(Placed::Fresh { hole, only_holds }),
            Placed::Parcel(_) => None,
        };
        let (was_moved, slot) = (fresh.is_none(), self.new_slot(address, placed, term, era));
        self.put(&slot, term).map_err(|parcel| fresh.unwrap_or(Placed::Parcel(parcel)))?;
        slot.settle(core, self.now());
        if was_moved && let Some(standing) = slot.standing() {
            core.backplane.changed(address, standing);
        }
        Ok(())
    }

    fn confirm(&self, address: &TenantAddress, term: Term, new: Term, era: u32) -> bool {
        let core = &self.0.core;
        core.registry.find(address).is_some_and(|slot| slot.confirm(core, (term, new), era, self.now()))
    }

    fn of_user(&self, user: &TenantUser) -> Vec<(DeviceId, Standing)> {
        let slots = self.0.core.registry.of_user(user);
        slots.iter().filter_map(|slot| Some((slot.address.device.clone(), slot.standing()?))).collect()
    }

    fn of_part(&self, part: usize) -> Option<Vec<(TenantAddress, Standing)>> {
        let slots = (part < SHARDS).then(|| self.0.core.registry.of_shard(part))?;
        Some(slots.iter().filter_map(|slot| Some((slot.address.clone(), slot.standing()?))).collect())
    }

    fn admit_parcel(&self, bytes: usize) -> Result<(), Error> {
        self.drop_replay_for(bytes)
    }

    fn changed(&self, address: &TenantAddress) {
        let core = &self.0.core;
        core.presence.changed(&core.deadlines, address, self.now());
    }
}

impl Hub {
    /// Makes a slot that is not in the registry yet. Its memory counts from now on.
    fn new_slot(&self, address: &TenantAddress, placed: Placed, term: Term, era: u32) -> Arc<Slot> {
        let (core, elapsed) = (&self.0.core, self.elapsed());
        let now = Millis::new(elapsed);
        let (mailbox, purpose) = match placed {
            Placed::Fresh { hole, only_holds } => {
                let purpose = if only_holds { Purpose::Hold } else { Purpose::Stream };
                (Mailbox::fresh(fastrand::u64(..), term, hole, now), purpose)
            }
            Placed::Parcel(parcel) => {
                let accepted = |age_ms| elapsed.saturating_sub(Duration::from_millis(age_ms));
                let share = |message, age_ms| self.share(message, 1, accepted(age_ms));
                (Mailbox::restore(*parcel, term, now, share), Purpose::Hold)
            }
        };
        core.totals.held_bytes.fetch_add(mailbox.held(), Ordering::Relaxed);
        core.budget.change_messages(0, mailbox.memory());
        Arc::new(Slot::new(address.clone(), mailbox, purpose, era, now))
    }

    /// Puts a slot into the registry, instead of one of a lower term.
    ///
    /// # Errors
    /// What was in the slot, when the device has a mailbox of the same or a higher term.
    fn put(&self, slot: &Arc<Slot>, term: Term) -> Result<(), Box<Parcel>> {
        let core = &self.0.core;
        let mut old = core.registry.find(&slot.address);
        loop {
            let stays = old.as_ref().is_some_and(|old| self.yield_to(old, term).is_err());
            if stays && let Ok(Some(parcel)) = self.yield_to(slot, Term::MAX) {
                return Err(parcel);
            }
            match core.registry.put(slot, old.as_ref(), &core.totals) {
                Ok(()) => return Ok(()),
                Err(other) => old = Some(other),
            }
        }
    }

    /// Takes the mailbox out of a slot if its term is lower than `term`. `None`: it is gone.
    fn yield_to(&self, slot: &Arc<Slot>, term: Term) -> Result<Option<Box<Parcel>>, Stays> {
        let now = self.now();
        let departed = slot.depart(&self.0.core, now, |mailbox| {
            if mailbox.term() >= term {
                return Err(Stays::OtherTerm);
            }
            mailbox.depart(None, now).map_err(|_| Stays::Refused)
        });
        match departed {
            Err(Gone) => Ok(None),
            Ok(departed) => departed.map(|parcel| Some(Box::new(parcel))),
        }
    }
}
