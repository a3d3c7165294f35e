//! What may wait for its peer: a socket, or one HTTP/2 stream with what it owns of its connection's account.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::Watchdog;
use crate::serve::http2::unsent_limit::UnsentLimit;

/// One socket or one HTTP/2 stream. It is in the watchdog's list at most once.
pub(in crate::serve) struct Waiter {
    /// The connection, if this is a stream of it.
    account: Option<Arc<UnsentLimit>>,
    /// `None` while it neither waits nor stands in a list, as nearly all streams do nearly all the time.
    wait: Mutex<Option<Box<Wait>>>,
    /// Bytes that nobody shares and the peer has not taken.
    owned: AtomicU32,
    cut: AtomicBool,
    owes: AtomicU8,
}

#[derive(Default)]
struct Wait {
    waker: Option<Waker>,
    /// By the watchdog's clock, where it waits.
    since: u32,
    waits: bool,
    listed: bool,
    turn: QueueState,
}

/// Where a stream is that may have to wait until its connection has room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::serve) enum QueueState {
    /// It did not ask.
    #[default]
    None,
    /// It stands in the queue.
    Queued,
    /// It has left the queue and may go on, once.
    Admitted,
}

/// What the watchdog finds.
pub(in crate::serve) enum Since {
    /// It does not wait, and is not in the list any more.
    Nothing,
    /// It waits since then.
    Time(u32),
}

impl Waiter {
    /// One stream of a connection.
    pub(in crate::serve) fn of_stream(account: Arc<UnsentLimit>) -> Arc<Self> {
        Arc::new(Self::new(Some(account)))
    }

    /// A socket.
    pub(in crate::serve) fn of_socket() -> Arc<Self> {
        Arc::new(Self::new(None))
    }

    fn new(account: Option<Arc<UnsentLimit>>) -> Self {
        let (cut, owes) = (AtomicBool::new(false), AtomicU8::new(0));
        Self { account, wait: Mutex::default(), owned: AtomicU32::new(0), cut, owes }
    }

    /// It waits for its peer: since now, or still for the same piece.
    pub(in crate::serve) fn wait(self: &Arc<Self>, watchdog: &Watchdog, anew: bool, waker: &Waker) {
        let (enters, since) = self.update(|wait| {
            if anew || !wait.waits {
                (wait.waits, wait.since) = (true, watchdog.now());
            }
            wait.set_waker(waker);
            (!std::mem::replace(&mut wait.listed, true), wait.since)
        });
        if enters {
            watchdog.enter(self.clone(), since);
        }
    }

    /// Changes how it waits.
    fn update<T>(&self, change: impl FnOnce(&mut Wait) -> T) -> T {
        let mut wait = self.wait.lock();
        let result = change(wait.get_or_insert_default());
        wait.take_if(|wait| wait.is_over());
        result
    }

    /// Changes how it waits, if it does.
    fn change<T>(&self, change: impl FnOnce(&mut Wait) -> T) -> Option<T> {
        let mut wait = self.wait.lock();
        let result = wait.as_mut().map(|wait| change(wait));
        wait.take_if(|wait| wait.is_over());
        result
    }

    /// It waits no longer.
    pub(in crate::serve) fn rest(&self) {
        self.change(|wait| wait.waits = false);
    }

    /// The watchdog has given up its peer.
    pub(in crate::serve) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(in crate::serve) fn is_stream(&self) -> bool {
        self.account.is_some()
    }

    /// Since when it waits, if it does; else it leaves the list.
    pub(in crate::serve) fn since_or_leave(&self) -> Since {
        let since = self.change(|wait| {
            if wait.waits {
                return Since::Time(self.waits_since(wait));
            }
            wait.listed = false;
            Since::Nothing
        });
        since.unwrap_or(Since::Nothing)
    }

    /// Since when it waits, if it does.
    pub(in crate::serve) fn since(&self) -> Option<u32> {
        self.change(|wait| wait.waits.then(|| self.waits_since(wait))).flatten()
    }

    /// One in the queue has waited since its connection's peer last took something.
    fn waits_since(&self, wait: &Wait) -> u32 {
        match &self.account {
            Some(account) if wait.turn == QueueState::Queued => wait.since.max(account.progressed_at()),
            _ => wait.since,
        }
    }

    /// Ends the wait for good; gives the waker of whoever has to end now. Nothing when that was done before.
    pub(in crate::serve) fn cut(&self) -> Option<Waker> {
        if self.cut.swap(true, Ordering::AcqRel) {
            return None;
        }
        let waker = self.change(|wait| {
            wait.waits = false;
            wait.waker.take()
        });
        waker.flatten()
    }

    /// Bytes of its own that wait for the peer.
    pub(in crate::serve) fn owned(&self) -> usize {
        self.owned.load(Ordering::Relaxed) as usize
    }

    /// It is a stream that waits while others of its connection wait for room.
    pub(in crate::serve) fn is_in_the_way(&self) -> bool {
        self.account.as_ref().is_some_and(|account| account.is_crowded()) && self.owned() > 0
    }

    /// It is the first one of its connection to be blamed at this time.
    pub(in crate::serve) fn takes_the_blame(&self, now: u32) -> bool {
        self.account.as_ref().is_some_and(|account| account.blame(now))
    }

