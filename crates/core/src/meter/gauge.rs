//! One card's energy, from what its sensors say: power by trapezoid, the card's own counter, or both.
//!
//! A counter is written every 20 to 100 ms, so at any moment the truth lies between what it shows and that much more;
//! power sampled ten times a second is good for a moment and drifts. Together, the integral runs inside the bounds that
//! the counter sets, and cannot drift out of them. A counter is believed only after it agreed with the integral over a
//! stretch in which the integral was sure of itself, and no longer once it does not.
//!
//! Nanojoules inside (mW × µs), whole millijoules outside; what did not make a whole one comes with the next.

use std::time::{Duration, Instant};

use idlewatt_protocol::{Millijoules, Milliwatts};

use super::{MAX_GAP, energy};
use crate::device::{GpuReading, Power};

/// How long an instantaneous reading or a counter may be old: NVIDIA's refresh every 20 to 100 ms.
const REFRESH: Duration = Duration::from_millis(100);
/// How old an instantaneous reading is on average: half a refresh. What stands between two refreshes is not seen yet.
const STALE: Duration = Duration::from_millis(30);
/// What an averaged power looks back over.
const AVERAGED: Duration = Duration::from_secs(1);
/// A counter that stands still for longer than this on a card that is awake is stuck.
const STUCK: Duration = Duration::from_secs(5);
/// A counter is held against the integral for this long, by default,
const CHECKED_OVER: Duration = Duration::from_secs(10);
/// and for this long where they are far apart.
const GLARING_AFTER: Duration = Duration::from_secs(3);
/// A comparison that is not sure of itself by then is begun anew.
const UNDECIDED_AFTER: Duration = Duration::from_secs(300);
/// Part by which the two may differ beyond chance.
const MAY_DIFFER: f64 = 0.10;
/// Part by which they are far apart.
const GLARING: f64 = 0.25;
/// No card draws more, where it does not name a limit.
const MOST: Milliwatts = Milliwatts(3_000_000);

const NANO: i128 = 1_000_000;

/// What a reading adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing yet: the first reading, or one that tells nothing new.
    Nothing,
    /// This.
    Energy(Tick),
    /// Energy was used that nobody measured.
    Lost,
}

/// Energy since the last tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    /// mJ, never negative.
    pub(super) energy: i64,
    pub(super) time: Duration,
    /// How far power may have been from the straight line between two readings, mJ.
    pub(super) doubt: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    #[default]
    Untested,
    Agrees,
    Diverges,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Gauge {
    last: Option<Instant>,
    power: Option<(Instant, Power)>,
    /// Since when power has had one value to the milliwatt.
    steady: Option<Instant>,
    counter: Option<Counter>,
    /// Power by the counter alone.
    rate: Option<Milliwatts>,
    trust: Trust,
    check: Option<Check>,
    /// nJ: as estimated, and as given out, which never falls.
    estimate: i128,
    given: i128,
    told: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    /// mJ
    value: i64,
    /// When it was first seen at this value.
    changed: Instant,
    /// Integral of the power since then, nJ.
    since: i128,
    /// What of the estimate stands at a counter of zero, nJ.
    zero: i128,
}

/// From one change of the counter to another.
#[derive(Clone, Copy, Debug)]
struct Check {
    since: Instant,
    counter: i64,
    integral: i128,
    /// Of the card, when it began.
    estimate: i128,
    /// Sum of the squares of the ticks' doubts, mJ².
    doubt: f64,
    edge: i64,
}

/// Integral between two readings, nJ.
#[derive(Clone, Copy)]
struct Step {
    energy: i128,
    doubt: i128,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    None,
    Same,
    /// mJ
    Rose(i64),
}

