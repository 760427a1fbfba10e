//! Time as an input.

use std::time::{Duration, Instant};

use idlewatt_protocol::UnixMillis;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The moment at which a machine is asked. Durations come from `monotonic`, civil time from `wall` in `zone`.
#[derive(Clone, Debug)]
pub struct Now {
    /// For durations; never goes back, may stand still while the machine sleeps.
    pub monotonic: Instant,
    /// For calendars; may jump.
    pub wall: Timestamp,
    /// The host's time zone.
    pub zone: TimeZone,
}

impl Now {
    /// The wall clock in the wire's form.
    #[must_use]
    pub fn unix(&self) -> UnixMillis {
        UnixMillis(self.wall.as_millisecond())
    }

    /// The moment `by` later on both clocks; for tests and look-ahead.
    #[must_use]
    pub fn later(&self, by: Duration) -> Self {
        let wall = jiff::SignedDuration::try_from(by).ok().and_then(|by| self.wall.checked_add(by).ok());
        Self { monotonic: self.monotonic + by, wall: wall.unwrap_or(Timestamp::MAX), zone: self.zone.clone() }
    }
}

/// When a machine wants to be asked again, and why: the reason goes to the log, so that every wake-up of a paused node
/// can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wakeup {
    /// Not before.
    pub at: Instant,
    /// For the log.
    pub why: &'static str,
}