    /// Counts bytes of a stream that nobody shares.
    pub(in crate::serve) fn charge(&self, bytes: u32) {
        self.owned.fetch_add(bytes, Ordering::Relaxed);
        if let Some(account) = &self.account {
            account.charge(bytes as usize);
        }
    }

    /// Counts them no longer.
    pub(in crate::serve) fn release(&self, bytes: u32) {
        self.owned.fetch_sub(bytes, Ordering::Relaxed);
        match &self.account {
            Some(account) if self.is_cut() => account.release(bytes as usize),
            Some(account) => account.took(bytes as usize),
            None => {}
        }
    }

    /// Counts what a socket does not take.
    pub(in crate::serve) fn set_owned(&self, bytes: u32) -> u32 {
        self.owned.swap(bytes, Ordering::Relaxed)
    }

    /// Ready when its connection has room for more bytes of its own, or for what it has paid for already.
    pub(in crate::serve) fn poll_room(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.account.as_ref().map_or(Poll::Ready(()), |account| account.poll_room(self, cx))
    }

    /// Takes its turn, or stands in the queue from now on. Gives where it was before.
    pub(in crate::serve) fn take_turn(&self, waker: &Waker) -> QueueState {
        self.update(|wait| {
            let turn = wait.turn;
            if turn != QueueState::Admitted {
                wait.turn = QueueState::Queued;
                wait.set_waker(waker);
            }
            turn
        })
    }

    /// It is the first in the queue, and there is room.
    pub(in crate::serve) fn admit(&self) -> Option<Waker> {
        self.update(|wait| {
            (wait.turn, wait.waits) = (QueueState::Admitted, false);
            wait.waker.clone()
        })
    }

    /// It was polled: when that was its turn, the next one has its own.
    pub(in crate::serve) fn pass_on(&self) {
        let admitted = self.change(|wait| {
            let admitted = wait.turn == QueueState::Admitted;
            if admitted {
                wait.turn = QueueState::None;
            }
            admitted
        });
        if let Some(account) = self.account.as_ref().filter(|_| admitted == Some(true)) {
            account.passed();
        }
    }

    /// It is over: nobody waits for it.
    pub(in crate::serve) fn leave(self: &Arc<Self>) {
        let turn = self.change(|wait| {
            (wait.waits, wait.waker) = (false, None);
            std::mem::take(&mut wait.turn)
        });
        if let Some(account) = &self.account {
            match turn.unwrap_or_default() {
                QueueState::None => {}
                QueueState::Queued => account.forget(self),
                QueueState::Admitted => account.passed(),
            }
            account.closed(self);
        }
    }

    /// Its body was asked for more: the peer has room for all that it gave.
    pub(in crate::serve) fn asked(&self) {
        self.owes.fetch_and(!(OWES | ANEW), Ordering::Relaxed);
    }

    /// Its body gave a piece.
    pub(in crate::serve) fn gave(&self) {
        self.owes.fetch_or(OWES | ANEW, Ordering::Relaxed);
    }

    /// The task of the stream was polled and goes on: it waits for its peer if its body gave a piece and was not asked again.
    pub(in crate::serve) fn polled(self: &Arc<Self>, cx: &Context<'_>) {
        let Some(account) = &self.account else { return };
        let owes = self.owes.load(Ordering::Relaxed);
        if owes & OWES != 0 {
            self.wait(account.watchdog(), owes & ANEW != 0, cx.waker());
            self.owes.store(OWES | WAITS, Ordering::Relaxed);
        } else if owes & WAITS != 0 {
            self.rest();
            self.owes.store(0, Ordering::Relaxed);
        }
        if account.has_admitted() {
            self.pass_on();
        }
    }
}

impl Wait {
    fn is_over(&self) -> bool {
        !self.waits && !self.listed && self.turn == QueueState::None
    }

    fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|ours| ours.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// The body gave a piece and was not asked for more since.
const OWES: u8 = 1;
/// It gave that piece in this poll of the stream's task.
const ANEW: u8 = 2;
/// The stream was entered as one that waits.
const WAITS: u8 = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::{budget::Budget, drain::Drain, telemetry::Metrics};

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_peer_read_everything_in_one_go_waits_no_longer() {
        let watchdog = Watchdog::new(Duration::from_secs(1), Budget::new(0), Metrics::new());
        let drain = Drain::new();
        drain.supervise("watchdog", watchdog.clone().run());
        let (waiter, cx) = (Waiter::of_stream(UnsentLimit::new(watchdog)), Context::from_waker(Waker::noop()));
        // A piece for which the peer has no room.
        waiter.gave();
        waiter.polled(&cx);
        sleep(Duration::from_millis(500)).await;
        // It has room for that one and for its last byte, and the body has nothing more.
        waiter.gave();
        waiter.asked();
        waiter.polled(&cx);
        sleep(Duration::from_secs(5)).await;
        assert!(!waiter.is_cut());
        // The next piece is not taken.
        waiter.gave();
        waiter.polled(&cx);
        sleep(Duration::from_secs(5)).await;
        assert!(waiter.is_cut());
    }
}
