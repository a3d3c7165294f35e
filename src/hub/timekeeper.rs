//! The timekeeper: checks all that is due, then sleeps until the next deadline.

use std::{sync::Arc, task::Waker, time::Duration};

use tokio::{task::yield_now, time::sleep_until};

use super::{Event, Hub, board::Board, deadlines::DeadlineKind, slot::Slot, time::Tick, watch::WaitingWatch};
use crate::auth::TenantAddress;

impl Hub {
    /// Checks everything when it is due: heartbeats, the expiry of messages, mailboxes and tokens, and the boards of watched users.
    ///
    /// Never returns.
    pub async fn keep_time(self) {
        let deadlines = &self.0.core.deadlines;
        loop {
            self.check_due().await;
            match deadlines.set_alarm() {
                Some(tick) => {
                    let at = self.0.began + Duration::from_millis(tick.time().0);
                    tokio::select! {
                        biased;
                        () = sleep_until(at) => {}
                        () = deadlines.earlier_entry() => {}
                    }
                }
                None => deadlines.earlier_entry().await,
            }
        }
    }

    /// Checks all that is due now. Yields after every [`BATCH`] items, so that woken tasks can run in between.
    async fn check_due(&self) {
        let deadlines = &self.0.core.deadlines;
        for kind in DeadlineKind::ALL {
            while let Some((tick, slots)) = deadlines.slots(kind).take(Tick::reached(self.now()), BATCH) {
                for slot in &slots {
                    self.check(slot, kind, tick);
                }
                yield_now().await;
            }
        }
        while let Some((tick, boards)) = deadlines.boards.take(Tick::reached(self.now()), BATCH) {
            for board in &boards {
                wake_in_batches(self.check_board(board, tick)).await;
            }
            yield_now().await;
        }
        while let Some((_, watches)) = deadlines.watches.take(Tick::reached(self.now()), BATCH) {
            wake_in_batches(watches.iter().filter_map(WaitingWatch::take_waker).collect()).await;
        }
        while let Some((_, expiries)) = deadlines.expiries.take(Tick::reached(self.now()), BATCH) {
            for expiry in expiries {
                self.check_expiry(expiry);
            }
            yield_now().await;
        }
    }

    /// Checks one deadline of a slot, and removes the slot if it is no longer needed.
    pub(super) fn check(&self, slot: &Arc<Slot>, kind: DeadlineKind, tick: Tick) {
        let core = &self.0.core;
        let checked = slot.check(core, kind, tick, self.now());
        if checked.expired > 0 {
            self.observe(&Event::Expired { address: &slot.address, messages: checked.expired });
        }
        if checked.remove {
            // Other nodes learn of it while the slot is still in its place, so that none finds an entry without a slot.
            core.backplane.release(&slot.address, slot.term());
            core.registry.remove(slot, &core.totals);
        }
    }

    /// Publishes the changes of a watched user. Returns the wakers of waiting watches.
    fn check_board(&self, board: &Arc<Board>, tick: Tick) -> Vec<Waker> {
        let (core, now) = (&self.0.core, self.now());
        let wakers = board.check(tick, now, |device| {
            let address = TenantAddress { user: board.user.clone(), device: device.clone() };
            let here = core.registry.find(&address).and_then(|slot| slot.live_page());
            here.or_else(|| core.backplane.remote_page(&address))
        });
        board.schedule(&core.deadlines, now);
        wakers
    }
}

/// Wakes all. Yields after every [`BATCH`] wakers.
pub(super) async fn wake_in_batches(wakers: Vec<Waker>) {
    let mut left = wakers.len();
    for waker in wakers {
        waker.wake();
        left -= 1;
        if left > 0 && left.is_multiple_of(BATCH) {
            yield_now().await;
        }
    }
}

/// After how many items the timekeeper yields to other tasks.
const BATCH: usize = 256;
