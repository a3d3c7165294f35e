//! How the stream of a mailbox ends, and why. Pure: time is an argument.

use super::{
    super::time::{Millis, Tick},
    Mailbox,
};
use crate::model::EndReason;

impl Mailbox {
    /// Why a stream of this page that is no longer attached has to end. `None` when the same page came back on another stream.
    pub(super) fn end_reason(&self, page: u32) -> Option<EndReason> {
        (self.page > page).then_some(EndReason::Superseded)
    }

    /// Ends the attached stream after it has written the messages in the log. Accepts no more messages for it. Returns false if no
    /// stream is attached or the stream is ending already.
    pub(in crate::hub) fn end(&mut self, reason: EndReason) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.ending.is_none()) else { return false };
        stream.ending = Some(reason);
        true
    }

    /// Detaches the stream of this generation and page. Returns the reason if the server ended it, also when the peer never read the
    /// reason.
    pub(in crate::hub) fn leave(&mut self, generation: u32, page: u32, now: Millis) -> Option<EndReason> {
        let reason = match self.stream.as_ref().filter(|_| self.generation == generation) {
            Some(stream) => stream.ending,
            None => self.end_reason(page),
        };
        self.detach(generation, now);
        reason
    }

    /// Detaches the stream. It ends at its next poll. One that is ending already stays until it has read its reason, but gets no more
    /// messages: they are for the next stream.
    pub(in crate::hub) fn release(&mut self, now: Millis) {
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.ending.is_some()) {
            stream.only_ends = true;
            return;
        }
        self.detach(self.generation, now);
        self.generation = self.generation.wrapping_add(1);
    }

    /// Detaches the stream of this generation. Does nothing if a newer stream is attached.
    pub(in crate::hub) fn detach(&mut self, generation: u32, now: Millis) {
        if self.stream.is_some() && self.generation == generation {
            self.confirm_replayed(now);
            self.stream = None;
            self.left_at = Tick::not_before(now);
        }
    }
}
