//! What became of a pushed message, as a number that other releases know too.

use crate::{error::Error, model::Outcome};

/// What became of a pushed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(in crate::cluster) enum Pushed {
    Unknown = 0,
    Delivered = 1,
    Held = 2,
    Absent = 3,
    MailboxFull = 4,
    OverBudget = 5,
    OverHoldBudget = 6,
}

impl From<Result<Outcome, Error>> for Pushed {
    fn from(answer: Result<Outcome, Error>) -> Self {
        match answer {
            Ok(Outcome::Delivered) => Self::Delivered,
            Ok(Outcome::Held) => Self::Held,
            Err(Error::NotConnected) => Self::Absent,
            Err(Error::MailboxFull(_)) => Self::MailboxFull,
            Err(Error::OVER_HOLD_BUDGET) => Self::OverHoldBudget,
            Err(_) => Self::OverBudget,
        }
    }
}

impl From<Pushed> for Result<Outcome, Error> {
    fn from(pushed: Pushed) -> Self {
        match pushed {
            Pushed::Delivered => Ok(Outcome::Delivered),
            Pushed::Held => Ok(Outcome::Held),
            Pushed::Absent => Err(Error::NotConnected),
            Pushed::MailboxFull => Err(Error::MAILBOX_FULL),
            Pushed::OverHoldBudget => Err(Error::OVER_HOLD_BUDGET),
            Pushed::OverBudget => Err(Error::OVER_BUDGET),
            // A newer release refused it for a reason that this one does not know.
            Pushed::Unknown => Err(Error::UNREACHABLE),
        }
    }
}