impl Gauge {
    pub(super) fn advance(&mut self, reading: &GpuReading) -> Found {
        let at = reading.at;
        // A reading that was overtaken tells nothing any more.
        if self.last.is_some_and(|last| at < last) {
            return Found::Nothing;
        }
        self.last = Some(at);
        let told = *self.told.get_or_insert(at);
        let most = most(reading);
        let step = self.integrate(reading.power, at, most);
        let count = self.count(reading.energy.map(|it| it.0), at, most, step);
        self.cross_check(at, step, count);
        let doubt = match (step, count) {
            (Some(step), _) => {
                self.estimate += step.energy;
                step.doubt
            }
            // The bounds below take it in.
            (None, Count::Rose(_)) if self.trust == Trust::Agrees => 0,
            (None, Count::Rose(rise)) if self.power.is_none() => {
                self.estimate += i128::from(rise) * NANO;
                0
            }
            (None, Count::Same) if self.power.is_none() => {
                let stuck = self.counter.is_some_and(|it| at - it.changed > STUCK);
                return if stuck { Found::Lost } else { Found::Nothing };
            }
            _ if at - told > MAX_GAP => {
                self.told = Some(at);
                return Found::Lost;
            }
            _ => return Found::Nothing,
        };
        self.bound();
        self.told = Some(at);
        let given = self.given.max(self.estimate);
        let energy = given.div_euclid(NANO) - self.given.div_euclid(NANO);
        self.given = given;
        let whole = |it: i128| i64::try_from(it).unwrap_or(i64::MAX);
        Found::Energy(Tick { energy: whole(energy), time: at - told, doubt: whole(doubt / NANO) })
    }

    /// All that was given out.
    pub(super) fn given(&self) -> Millijoules {
        Millijoules(i64::try_from(self.given.div_euclid(NANO)).unwrap_or(i64::MAX))
    }

    /// Whether the card's own counter disagrees with its power.
    pub(super) fn diverges(&self) -> bool {
        self.trust == Trust::Diverges
    }

    /// Whether power has had one value to the milliwatt since before then, and nothing else says that it is alive.
    pub(super) fn is_stuck_since(&self, then: Instant) -> bool {
        self.trust != Trust::Agrees && self.power.is_some() && self.steady.is_some_and(|since| since <= then)
    }

    /// Power now.
    pub(super) fn power(&self) -> Option<Milliwatts> {
        self.power.map(|(_, power)| power.value).or(self.rate)
    }

    /// What the sensors cannot see of this moment, mJ: power × their delay.
    pub(super) fn edge(&self) -> i64 {
        let averaged = self.power.is_some_and(|(_, power)| power.averaged) && self.trust != Trust::Agrees;
        let delay = if averaged { AVERAGED / 4 } else { REFRESH };
        self.power().map_or(0, |power| energy(power, delay))
    }

    fn integrate(&mut self, power: Option<Power>, at: Instant, most: Milliwatts) -> Option<Step> {
        if self.power.is_some_and(|(then, _)| at - then > MAX_GAP) {
            self.power = None;
        }
        // A card that is awake draws something: zero is a sensor's way to say nothing.
        let to = power.filter(|it| it.value > Milliwatts::ZERO && it.value <= most)?;
        let before = self.power.replace((at, to));
        if before.is_none_or(|(_, from)| from.value != to.value) {
            self.steady = Some(at);
        }
        let (then, from) = before?;
        let micros = i128::try_from((at - then).as_micros()).ok()?;
        let (from_mw, to_mw) = (i128::from(from.value.0), i128::from(to.value.0));
        let mut step =
            Step { energy: (from_mw + to_mw) * micros / 2, doubt: (to_mw - from_mw).abs() * micros / 2 };
        if from.averaged && to.averaged {
            // A mean over the last second is on average half a second late: what the integral lacks of the present is
            // half a second of the mean, so what it gains is half a second of the mean's change.
            step.energy += (to_mw - from_mw) * i128::try_from((AVERAGED / 2).as_micros()).ok()?;
        } else {
            step.energy += (to_mw - from_mw) * i128::try_from(STALE.as_micros()).ok()?;
        }
        Some(step)
    }

