//! Switches for the rules of the node code, so that tests can show what each rule is for: one scenario for each (`rule_tests`), and the
//! simulation with `MODEL_WITHOUT`. Outside of tests all are on.

/// A rule that can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A request that is older than the patience of its sender has no effect.
    DropsLateRequests,
    /// A clock that skipped makes every mailbox suspect.
    SeesSkippedClocks,
    /// For 2 s after a link came back, or the directory was made, an absence is not believed.
    DoubtsYoungLinks,
    /// An absence is believed only when the directory is sure.
    AsksBeforeAbsence,
    /// An arrival yields to a newer mailbox elsewhere.
    ArrivalsYield,
    /// An entry that is this node's, without a mailbox, is renewed before it is used.
    RevivesItsEntry,
    /// A hole spares the mailbox from which it comes.
    HolesKnowTheirEpoch,
    /// A parcel of another generation is mourned.
    MournsOldGenerations,
    /// A mailbox that was made without the directory makes this node owe.
    OwesWhatItMadeAlone,
    /// A mailbox that was made without the directory, or not for certain, has a hole.
    MarksGaps,
    /// What waits in a mailbox that is given up goes along with the hole.
    SendsWaitingOn,
    /// A stub whose time is over is a mailbox again.
    RevivesStubs,
    /// A push that could not be answered in time is not sent.
    KeepsTimeForAnswers,
    /// A term by the clock of this machine is above every term that was seen of the device.
    OwnTermsRise,
    /// A mailbox that came with a large parcel is pinned for a time.
    PinsLargeMailboxes,
    /// The messages of a hole are sent once. Repeated is only the hole.
    SendsMessagesOnce,
    /// A mailbox that leaves is kept as a stub until it is certain that another node has it.
    LeavesStubs,
    /// A stub gives its parcel to everybody who asks for its term.
    RepeatsParcels,
    /// A suspect mailbox is told before it is used.
    TellsSuspects,
    /// An entry of this node with a stub of that term is a mailbox again.
    ReopensItsStub,
    /// A node that does not have what an entry promises deletes the entry.
    DisownsEmptyEntries,
    /// All mailboxes are told every 10 minutes, also without a doubt.
    TellsWithoutDoubt,
    /// The time of a request is the directory's, whatever the clock of this machine says.
    UsesDirectoryTime,
    /// A stub goes when another node has opened its parcel.
    ForgetsMovedStubs,
    /// A mailbox does not go to an older page than the one that reads it.
    NewerPagesStay,
    /// A mailbox that is on its way for too long is taken without its content.
    ForcesAtLast,
    /// What changed elsewhere while the link was down is listed when it is back.
    ListsAfterALoss,
}

#[cfg(test)]
impl Rule {
    /// All rules.
    pub(super) const ALL: &[Self] = &[
        Self::DropsLateRequests,
        Self::SeesSkippedClocks,
        Self::DoubtsYoungLinks,
        Self::AsksBeforeAbsence,
        Self::ArrivalsYield,
        Self::RevivesItsEntry,
        Self::HolesKnowTheirEpoch,
        Self::MournsOldGenerations,
        Self::OwesWhatItMadeAlone,
        Self::MarksGaps,
        Self::SendsWaitingOn,
        Self::RevivesStubs,
        Self::KeepsTimeForAnswers,
        Self::OwnTermsRise,
        Self::PinsLargeMailboxes,
        Self::SendsMessagesOnce,
        Self::LeavesStubs,
        Self::RepeatsParcels,
        Self::TellsSuspects,
        Self::ReopensItsStub,
        Self::DisownsEmptyEntries,
        Self::TellsWithoutDoubt,
        Self::UsesDirectoryTime,
        Self::ForgetsMovedStubs,
        Self::NewerPagesStay,
        Self::ForcesAtLast,
        Self::ListsAfterALoss,
    ];
}

/// Whether a rule is on.
#[cfg(not(test))]
pub(super) const fn is_on(_: Rule) -> bool {
    true
}

/// Whether a node that got a parcel goes no further, as if it had died at that moment. Only a test makes that happen.
#[cfg(not(test))]
pub(super) const fn abandons_parcel() -> bool {
    false
}

#[cfg(test)]
pub(super) use self::switches::{abandoning, abandons_parcel, is_on, without};

#[cfg(test)]
mod switches {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        /// The rule that is taken out. The simulation runs on one thread.
        static OUT: Cell<Option<Rule>> = const { Cell::new(None) };
        /// How many of a hundred parcels are abandoned.
        static ABANDONED: Cell<u8> = const { Cell::new(0) };
    }

    pub(in crate::cluster) fn abandons_parcel() -> bool {
        let percent = ABANDONED.get();
        percent > 0 && fastrand::u8(0..100) < percent
    }

    /// Runs a test in which so many of a hundred parcels are abandoned.
    pub(in crate::cluster) fn abandoning<T>(percent: u8, test: impl FnOnce() -> T) -> T {
        ABANDONED.set(percent);
        let result = test();
        ABANDONED.set(0);
        result
    }

    pub(in crate::cluster) fn is_on(rule: Rule) -> bool {
        OUT.get() != Some(rule)
    }

    /// Runs a test without a rule. An asynchronous test runs on a runtime of this thread.
    pub(in crate::cluster) fn without<T>(rule: Option<Rule>, test: impl FnOnce() -> T) -> T {
        /// Puts the rule back, also when the test fails: the next test may run on the same thread.
        struct PutBack;
        impl Drop for PutBack {
            fn drop(&mut self) {
                OUT.set(None);
            }
        }
        OUT.set(rule);
        let _put_back = PutBack;
        test()
    }
}
