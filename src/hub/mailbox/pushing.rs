//! Puts a message into a mailbox, once. Pure: time is an argument.

use std::sync::Arc;

use super::{
    super::{Repeat, Sending, shared_message::SharedMessage, time::Millis},
    Mailbox,
};
use crate::{error::Error, model::Outcome};

impl Mailbox {
    /// Numbers a message and stores it for the live stream. Without a live stream, holds it for at most `ttl_ms`. Does nothing when a
    /// message with the same key was accepted: its outcome is the answer, also when the device has left since.
    pub(in crate::hub) fn push(
        &mut self,
        shared: Arc<SharedMessage>,
        sending: Sending,
        now: Millis,
    ) -> Result<Outcome, Error> {
        let Sending { ttl_ms, key } = sending;
        if let Some(outcome) = key.and_then(|key| self.repeats.outcome(key, now)) {
            return Ok(outcome);
        }
        let live = self.is_live();
        if !live && ttl_ms == 0 {
            return Err(Error::NotConnected);
        }
        let seq = self.log.push(shared, if live { 0 } else { ttl_ms }, now)?;
        let outcome = if live { Outcome::Delivered } else { Outcome::Held };
        if let Some(key) = key {
            self.repeats.remember(Repeat { key, outcome, seq, age_ms: 0 }, now);
        }
        Ok(outcome)
    }
}
