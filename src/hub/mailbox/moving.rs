//! A mailbox that leaves its node, comes from another one, or gets a hole. Pure: time is an argument.

use std::sync::Arc;

use super::{
    super::{
        Parcel, Standing, Term,
        log::Log,
        shared_message::SharedMessage,
        time::{Millis, Tick},
    },
    Mailbox,
};
use crate::{
    error::Error,
    model::{Message, Start},
};

/// A higher page in a parcel is no page.
const HIGHEST_PAGE: u32 = 1 << 30;

impl Mailbox {
    pub(in crate::hub) fn term(&self) -> Term {
        self.term
    }

    /// Sets the term of a mailbox that has `known`. Says whether it has.
    pub(in crate::hub) fn confirm(&mut self, known: Term, new: Term) -> bool {
        let is_known = self.term == known;
        if is_known {
            self.term = new;
        }
        is_known
    }

    /// What other nodes may know of the mailbox, which was confirmed in an era.
    pub(in crate::hub) fn standing(&self, era: u32) -> Standing {
        let live = self.live_page();
        let number = 2 * u64::from(self.generation) + u64::from(live.is_none());
        Standing { term: self.term, era, epoch: self.epoch, number, live }
    }

    /// Gives everything away to a stream elsewhere that begins at `start`. The attached stream ends at its next poll, as if the new
    /// stream had been attached here. `None`: nobody knows of a new stream.
    ///
    /// # Errors
    /// [`Error::Superseded`] when a newer page is attached.
    pub(in crate::hub) fn depart(&mut self, start: Option<Start>, now: Millis) -> Result<Parcel, Error> {
        let page = start.map(|start| self.page_of(start)).transpose()?;
        self.detach(self.generation, now);
        let log = std::mem::take(&mut self.log);
        let parcel = Parcel {
            epoch: self.epoch,
            newest_page: self.newest_page,
            page: self.page,
            generation: self.generation,
            last: log.last(),
            handed_over: log.handed_over(),
            last_missing: log.last_missing(),
            unconfirmed: self.unconfirmed,
            away_ms: now.since(self.left_at.time()),
            entries: log.pack(now),
            repeats: Vec::new(),
        };
        self.generation = self.generation.wrapping_add(1);
        self.page = page.unwrap_or(self.page);
        Ok(parcel)
    }

    /// The mailbox of a parcel. `share` gets a message and its age in milliseconds. What a wrong parcel has too much of is missing then.
    pub(in crate::hub) fn restore(
        mut parcel: Parcel,
        term: Term,
        now: Millis,
        share: impl FnMut(Message, u64) -> Arc<SharedMessage>,
    ) -> Self {
        let log = Log::unpack(&mut parcel, now, share);
        let newest_page = parcel.newest_page.max(parcel.page).min(HIGHEST_PAGE);
        Self {
            term,
            epoch: parcel.epoch,
            newest_page,
            page: parcel.page.min(newest_page),
            generation: parcel.generation,
            unconfirmed: parcel.unconfirmed.min(log.last() + 1),
            log,
            stream: None,
            left_at: Tick::not_before(Millis(now.0.saturating_sub(parcel.away_ms))),
        }
    }

    /// Marks that messages before this point may be lost: ends the stream, then appends `waiting`, each with its time in milliseconds.
    /// The next stream is told `broken`.
    pub(in crate::hub) fn hole(&mut self, waiting: Vec<(Arc<SharedMessage>, u64)>, now: Millis) {
        self.release(now);
        self.log.mark_gap();
        let mut all_fit = true;
        for (shared, ttl_ms) in waiting {
            all_fit &= ttl_ms > 0 && self.log.push(shared, ttl_ms, now).is_ok();
        }
        if !all_fit {
            self.log.mark_gap();
        }
        self.left_at = Tick::not_before(now);
    }
}
