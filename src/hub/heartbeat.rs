//! When a stream or a watch gets its next ping. Pure: time is an argument.

use std::time::Duration;

use super::time::Millis;

/// The heartbeat of a stream or a watch: the one that its client asked for, moved to the nearest bound, or else `default`.
#[must_use]
pub fn chosen_heartbeat(asked: Option<Duration>, default: Duration) -> Duration {
    asked.map_or(default, |asked| asked.clamp(SHORTEST, LONGEST))
}

/// The shortest heartbeat that a client may ask for. Some libraries give up after 5 s of silence. Shorter ones would only cost CPU.
const SHORTEST: Duration = Duration::from_secs(4);
/// The longest heartbeat that a client may ask for. Proxies cut a connection that is silent for longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The heartbeat of one stream or watch: a ping when nothing was sent for long enough.
#[derive(Debug)]
pub(super) struct Heartbeat {
    every_ms: u32,
    /// A ping is due and was not taken yet.
    due: bool,
    silent_since: Millis,
}

impl Heartbeat {
    /// The heartbeat of a stream to which something was sent now.
    pub(super) fn new(every_ms: u32, now: Millis) -> Self {
        Self { every_ms, due: false, silent_since: now }
    }

    /// Something was sent, so the silence begins again.
    pub(super) fn reset(&mut self, now: Millis) {
        (self.due, self.silent_since) = (false, now);
    }

    /// Takes the ping if one is due. Returns whether one was.
    pub(super) fn take(&mut self, now: Millis) -> bool {
        let due = self.due;
        if due {
            self.reset(now);
        }
        due
    }

    /// Makes a ping due if the silence was long enough. Says whether it just became due.
    pub(super) fn check(&mut self, now: Millis) -> bool {
        let became_due = self.next().is_some_and(|next| next <= now);
        self.due |= became_due;
        became_due
    }

    /// When the next ping is due. `None` while a ping is due and not yet taken.
    ///
    /// All due times are on a common grid, so that pings of streams that share a connection are written together.
    pub(super) fn next(&self) -> Option<Millis> {
        let every = u64::from(self.every_ms);
        (!self.due).then(|| self.silent_since.after(every * TENTHS / 10).on_grid(every / GRID))
    }
}

/// A ping is due after this many tenths of the heartbeat, because the daemon has to notice within 35 s that a peer has vanished: with
/// the default heartbeat of 15 s the ping is due after 13.5 to 14 s, and `TCP_USER_TIMEOUT` (20 s, in `serve/socket.rs`) ends the
/// connection less than 21 s later.
const TENTHS: u64 = 9;

/// How many steps of the grid one heartbeat has.
const GRID: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_due_after_nine_tenths_of_the_heartbeat_on_a_common_grid() {
        for began in [0, 1, 499, 500, 7_301] {
            let mut heartbeat = Heartbeat::new(15_000, Millis(began));
            let due = heartbeat.next().expect("a time");
            assert!((13_500..14_000).contains(&due.since(Millis(began))) && due.0.is_multiple_of(500), "{due:?}");
            assert!(!heartbeat.check(Millis(due.0 - 1)));
            assert!(heartbeat.check(due) && !heartbeat.check(due), "it becomes due once");
            assert_eq!(heartbeat.next(), None);
            assert!(heartbeat.take(due) && !heartbeat.take(due));
        }
    }

    #[test]
    fn a_client_may_ask_for_a_heartbeat_of_4_to_60_s() {
        let own = Duration::from_millis(300);
        assert_eq!(chosen_heartbeat(None, own), own);
        for (asked, chosen) in [(4_500, 4_500), (3_999, 4_000), (0, 4_000), (60_001, 60_000), (u64::MAX, 60_000)] {
            let (asked, chosen) = (Duration::from_millis(asked), Duration::from_millis(chosen));
            assert_eq!(chosen_heartbeat(Some(asked), own), chosen, "{asked:?}");
        }
    }

    #[test]
    fn something_sent_puts_the_next_ping_off() {
        let mut heartbeat = Heartbeat::new(15_000, Millis(0));
        assert!(heartbeat.check(Millis(14_000)));
        heartbeat.reset(Millis(14_000));
        assert!(!heartbeat.take(Millis(14_000)));
        assert_eq!(heartbeat.next(), Some(Millis(27_500)));
    }
}
