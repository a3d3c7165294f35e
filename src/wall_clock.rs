//! The time of day, safe to format.

use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::{pki_types::UnixTime, time_provider::TimeProvider};

/// The time of the system's clock, clamped to the years 1970 to 9999.
///
/// Formatting a date outside these years panics or fails. A machine whose clock battery is empty must not stop the daemon.
#[must_use]
pub fn now() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the only place that may call this, because it clamps the result")]
    clamp(SystemTime::now())
}

/// Waits until the system's clock has reached a time, also when the clock is set meanwhile.
pub async fn sleep_until(time: SystemTime) {
    while let Some(left) = time.duration_since(now()).ok().filter(|left| !left.is_zero()) {
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// Tells rustls the time. Its own provider panics before 1970.
#[derive(Debug)]
pub struct RustlsClock;

impl TimeProvider for RustlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        now().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// The nearest time that can be formatted.
pub(crate) fn clamp(time: SystemTime) -> SystemTime {
    time.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST)
}

/// How late a clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// 9999-12-31 23:59:59.
pub(crate) const LAST: Duration = Duration::from_secs(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_date() {
        let (epoch, second) = (SystemTime::UNIX_EPOCH, Duration::from_secs(1));
        for (time, date) in [
            (epoch - 300_000_000 * second, "1970-01-01T00:00:00Z"),
            (epoch - Duration::from_nanos(1), "1970-01-01T00:00:00Z"),
            (epoch + second, "1970-01-01T00:00:01Z"),
            (epoch + LAST, "9999-12-31T23:59:59Z"),
            (epoch + LAST + second, "9999-12-31T23:59:59Z"),
            (epoch + 10 * LAST, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(humantime::format_rfc3339_seconds(clamp(time)).to_string(), date);
        }
    }

    #[test]
    fn the_vendored_httpdate_does_not_panic_outside_1970_to_9999() {
        let (epoch, second) = (SystemTime::UNIX_EPOCH, Duration::from_secs(1));
        for time in
            [epoch - 300_000_000 * second, epoch - Duration::from_nanos(1), epoch + LAST + second, epoch + 10 * LAST]
        {
            httpdate::fmt_http_date(time);
        }
    }
}
