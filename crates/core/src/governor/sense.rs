//! What a card's power sensor is worth: which readings are news, how late they come, and what they teach.

use std::collections::VecDeque;

use super::account::{Doing, Micros, Power, SECOND};
use crate::device::GpuReading;

/// A reading may be this late, or average over this long, unless the card was seen to be quicker: the slowest known
/// (NVML's averaged power) looks back one second.
const SLOWEST: Micros = 1_200_000;
/// Readings further apart leave a hole between them.
const HOLE: Micros = 350_000;
/// A sensor of a working card that shows the very same figure for so long has stopped.
const FROZEN: Micros = 2 * SECOND;
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
    last: Option<(Micros, Power)>,
    changed: Micros,
    counter: Option<(Micros, i64)>,
    /// Without shared work: now, and the least ever.
    resting: Option<Power>,
    least: Option<Power>,
    /// The most ever, with shared work alone.
    peak: Option<Power>,
    rises: VecDeque<Micros>,
    watch: Option<Watch>,
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
        let changed = self.last.is_none_or(|(_, before)| before != power);
        self.last = Some((at, power));
        if changed {
            self.changed = at;
        }
        let Situation { doing, since, limit, .. } = situation;
        let works = doing == Doing::Work;
        let impossible = power < 0 || works && power == 0 || limit.is_some_and(|limit| power > 3 * limit);
        let frozen = works && (self.changed < since.min(at - FROZEN / 4) || at - self.changed > FROZEN);
        if impossible || frozen {
            return;
        }
        self.readings.push_back((at, power));
        while self.readings.front().is_some_and(|(first, _)| *first < at - KEPT) {
            self.readings.pop_front();
        }
        if works {
            if !situation.own_use {
                self.peak = self.peak.max(Some(power));
            }
        } else if at - since > self.lag() + SECOND / 3 {
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
        (counter > before).then(|| (counter - before).saturating_mul(SECOND) / (at - before_at).max(1))
    }

    /// Work begins or ends after this.
    pub(super) fn turn(&mut self, at: Micros, before: Doing, since: Micros, now: Doing) {
        let settled = before == Doing::Rest && at - since > 2 * SECOND;
        self.watch = match (now, self.last) {
            (Doing::Work, Some((_, base))) if settled => Some(Watch { from: at, base, seen: Vec::new() }),
            _ => None,
        };
    }

    /// The lag is the time from the start of work until the sensor shows nine tenths of what follows: late sensors
    /// and averaging ones alike. Work that begins slowly makes it longer, never shorter.
    fn learn_lag(&mut self, at: Micros, power: Power) {
        let Some(watch) = &mut self.watch else { return };
        watch.seen.push((at, power));
        if at - watch.from < WATCHED {
            return;
        }
        let top = watch.seen.iter().map(|(_, power)| *power).max().unwrap_or(watch.base);
        let nearly = watch.base + (top - watch.base) * 9 / 10;
        let rise = watch.seen.iter().find(|(_, power)| *power >= nearly).map(|(at, _)| at - watch.from);
        if let Some(rise) = rise.filter(|_| top - watch.base > top / 10) {
            self.rises.push_back(rise);
            if self.rises.len() > STARTS {
                self.rises.pop_front();
            }
        }
        self.watch = None;
    }

    /// How late a reading may be.
    pub(super) fn lag(&self) -> Micros {
        self.rises.iter().max().map_or(SLOWEST, |slowest| (slowest + SECOND / 20).min(SLOWEST))
    }

    /// What the card draws without shared work, the host's own load included.
    pub(super) fn resting(&self) -> Option<Power> {
        self.resting
    }

    /// The least that it ever drew without shared work.
    pub(super) fn idle(&self) -> Option<Power> {
        self.least
    }

    pub(super) fn peak(&self) -> Option<Power> {
        self.peak
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

    pub(super) fn mean(&self, from: Micros, to: Micros) -> Option<Power> {
        if !self.without_hole(from, to) {
            return None;
        }
        let (sum, count) =
            self.between(from, to).fold((0, 0), |(sum, count), power| (sum + power, count + 1));
        (count > 0).then(|| sum / count)
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
