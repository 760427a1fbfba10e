//! What a card's power sensor is worth: which readings are news, how late they come, and what they teach.

use std::collections::VecDeque;

use super::account::{Doing, GREATEST, Micros, Power, SECOND};
use crate::device::GpuReading;

/// How late a reading may be, or over how long it may average, until the card's own lag was seen: the slowest known
/// (NVML's averaged power) looks back one second.
const UNSEEN: Lag = Lag { least: 0, most: 1_200_000 };
/// What a request needs to reach the card, and what may lie between two readings.
const LATE_START: Micros = 150_000;
/// Readings further apart leave a hole between them.
const HOLE: Micros = 350_000;
/// A sensor of a working card that shows the very same figure for longer has stopped meanwhile; one that is only
/// refreshed seldom shows another before.
pub(super) const FROZEN: Micros = 2 * SECOND;
/// How long a card must have worked before its peak is believed to be one.
const PEAK_AFTER: Micros = 3 * SECOND;
/// How long a start of work is watched to learn the lag.
const WATCHED: Micros = 2_500_000;
/// Starts that are remembered.
const STARTS: usize = 4;
/// How long readings are kept.
const KEPT: Micros = 5 * SECOND;

/// What one card's sensor has told.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    readings: VecDeque<(Micros, Power)>,
    /// The same figure again, from a card with work: taken in once another shows that the sensor is alive.
    again: Vec<(Micros, Power)>,
    last: Option<(Micros, Power)>,
    changed: Micros,
    counter: Option<(Micros, i64)>,
    /// Without shared work: now, and the least ever.
    resting: Option<Power>,
    least: Option<Power>,
    /// The most ever with shared work alone, and since when it was watched.
    peak: Option<(Micros, Power)>,
    starts: VecDeque<Lag>,
    watch: Option<Watch>,
    worked: bool,
}

/// How old what a sensor shows is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lag {
    pub(super) least: Micros,
    pub(super) most: Micros,
}

#[derive(Clone, Debug)]
struct Watch {
    from: Micros,
    base: Power,
    seen: Vec<(Micros, Power)>,
}

/// What the card does while it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub(super) doing: Doing,
    /// Since when.
    pub(super) since: Micros,
    pub(super) own_use: bool,
    /// The most that the card can be believed to draw.
    pub(super) limit: Option<Power>,
}

impl Seen {
    /// Takes a reading in. One that is old, impossible or frozen is none.
    pub(super) fn read(&mut self, at: Micros, reading: &GpuReading, situation: Situation) {
        if self.last.is_some_and(|(last, _)| at <= last) {
            return;
        }
        let Some(power) = self.power(at, reading) else { return };
        let Situation { doing, since, limit, .. } = situation;
        let works = doing == Doing::Work;
        let same = self.last.is_some_and(|(_, before)| before == power);
        self.last = Some((at, power));
        let most = limit.map_or(GREATEST, |limit| 3 * limit);
        if !(0..=most).contains(&power) || works && power == 0 {
            return;
        }
        if same && doing != Doing::Rest {
            self.again.push((at, power));
            return;
        }
        if !same {
            let alive = at - std::mem::replace(&mut self.changed, at) <= FROZEN;
            self.readings.extend(self.again.drain(..).filter(|_| alive));
        }
        self.readings.push_back((at, power));
        while self.readings.front().is_some_and(|(first, _)| *first < at - KEPT) {
            self.readings.pop_front();
        }
        if works {
            if !situation.own_use {
                let (since, peak) = self.peak.unwrap_or((at, power));
                self.peak = Some((since, peak.max(power)));
            }
        } else if at - since > self.lag(false).most + SECOND / 3 {
            self.resting = Some(power);
            self.least = Some(self.least.map_or(power, |least| least.min(power)));
        }
        self.learn_lag(at, power);
    }

    /// mW; from the energy counter where the card tells no power.
    fn power(&mut self, at: Micros, reading: &GpuReading) -> Option<Power> {
        if let Some(power) = reading.power {
            return Some(power.value.0);
        }
        let counter = reading.energy?.0;
        let (before_at, before) = match self.counter {
            Some((_, before)) if before == counter => return None,
            before => {
                self.counter = Some((at, counter));
                before?
            }
        };
        // It began anew: the driver was loaded again.
        (counter > before)
            .then(|| counter.saturating_sub(before).saturating_mul(SECOND) / (at - before_at).max(1))
    }

