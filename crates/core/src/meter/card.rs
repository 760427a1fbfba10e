//! One card's part of the meter: the integral of its power, its baselines, and its own counter as a check.

use std::time::{Duration, Instant};

use idlewatt_protocol::{Millijoules, Milliwatts};

use super::{MAX_GAP, energy};
use crate::device::{GpuReading, Power};

/// How long an instantaneous reading may be old: counters refresh every 20 to 100 ms.
const REFRESH: Duration = Duration::from_millis(100);
/// How long an averaged one looks back.
const AVERAGED: Duration = Duration::from_secs(1);
/// The counter is held against the integral over stretches of at least this length.
const CHECK_AFTER: Duration = Duration::from_secs(10);
/// Part by which the two may differ, percent.
const MAY_DIFFER: i64 = 10;
/// A card counts as idle up to this utilisation, percent.
const IDLE_UTILISATION: u32 = 3;
/// A card clocks down for a while after work: it teaches its idle power only once it was idle for this long.
const COOL_DOWN: Duration = Duration::from_secs(5);

/// What a card draws, learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Baselines {
    /// No model loaded, no work.
    pub idle: Option<Milliwatts>,
    /// A model loaded, no work.
    pub loaded: Option<Milliwatts>,
    /// At work for shared requests.
    pub active: Option<Milliwatts>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Card {
    last: Option<Seen>,
    /// Thousandths of a microjoule that did not make a whole millijoule yet.
    carry: i128,
    used: Used,
    has_used: bool,
    baselines: Baselines,
    idle_since: Option<Instant>,
    check: Option<Check>,
    diverges: bool,
}

/// What a card used for requests since the last sharing out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// What it would have used loaded and idle.
    pub(super) base: i64,
    /// The rest.
    pub(super) active: i64,
    /// Whether the base is known; otherwise all of it is in the rest.
    pub(super) has_baseline: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    power: Option<Power>,
    counter: Option<Millijoules>,
}

/// From one change of the counter to another.
#[derive(Clone, Copy, Debug)]
struct Check {
    since: Instant,
    counter: Millijoules,
    integral: i64,
}

impl Card {
    /// Takes a reading; the energy since the last one, where that is known.
    pub(super) fn advance(&mut self, reading: &GpuReading, busy: bool, loaded: bool) -> Option<i64> {
        let seen = Seen { at: reading.at, power: reading.power, counter: reading.energy };
        let before = self.last.replace(seen);
        let tick = before.and_then(|before| self.integrate(before, seen));
        self.cross_check(before, seen, tick);
        self.learn(reading, busy, loaded);
        let tick = tick?;
        if busy {
            self.use_up(tick, before.map_or(Duration::ZERO, |before| seen.at - before.at));
        }
        Some(tick)
    }

    pub(super) fn take_used(&mut self) -> Option<Used> {
        std::mem::take(&mut self.has_used).then(|| std::mem::take(&mut self.used))
    }

    pub(super) const fn baselines(&self) -> Baselines {
        self.baselines
    }

    pub(super) const fn diverges(&self) -> bool {
        self.diverges
    }

    /// Power now × the sensor's delay.
    pub(super) fn edge(&self) -> Millijoules {
        let power = self.last.and_then(|last| last.power);
        Millijoules(
            power.map_or(0, |power| energy(power.value, if power.averaged { AVERAGED } else { REFRESH })),
        )
    }

    /// By power where both readings have it, else by the counter.
    fn integrate(&mut self, before: Seen, now: Seen) -> Option<i64> {
        let time = now.at.checked_duration_since(before.at)?;
        if let (Some(from), Some(to)) = (before.power, now.power) {
            if time > MAX_GAP {
                return None;
            }
            let micros = i128::try_from(time.as_micros()).ok()?;
            let nanojoules = self.carry + (i128::from(from.value.0) + i128::from(to.value.0)) * micros / 2;
            self.carry = nanojoules.rem_euclid(1_000_000);
            return i64::try_from(nanojoules.div_euclid(1_000_000)).ok();
        }
        let (from, to) = (before.counter?, now.counter?);
        (to >= from).then(|| (to - from).0)
    }

    fn use_up(&mut self, tick: i64, time: Duration) {
        if !self.has_used {
            self.used = Used { has_baseline: true, ..Used::default() };
            self.has_used = true;
        }
        let base = self.baselines.loaded.map(|loaded| energy(loaded, time).clamp(0, tick.max(0)));
        self.used.base += base.unwrap_or(0);
        self.used.active += tick - base.unwrap_or(0);
        self.used.has_baseline &= base.is_some();
    }

    fn cross_check(&mut self, before: Option<Seen>, now: Seen, tick: Option<i64>) {
        let has_power = now.power.is_some();
        let Some(counter) = now.counter.filter(|_| has_power) else {
            self.check = None;
            return;
        };
        // Between two changes the counter tells nothing: only a change is a moment that it knows.
        let changed = before.and_then(|before| before.counter).is_some_and(|before| before != counter);
        let fresh = changed.then_some(Check { since: now.at, counter, integral: 0 });
        let Some((check, tick)) = self.check.as_mut().zip(tick) else {
            self.check = fresh;
            return;
        };
        check.integral += tick;
        if !changed || now.at.saturating_duration_since(check.since) < CHECK_AFTER {
            return;
        }
        if counter >= check.counter {
            let (by_counter, by_power) = ((counter - check.counter).0, check.integral);
            let diverges = (by_counter - by_power).abs() * 100 > by_counter.max(by_power) * MAY_DIFFER;
            if diverges && !self.diverges {
                // The figures stay the integral's; they are no longer called measured.
                self.diverges = true;
            } else if !diverges {
                self.diverges = false;
            }
        }
        self.check = fresh;
    }

    fn learn(&mut self, reading: &GpuReading, busy: bool, loaded: bool) {
        let Some(power) = reading.power else { return };
        if busy {
            self.idle_since = None;
            blend(&mut self.baselines.active, power.value);
            return;
        }
        // Somebody else's work teaches nothing of idleness.
        if reading.utilisation.is_some_and(|busy| busy > IDLE_UTILISATION) {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert(reading.at);
        if reading.at.saturating_duration_since(since) >= COOL_DOWN {
            let baseline = if loaded { &mut self.baselines.loaded } else { &mut self.baselines.idle };
            blend(baseline, power.value);
        }
    }
}

/// A running mean in which a reading weighs an eighth.
fn blend(mean: &mut Option<Milliwatts>, reading: Milliwatts) {
    *mean = Some(mean.map_or(reading, |mean| Milliwatts(mean.0 + (reading.0 - mean.0) / 8)));
}
