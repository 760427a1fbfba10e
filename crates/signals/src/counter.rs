//! A plug's energy counter, made one that only rises.

use std::time::Instant;

use idlewatt_protocol::Millijoules;

/// Most that a counter may rise a second: a socket gives less. What rises faster was another counter.
const MOST_MJ_A_SECOND: i128 = 25_000_000;

/// Steps in which the coarsest counters rise, mJ: ten watt-hours.
const STEP_MJ: i128 = 36_000_000;

/// Counters begin again with a plug that restarts or is replaced, and some forget a little when the power goes. Such a
/// step is no energy: the sum stands still there and goes on from what the counter shows then.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    last: Option<(Millijoules, Instant)>,
    sum: Millijoules,
}

impl Counter {
    /// What was counted since the first reading.
    pub(crate) fn take(&mut self, shown: Millijoules, at: Instant) -> Millijoules {
        if let Some((before, then)) = self.last.replace((shown, at)) {
            let rise = shown - before;
            let time = i128::try_from(at.saturating_duration_since(then).as_millis()).unwrap_or(i128::MAX);
            let most = MOST_MJ_A_SECOND.saturating_mul(time) / 1000 + STEP_MJ;
            if (0..=most).contains(&i128::from(rise.0)) {
                self.sum += rise;
            } else {
                tracing::info!(before = before.0, shown = shown.0, "a plug's energy counter began anew");
            }
        }
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_counter_that_goes_back_or_leaps_adds_nothing_and_goes_on() {
        let start = Instant::now();
        let mut counter = Counter::default();
        let mut sums = Vec::new();
        // Wh, two seconds apart: a restart to zero, one wrong reading, and the way back from it.
        for (turn, watt_hours) in [5_000, 5_001, 0, 1, 900_000, 2, 3].into_iter().enumerate() {
            let at = start + Duration::from_secs(2 * turn as u64);
            sums.push(counter.take(Millijoules(watt_hours * 3_600_000), at).0 / 3_600_000);
        }
        assert_eq!(sums, [0, 1, 1, 2, 2, 2, 3]);
        // An hour away, at 2 kW.
        let later = start + Duration::from_secs(3_600);
        assert_eq!(counter.take(Millijoules(2_003 * 3_600_000), later).0, 2_003 * 3_600_000);
    }
}
