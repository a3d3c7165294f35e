//! When a client should try again.

/// How many seconds a client should wait before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    least: u16,
    most: u16,
}

impl RetryAfter {
    /// Exactly this many seconds.
    #[must_use]
    pub const fn exactly(seconds: u16) -> Self {
        Self { least: seconds, most: seconds }
    }

    /// A random number of seconds in a range, so that clients do not all come back at the same time.
    #[must_use]
    pub const fn between(least: u16, most: u16) -> Self {
        Self { least, most }
    }

    /// The seconds for one answer.
    #[must_use]
    pub fn seconds(self) -> u16 {
        fastrand::u16(self.least..=self.most)
    }
}
