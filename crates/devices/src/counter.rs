//! An energy counter as hardware gives it: microjoules in a register that wraps, that begins anew with its driver, and that
//! sometimes lies.

use std::time::{Duration, Instant};

use idlewatt_core::device::Power;
use idlewatt_protocol::{Millijoules, Milliwatts};

/// More than one chip or card draws, W: a step that needs more is no energy, and a gap in which so much would have gone
/// round a register hides how often it did. (The largest cards and processors of 2026 are made for 300 to 700 W.)
const MOST_WATTS: u64 = 800;

/// The longest time between two refreshes of a counter: one step may hold so much more than the time between two looks.
const REFRESH: Duration = Duration::from_millis(100);

/// Shorter stretches say more of the refresh than of the power.
const SHORTEST: Duration = Duration::from_millis(50);

/// After so long without a change the last power says nothing any more.
const STALE: Duration = Duration::from_secs(10);

/// Undoes the wrap of a register, and tells the average power between its changes.
#[derive(Debug)]
pub(crate) struct Counter {
    /// The register goes round here, µJ.
    range: u64,
    last: Option<(u64, Instant)>,
    /// µJ since it was first read, or since it began anew.
    total: u64,
    /// Where the stretch began over which power is told.
    from: Option<(u64, Instant)>,
    power: Option<Power>,
}

impl Counter {
    /// A register that goes round at `range` microjoules.
    pub(crate) const fn new(range: u64) -> Self {
        Self { range, last: None, total: 0, from: None, power: None }
    }

    /// Takes what the register says. The counter it gives only rises; it begins again at nothing where the register did,
    /// or where nobody can say how often it went round meanwhile.
    pub(crate) fn read(&mut self, register: u64, at: Instant) -> Millijoules {
        match self.last.and_then(|last| self.step(last, register, at)) {
            Some(step) => self.total += step,
            None => (self.total, self.from, self.power) = (0, None, None),
        }
        self.last = Some((register, at));
        self.note_power(at);
        Millijoules(i64::try_from(self.total / 1000).unwrap_or(i64::MAX))
    }

    /// Average power between the last changes.
    pub(crate) const fn power(&self) -> Option<Power> {
        self.power
    }

    /// Energy since the last look, where that can be said.
    fn step(&self, (before, seen): (u64, Instant), register: u64, at: Instant) -> Option<u64> {
        let most = |over: Duration| {
            u64::try_from(over.as_micros()).map_or(u64::MAX, |us| us.saturating_mul(MOST_WATTS))
        };
        let gap = at.saturating_duration_since(seen);
        let step = match register.checked_sub(before) {
            Some(step) => step,
            // Before it goes round a register is below its end.
            None if before < self.range && most(gap) < self.range => self.range - before + register,
            None => return None,
        };
        (step <= most(gap + REFRESH)).then_some(step)
    }

    fn note_power(&mut self, at: Instant) {
        let Some((total, since)) = self.from else {
            self.from = Some((self.total, at));
            return;
        };
        let stretch = at.saturating_duration_since(since);
        if stretch > STALE {
            (self.from, self.power) = (Some((self.total, at)), None);
        } else if stretch >= SHORTEST && self.total > total {
            let microwatts = u128::from(self.total - total) * 1_000_000 / stretch.as_micros();
            let value = i64::try_from(microwatts / 1000).map(Milliwatts).ok();
            self.power = value.map(|value| Power { value, averaged: true });
            self.from = Some((self.total, at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a register of 2³² µJ at these moments, in ms, and gives what the counter said.
    fn read(readings: &[(u64, u64)]) -> Vec<i64> {
        let mut counter = Counter::new(1 << 32);
        let start = Instant::now();
        readings.iter().map(|(ms, uj)| counter.read(*uj, start + Duration::from_millis(*ms)).0).collect()
    }

    #[test]
    fn a_register_that_goes_round_loses_no_energy() {
        // 300 J at 300 W, across the end of 32 bits.
        assert_eq!(read(&[(0, (1 << 32) - 100_000_000), (1000, 200_000_000)]), [0, 300_000]);
    }

    #[test]
    fn a_register_beyond_its_range_is_one_of_64_bits_and_does_not_go_round() {
        assert_eq!(read(&[(0, 435_636_211_730), (1000, 435_736_211_730)]), [0, 100_000]);
        assert_eq!(read(&[(0, 435_636_211_730), (1000, 50_000_000)]), [0, 0]);
    }

    #[test]
    fn a_driver_loaded_again_begins_anew_and_adds_nothing() {
        let half = 1 << 31;
        assert_eq!(
            read(&[(0, half), (1000, half + 200_000_000), (2000, 5000), (3000, 100_005_000)]),
            [0, 200_000, 0, 100_000]
        );
    }

    #[test]
    fn a_gap_in_which_it_may_have_gone_round_twice_is_not_guessed_at() {
        assert_eq!(read(&[(0, 1000), (20_000, 500)]), [0, 0]);
    }

    #[test]
    fn a_leap_beyond_any_card_is_no_energy() {
        assert_eq!(read(&[(0, 1000), (100, 900_000_000_000), (200, 900_020_000_000)]), [0, 0, 20_000]);
    }

    #[test]
    fn power_is_the_average_between_changes_not_between_looks() {
        let mut counter = Counter::new(1 << 32);
        let start = Instant::now();
        // Refreshed every 100 ms at 200 W, looked at every 60 ms.
        for look in 0..100_u64 {
            let ms = look * 60;
            counter.read(ms / 100 * 20_000_000, start + Duration::from_millis(ms));
            if let Some(power) = counter.power() {
                assert!((110_000..=340_000).contains(&power.value.0), "{power:?} at {ms} ms");
                assert!(power.averaged);
            }
        }
        assert!(counter.power().is_some());
    }

    #[test]
    fn a_frozen_register_tells_no_power() {
        let mut counter = Counter::new(1 << 32);
        let start = Instant::now();
        for second in 0..=3 {
            counter.read(second * 100_000_000, start + Duration::from_secs(second));
        }
        assert_eq!(counter.power().map(|power| power.value), Some(Milliwatts(100_000)));
        let energy = counter.read(300_000_000, start + Duration::from_secs(14));
        assert_eq!((energy, counter.power()), (Millijoules(300_000), None));
    }
}
