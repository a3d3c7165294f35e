//! When a stream is due a heartbeat, and when its peer has stopped reading; pure, with time as an argument.
//!
//! A transport that comes back for more and finds nothing has written everything it was given. Until then the stream owes
//! its peer something, and when it has owed for too long, the peer does not read.

/// Milliseconds since the hub began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Millis(pub(crate) u64);

impl Millis {
    /// How long ago `earlier` was, in milliseconds.
    pub(super) fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The rhythm of one stream.
#[derive(Debug)]
pub(super) struct Pace {
    heartbeat_ms: u32,
    quiet_since: Millis,
    /// The stream owes its peer something, since `owes_since`: an option of that would cost every idle stream eight bytes.
    owes: bool,
    owes_since: Millis,
    ping: bool,
}

impl Pace {
    /// A stream that owes its peer the opening since now.
    pub(super) fn new(heartbeat_ms: u32, now: Millis) -> Self {
        Self { heartbeat_ms, quiet_since: now, owes: true, owes_since: now, ping: false }
    }

    /// There is something to write.
    pub(super) fn owe(&mut self, now: Millis) {
        if !self.owes {
            (self.owes, self.owes_since) = (true, now);
        }
    }

    /// The transport took something that has been waiting since `waited_since`; whatever it took before is written.
    pub(super) fn give(&mut self, waited_since: Millis, now: Millis) {
        (self.owes, self.owes_since) = (true, waited_since);
        self.quiet_since = now;
    }

    /// The transport came back for more and there was nothing.
    pub(super) fn rest(&mut self) {
        self.owes = false;
    }

    /// Takes the heartbeat that is due.
    pub(super) fn take_ping(&mut self, now: Millis) -> bool {
        let due = std::mem::take(&mut self.ping);
        if due {
            self.quiet_since = now;
        }
        due
    }

    /// Makes a heartbeat due after enough silence, and says whether it just became due.
    pub(super) fn beat(&mut self, now: Millis) -> bool {
        let due = !self.owes && now.since(self.quiet_since) >= u64::from(self.heartbeat_ms);
        if due {
            self.ping = true;
            self.owe(now);
        }
        due
    }

    /// The stream has owed something for longer than `stall_ms`.
    pub(super) fn is_stalled(&self, stall_ms: u64, now: Millis) -> bool {
        self.owes && now.since(self.owes_since) > stall_ms
    }
}
