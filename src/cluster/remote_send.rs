//! A send to a device that is not live on this node: finds its node, and hands it the message.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    asking::NoAnswer,
    directory::{Entry, Fault, Found},
    node::{Node, directory},
    peer_messages::{Ask, Plain, PushAsk, Pushed, Say},
    rules::{Rule, is_on},
};
use crate::{
    auth::TenantAddress,
    error::Error,
    hub::{Sending, SharedMessage},
    model::Outcome,
};

/// What a step of a send led to.
enum Step {
    /// Look again a moment later.
    Later(Duration),
    Done(Result<Outcome, Error>),
}

impl Node {
    /// Hands a message to the device's mailbox, wherever it is. Takes at most [`LONGEST`].
    pub(super) async fn send(
        self: &Arc<Self>,
        to: &TenantAddress,
        message: &Arc<SharedMessage>,
        sending: Sending,
    ) -> Result<Outcome, Error> {
        let end = Instant::now() + LONGEST;
        let mut known = self.known.of(to);
        while Instant::now() + LAST_MOMENT < end {
            let step = match self.send_here(to, message, sending).await {
                Some(step) => step,
                None => self.send_there(to, message, sending, known.take(), end).await,
            };
            match step {
                Step::Later(pause) => sleep(pause).await,
                Step::Done(answer) => return answer,
            }
        }
        Err(Error::UNREACHABLE)
    }

    /// `None`: no mailbox is here.
    async fn send_here(
        self: &Arc<Self>,
        to: &TenantAddress,
        message: &Arc<SharedMessage>,
        sending: Sending,
    ) -> Option<Step> {
        let hub = self.hub();
        let standing = hub.standing(to)?;
        if !self.is_usable(&standing) {
            self.verify(to, standing.term).await;
            return Some(Step::Later(Duration::ZERO));
        }
        let answer = hub.push_here(to, message, sending)?;
        if answer != Err(Error::NotConnected) {
            return Some(Step::Done(answer));
        }
        Some(self.believe_absence(to, Entry { node: self.id, term: standing.term }).await)
    }

    async fn send_there(
        self: &Arc<Self>,
        to: &TenantAddress,
        message: &Arc<SharedMessage>,
        sending: Sending,
        known: Option<Entry>,
        end: Instant,
    ) -> Step {
        if self.link.up().is_none() {
            return Step::Done(Err(Error::UNREACHABLE));
        }
        if self.turns.is_busy(to) || self.stubs.of(to).is_some_and(|stub| stub.parcel.is_none()) {
            return Step::Later(SOON);
        }
        let entry = match known.filter(|entry| entry.node != self.id) {
            Some(entry) => entry,
            None => match self.look_up(to).await {
                Ok(entry) => entry,
                Err(step) => return step,
            },
        };
        let patience = end.saturating_duration_since(Instant::now());
        // An answer would come too late.
        let too_late = patience < (self.link.round_trip() * 2).max(Duration::from_millis(5));
        if too_late && is_on(Rule::KeepsTimeForAnswers) {
            return Step::Done(Err(Error::UNREACHABLE));
        }
        let ask = Ask::Push(PushAsk::new(to, entry.term, message, sending));
        match self.ask(entry.node, ask, patience).await {
            Ok(Say::Pushed(pushed)) => {
                self.known.learn(to, entry);
                match Pushed::try_from(pushed).unwrap_or(Pushed::Unknown) {
                    Pushed::Absent => self.believe_absence(to, entry).await,
                    pushed => Step::Done(pushed.into()),
                }
            }
            Ok(say) if say == Plain::Moving.into() => Step::Later(SOON),
            Ok(_) | Err(NoAnswer::NoLink) => {
                self.known.forget(to);
                Step::Later(SOON)
            }
            Err(NoAnswer::Silent | NoAnswer::Lost) => {
                // It may be dead. The next send looks the device up again.
                self.known.forget(to);
                Step::Done(Err(Error::UnknownOutcome))
            }
            Err(NoAnswer::Down) => Step::Done(Err(Error::UNREACHABLE)),
        }
    }

    /// The entry of a device that another, living node has. Else what to do.
    async fn look_up(self: &Arc<Self>, to: &TenantAddress) -> Result<Entry, Step> {
        match directory!(self, find(to)) {
            Ok(Found::At(entry, _)) if entry.node == self.id => {
                self.disown(to, entry.term);
                Err(Step::Later(SOON))
            }
            Ok(Found::At(entry, dead)) if dead && !self.is_young() => {
                let _ = directory!(self, bury(to, entry));
                Err(Step::Later(Duration::ZERO))
            }
            Ok(Found::At(entry, _)) => Ok(entry),
            Ok(Found::Nobody) if !self.is_young() => Err(Step::Done(Err(Error::NotConnected))),
            Ok(Found::Nobody | Found::Unsure) | Err(Fault::Late(_)) => Err(Step::Later(UNSURE)),
            Err(Fault::Down(_) | Fault::Reborn) => Err(Step::Done(Err(Error::UNREACHABLE))),
        }
    }

    /// A device is not connected only when the link is up and not young, and the directory is sure that the entry that answered is
    /// still the right one.
    async fn believe_absence(self: &Arc<Self>, to: &TenantAddress, entry: Entry) -> Step {
        if !is_on(Rule::AsksBeforeAbsence) {
            return Step::Done(Err(Error::NotConnected));
        }
        if self.is_young() {
            return Step::Later(UNSURE);
        }
        match directory!(self, absent(to, entry)) {
            Ok(Found::Nobody) => Step::Done(Err(Error::NotConnected)),
            Ok(Found::Unsure) => Step::Later(UNSURE),
            Ok(Found::At(..)) => {
                self.known.forget(to);
                Step::Later(SOON)
            }
            Err(_) => Step::Done(Err(Error::UNREACHABLE)),
        }
    }

    /// Whether the link came back a moment ago, or the directory was made a moment ago.
    pub(super) fn is_young(&self) -> bool {
        self.link.up().is_some_and(|up| up.is_young())
    }
}

/// How long a send may take.
const LONGEST: Duration = Duration::from_secs(1);
/// With less time left, nothing is tried any more.
const LAST_MOMENT: Duration = Duration::from_millis(50);
/// The pause before looking again.
const SOON: Duration = Duration::from_millis(20);
/// The pause before asking again whether the directory is sure.
const UNSURE: Duration = Duration::from_millis(40);