    /// Work begins, stands still or ends after this.
    pub(super) fn turn(&mut self, at: Micros, before: Doing, since: Micros, now: Doing) {
        if now == Doing::Rest {
            self.watch = None;
        } else if before == Doing::Rest {
            // What work before still shows is no base.
            let settled = !self.worked || at - since > 2 * SECOND;
            self.worked = true;
            let base = self.last.filter(|_| settled);
            self.watch = base.map(|(_, base)| Watch { from: at, base, seen: Vec::new() });
        }
    }

    /// The lag shows when work begins: from a tenth of the rise to nine tenths of it, for late sensors and averaging
    /// ones alike. Work that begins slowly makes it look longer.
    fn learn_lag(&mut self, at: Micros, power: Power) {
        let Some(watch) = &mut self.watch else { return };
        if at - watch.seen.last().map_or(watch.from, |(last, _)| *last) > HOLE {
            self.watch = None;
            return;
        }
        watch.seen.push((at, power));
        if at - watch.from < WATCHED {
            return;
        }
        let top = watch.seen.iter().map(|(_, power)| *power).max().unwrap_or(watch.base);
        let rise = top - watch.base;
        let part = |tenths: i64| {
            let reached = watch.seen.iter().find(|(_, power)| *power >= watch.base + rise * tenths / 10);
            reached.map(|(at, _)| at - watch.from)
        };
        if let (Some(least), Some(most), true) = (part(1), part(9), rise > top / 4) {
            let (least, most) = ((least - LATE_START).max(0), (most + SECOND / 20).min(UNSEEN.most));
            self.starts.push_back(Lag { least: least.min(most - LATE_START).max(0), most });
            if self.starts.len() > STARTS {
                self.starts.pop_front();
            }
        }
        self.watch = None;
    }

    /// How late a reading is. A request that needs a moment to reach the card makes the least look longer than it is:
    /// one start alone says nothing of it, but where it is the process itself that goes on (`prompt`).
    pub(super) fn lag(&self, prompt: bool) -> Lag {
        let most = self.starts.iter().map(|it| it.most).max().unwrap_or(UNSEEN.most);
        let least = self.starts.iter().map(|it| it.least).min().filter(|_| prompt || self.starts.len() > 1);
        Lag { least: least.unwrap_or(UNSEEN.least), most }
    }

    /// What the card draws without shared work, the host's own load included.
    pub(super) fn resting(&self) -> Option<Power> {
        self.resting
    }

    /// The least that it ever drew without shared work.
    pub(super) fn idle(&self) -> Option<Power> {
        self.least
    }

    /// The most that it ever drew for shared work, once it was seen at it for a while.
    pub(super) fn peak(&self) -> Option<Power> {
        let (since, peak) = self.peak?;
        self.last.filter(|(at, _)| at - since > PEAK_AFTER).map(|_| peak)
    }

    /// The greatest of the last seconds.
    pub(super) fn recent_peak(&self) -> Option<Power> {
        self.readings.iter().map(|(_, power)| *power).max()
    }

    pub(super) fn any(&self) -> bool {
        self.last.is_some()
    }

    pub(super) fn least(&self, from: Micros, to: Micros) -> Option<Power> {
        self.between(from, to).min()
    }

    pub(super) fn greatest(&self, from: Micros, to: Micros) -> Option<Power> {
        self.without_hole(from, to).then(|| self.between(from, to).max()).flatten()
    }

    /// Each reading stands for the time since the one before it: slices of work end with a reading.
    pub(super) fn mean(&self, from: Micros, to: Micros) -> Option<Power> {
        if !self.without_hole(from, to) {
            return None;
        }
        let (mut sum, mut upto) = (0, from);
        for (at, power) in self.readings.iter().filter(|(at, _)| *at > from) {
            let until = (*at).min(to);
            sum += power * (until - upto);
            upto = until;
            if upto == to {
                break;
            }
        }
        (upto > from).then(|| sum / (upto - from))
    }

    /// Readings of a stretch, with one on each side: a sensor that is read seldom shows no less than what was.
    fn between(&self, from: Micros, to: Micros) -> impl Iterator<Item = Power> {
        let near = move |at: Micros| at > from - SECOND / 20 && at < to + SECOND / 20;
        self.readings.iter().filter(move |(at, _)| near(*at)).map(|(_, power)| *power)
    }

    fn without_hole(&self, from: Micros, to: Micros) -> bool {
        let mut upto = from;
        for (at, _) in &self.readings {
            if *at > upto {
                if at - upto > HOLE {
                    return false;
                }
                upto = *at;
            }
            if upto >= to {
                return true;
            }
        }
        to - upto <= HOLE
    }
}
