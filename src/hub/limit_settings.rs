//! The limits that `app` sets for the hub. Other limits are constants beside the code that they limit.

use std::time::Duration;

use super::{presence::WatchLimits, time::millis, user_devices::DeviceLimits};
use crate::{auth::Caller, limits::SendRates};

/// The limits of the hub. A count of 0 means: no limit.
pub struct Limits {
    /// How long a mailbox is kept after its stream left, so that the device can resume.
    pub resume_window: Duration,
    /// The longest time for which a message is held for an absent device.
    pub hold: Duration,
    /// The bytes of memory that all held messages may take together.
    pub hold_budget: usize,
    /// Mailboxes of one user.
    pub user_devices: usize,
    /// Mailboxes of one user that only hold messages.
    pub user_held_devices: usize,
    /// Watches of one user's devices.
    pub user_watchers: usize,
    /// Watches of one caller.
    pub caller_watches: usize,
    /// Messages that a caller sends in a second.
    pub send_rates: SendRates,
}

/// The counts that one caller must not exceed.
pub(super) struct CallerLimits {
    pub(super) devices: DeviceLimits,
    pub(super) watches: WatchLimits,
}

impl Limits {
    /// What limits a caller. A service has no limit but the budgets of memory; what it has still counts for all other callers.
    /// [`SendRates`] says the same for its messages.
    pub(super) fn of(&self, caller: &Caller) -> CallerLimits {
        let limit = |count: usize| if caller.is_service() { 0 } else { count };
        CallerLimits {
            devices: DeviceLimits {
                devices: limit(self.user_devices),
                only_holding: limit(self.user_held_devices),
                window_ms: millis(self.resume_window),
            },
            watches: WatchLimits { of_user: limit(self.user_watchers), of_caller: limit(self.caller_watches) },
        }
    }

    /// No limits but these two times: any number of devices, watches, messages and held bytes.
    #[must_use]
    pub fn only_times(resume_window: Duration, hold: Duration) -> Self {
        Self {
            resume_window,
            hold,
            hold_budget: 0,
            user_devices: 0,
            user_held_devices: 0,
            user_watchers: 0,
            caller_watches: 0,
            send_rates: SendRates::unlimited(),
        }
    }
}
