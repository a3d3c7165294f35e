//! What of a slot is readable without its lock, in four bytes: an idle stream has no room for more.

use std::sync::atomic::{AtomicU32, Ordering};

/// Three facts and an era. Only changed under the lock of the slot.
pub(super) struct Marks(AtomicU32);

const LIVE: u32 = 1;
const ONLY_HOLDS: u32 = 2;
const GONE: u32 = 4;
/// The bits above hold the era, without its highest three bits: eras are compared soon after they began.
const FACTS: u32 = 3;

impl Marks {
    pub(super) fn new(only_holds: bool, era: u32) -> Self {
        let marks = Self(AtomicU32::new(0));
        marks.set_only_holds(only_holds);
        marks.set_era(era);
        marks
    }

    /// A copy of `Mailbox::is_live`.
    pub(super) fn is_live(&self) -> bool {
        self.has(LIVE)
    }

    /// As `Mailbox::only_holds`. A slot that was made for a stream starts with false.
    pub(super) fn only_holds(&self) -> bool {
        self.has(ONLY_HOLDS)
    }

    /// The registry has removed the slot, or will at once: its mailbox takes no message and no stream.
    pub(super) fn is_gone(&self) -> bool {
        self.has(GONE)
    }

    /// The era in which the mailbox was confirmed.
    pub(super) fn era(&self) -> u32 {
        self.0.load(Ordering::Acquire) >> FACTS
    }

    /// Whether the mailbox was confirmed in this era.
    pub(super) fn is_of(&self, era: u32) -> bool {
        self.era() == era << FACTS >> FACTS
    }

    pub(super) fn set_live(&self, live: bool) {
        self.set(LIVE, if live { LIVE } else { 0 });
    }

    pub(super) fn set_only_holds(&self, only_holds: bool) {
        self.set(ONLY_HOLDS, if only_holds { ONLY_HOLDS } else { 0 });
    }

    pub(super) fn set_gone(&self) {
        self.set(GONE, GONE);
    }

    pub(super) fn set_era(&self, era: u32) {
        self.set(u32::MAX << FACTS, era << FACTS);
    }

    fn has(&self, fact: u32) -> bool {
        self.0.load(Ordering::Acquire) & fact != 0
    }

    /// Not one atomic step: the lock of the slot keeps others from changing the marks.
    fn set(&self, bits: u32, to: u32) {
        self.0.store(self.0.load(Ordering::Relaxed) & !bits | to, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mark_changes_another_one() {
        let marks = Marks::new(true, 7);
        marks.set_live(true);
        marks.set_era(8);
        marks.set_only_holds(false);
        assert!(marks.is_live() && !marks.only_holds() && !marks.is_gone());
        assert_eq!((marks.era(), marks.is_of(8), marks.is_of(7), marks.is_of(8 | 1 << 31)), (8, true, false, true));
        marks.set_gone();
        marks.set_live(false);
        assert!(marks.is_gone() && !marks.is_live() && marks.is_of(8));
    }
}
