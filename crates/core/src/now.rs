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

    /// The wall clock and date where the host is.
    #[must_use]
    pub fn local(&self) -> jiff::Zoned {
        self.wall.to_zoned(self.zone.clone())
    }

    /// The local date, as totals are kept by: `2026-11-21`.
    #[must_use]
    pub fn day(&self) -> String {
        self.local().date().to_string()
    }

    /// When the wall clock will show `wall`, by the monotonic one; now, where that is past.
    #[must_use]
    pub fn instant_of(&self, wall: Timestamp) -> Instant {
        self.monotonic + Duration::try_from(wall.duration_since(self.wall)).unwrap_or_default()
    }

    /// What the wall clock shows at `instant`.
    #[must_use]
    pub fn wall_at(&self, instant: Instant) -> Timestamp {
        let past = self.monotonic.saturating_duration_since(instant);
        let ahead = instant.saturating_duration_since(self.monotonic);
        let by = |span| jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX);
        self.wall
            .saturating_add(by(ahead))
            .and_then(|wall| wall.saturating_sub(by(past)))
            .unwrap_or(self.wall)
    }

    /// The moment `by` later on both clocks; for tests and look-ahead.
    #[must_use]
    pub fn later(&self, by: Duration) -> Self {
        let wall = jiff::SignedDuration::try_from(by).ok().and_then(|by| self.wall.checked_add(by).ok());
        Self { monotonic: self.monotonic + by, wall: wall.unwrap_or(Timestamp::MAX), zone: self.zone.clone() }
    }
}

/// An end that a wall clock which is set back does not put off, nor a monotonic one that stands still while the machine
/// sleeps: whichever is there first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    wall: Timestamp,
    monotonic: Instant,
}

impl Deadline {
    /// That the wall clock shows now to be at `wall`.
    #[must_use]
    pub fn at(wall: Timestamp, now: &Now) -> Self {
        Self { wall, monotonic: now.instant_of(wall) }
    }

    /// Whether it has come.
    #[must_use]
    pub fn is_past(&self, now: &Now) -> bool {
        self.wall <= now.wall || self.monotonic <= now.monotonic
    }

    /// When it comes, as things are.
    #[must_use]
    pub fn wall(&self, now: &Now) -> Timestamp {
        self.wall.min(now.wall_at(self.monotonic))
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