    fn count(&mut self, value: Option<i64>, at: Instant, most: Milliwatts, step: Option<Step>) -> Count {
        let Some(value) = value else { return Count::None };
        let by_power = step.map_or(0, |step| step.energy);
        let Some(counter) = &mut self.counter else {
            self.anchor(value, at);
            return Count::None;
        };
        counter.since += by_power;
        let rise = value.saturating_sub(counter.value);
        if rise == 0 {
            return Count::Same;
        }
        let time = at - counter.changed;
        if rise < 0 || rise > energy(most, time + REFRESH) {
            // The driver was loaded again, or a short register wrapped: it counts from here.
            self.anchor(value, at);
            self.check = None;
            return Count::None;
        }
        *counter = Counter { value, changed: at, since: 0, ..*counter };
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX).max(1);
        self.rate = Some(Milliwatts(rise.saturating_mul(1_000_000) / micros));
        Count::Rose(rise)
    }

    /// The counter stands where the estimate is, in the middle of its bounds.
    fn anchor(&mut self, value: i64, at: Instant) {
        let half = i128::from(self.edge()) * NANO / 2;
        let zero = self.estimate - half - i128::from(value) * NANO;
        self.counter = Some(Counter { value, changed: at, since: 0, zero });
    }

    /// Keeps the estimate where a believed counter says that it must be.
    fn bound(&mut self) {
        let Some(counter) = self.counter.filter(|_| self.trust == Trust::Agrees) else { return };
        let least = counter.zero + i128::from(counter.value) * NANO;
        let most = least + counter.since.max(0) + i128::from(self.edge()) * NANO;
        self.estimate = self.estimate.clamp(least, most);
    }

    fn cross_check(&mut self, at: Instant, step: Option<Step>, count: Count) {
        let (Some(counter), Some(step)) = (self.counter, step) else {
            self.check = None;
            return;
        };
        if let Some(check) = &mut self.check {
            check.integral += step.energy;
            check.doubt += millijoules(step.doubt).powi(2);
        }
        // Between two changes a counter tells nothing, unless it stands for too long.
        if !matches!(count, Count::Rose(_)) && at - counter.changed <= STUCK {
            return;
        }
        let fresh = Check {
            since: at,
            counter: counter.value,
            integral: 0,
            estimate: self.estimate + step.energy,
            doubt: 0.0,
            edge: self.edge(),
        };
        let Some(check) = self.check else {
            self.check = Some(fresh);
            return;
        };
        let time = at - check.since;
        let by_counter = (counter.value - check.counter) as f64;
        let by_power = millijoules(check.integral);
        let apart = (by_counter - by_power).abs();
        let chance = 3.0 * check.doubt.sqrt() + (check.edge + self.edge()) as f64;
        let differ = |by: f64| apart > by * by_power + chance;
        if (time >= CHECKED_OVER && differ(MAY_DIFFER)) || (time >= GLARING_AFTER && differ(GLARING)) {
            if self.trust == Trust::Agrees {
                // What it did to the estimate meanwhile is undone.
                self.estimate = check.estimate + check.integral - step.energy;
            }
            self.trust = Trust::Diverges;
            self.check = Some(fresh);
        } else if time >= CHECKED_OVER && chance < MAY_DIFFER * by_power {
            if self.trust != Trust::Agrees {
                self.trust = Trust::Agrees;
                self.anchor(counter.value, at);
            }
            self.check = Some(fresh);
        } else if time > UNDECIDED_AFTER {
            self.check = Some(fresh);
        }
    }
}

/// What a card cannot draw more than: a reading above it is none.
fn most(reading: &GpuReading) -> Milliwatts {
    let highest = reading.limit_range.map(|range| range.max);
    let named = [reading.limit, reading.default_limit, highest].into_iter().flatten().max();
    // Limits hold means: peaks of a few milliseconds go to about twice as much.
    named.filter(|it| *it > Milliwatts::ZERO).map_or(MOST, |it| Milliwatts(it.0.saturating_mul(2)))
}

#[expect(clippy::cast_precision_loss, reason = "a comparison within percents")]
fn millijoules(nano: i128) -> f64 {
    nano as f64 / NANO as f64
}
