//! The one place where the engine reads the clocks.

use std::time::Instant;

use idlewatt_core::Now;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Both clocks and the host's zone.
#[must_use]
pub(crate) fn now() -> Now {
    Now { monotonic: Instant::now(), wall: Timestamp::now(), zone: TimeZone::system() }
}
