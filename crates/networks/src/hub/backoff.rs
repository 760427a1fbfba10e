//! How long to wait before dialling again: full jitter, so that a thousand nodes of one hub do not come back at once.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(250);
const EARLY_CAP: Duration = Duration::from_secs(3);
const EARLY: Duration = Duration::from_secs(120);
const LATE_CAP: Duration = Duration::from_secs(60);

/// The waits since the hub was last well.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// The next wait; `random` is any number, evenly spread.
    pub(super) fn next(&mut self, now: Instant, random: u32) -> Duration {
        let since = *self.since.get_or_insert(now);
        let cap = if now.saturating_duration_since(since) < EARLY { EARLY_CAP } else { LATE_CAP };
        let most = FIRST.saturating_mul(1 << self.attempts.min(16)).min(cap);
        self.attempts = self.attempts.saturating_add(1);
        most.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_quarter_second_to_three_and_after_two_minutes_to_sixty() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let early: Vec<u128> = (0..6).map(|_| backoff.next(start, u32::MAX).as_millis()).collect();
        assert_eq!(early, [250, 500, 1000, 2000, 3000, 3000]);
        assert_eq!(backoff.next(start + Duration::from_secs(119), u32::MAX).as_secs(), 3);
        let later = start + Duration::from_secs(121);
        let last = (0..20).map(|_| backoff.next(later, u32::MAX)).max();
        assert_eq!(last, Some(LATE_CAP));
        assert_eq!(backoff.next(later, 0), Duration::ZERO);
    }
}
