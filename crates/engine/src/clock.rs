//! The one place where the engine reads the clocks.

use std::time::{Duration, Instant};

use idlewatt_core::Now;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Both clocks and the host's zone.
#[must_use]
pub(crate) fn now() -> Now {
    Now { monotonic: Instant::now(), wall: Timestamp::now(), zone: TimeZone::system() }
}

/// Whole milliseconds, as they are told: 49 days at most.
#[must_use]
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
