//! What a card used in the last ten seconds, and what it may still use.
//!
//! Time is cut into bins. A bin is charged when it passes, at the worst that the card can do while shared work runs; when
//! sensors have told of it, at what they told. A plain token bucket ten seconds deep would let twice the cap through in
//! one window: here what was used counts until it has left the window, so every window holds.

use std::collections::VecDeque;

use super::card::TARGET;
use super::sense::{FROZEN, Seen};

/// µs since the governor's first decision.
pub(super) type Micros = i64;
/// µJ
pub(super) type Energy = i64;
/// mW
pub(super) type Power = i64;

/// No card and no machine that shares draws more, mW: what is above is a mistake of a sensor, and a cap there is none.
pub(super) const GREATEST: Power = 100_000_000;
pub(super) const SECOND: Micros = 1_000_000;
pub(super) const WINDOW: Micros = 10 * SECOND;
const BIN: Micros = 50_000;
const BINS: usize = 200;
const SPAN: i64 = WINDOW / BIN;

/// What a card does, as far as sharing is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doing {
    /// Nothing shared runs.
    #[default]
    Rest,
    /// Shared work waits, its process stopped.
    Stopped,
    /// Shared work runs.
    Work,
}

/// The powers that unmeasured time is charged at, and the cap that it is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) cap: Option<Power>,
    pub(super) worst: Power,
    pub(super) resting: Power,
}

#[derive(Clone, Debug)]
struct Bin {
    index: i64,
    time: Micros,
    /// `None` while there was no cap.
    budget: Option<Energy>,
    charge: Energy,
    doing: Doing,
    measured: bool,
}

/// One card's account.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    bins: VecDeque<Bin>,
    stopped_last: Option<Micros>,
    /// All that was ever charged, less what was refunded.
    total: Energy,
}

pub(super) fn energy(power: Power, time: Micros) -> Energy {
    power.saturating_mul(time) / 1_000
}

impl Account {
    pub(super) fn total(&self) -> Energy {
        self.total
    }

    /// The card did this until now.
    pub(super) fn advance(&mut self, from: Micros, to: Micros, doing: Doing, rates: Rates) {
        if doing == Doing::Stopped {
            self.stopped_last = Some(to);
        }
        let power = if doing == Doing::Work { rates.worst } else { rates.resting };
        let mut at = from.max(to - WINDOW - BIN);
        while at < to {
            let index = at / BIN;
            let end = to.min((index + 1) * BIN);
            let time = end - at;
            let (budget, charge) = (rates.cap.map(|cap| energy(cap, time)), energy(power, time));
            self.total += charge;
            match self.bins.back_mut().filter(|bin| bin.index == index) {
                Some(bin) => {
                    bin.time += time;
                    bin.budget = bin.budget.zip(budget).map(|(before, more)| before + more);
                    bin.charge += charge;
                    bin.doing = bin.doing.max(doing);
                }
                None => self.bins.push_back(Bin { index, time, budget, charge, doing, measured: false }),
            }
            at = end;
        }
        let oldest = to / BIN - SPAN;
        while self.bins.front().is_some_and(|bin| bin.index < oldest) {
            self.bins.pop_front();
        }
    }

    /// Charges what sensors have told by now. `exact`: the card holds itself, so its power is even and the mean is right.
    pub(super) fn settle(&mut self, now: Micros, seen: &Seen, exact: bool) {
        let sliced = self.stopped_last.is_some_and(|at| now - at < WINDOW);
        let lag = seen.lag(sliced);
        let mut worked = None;
        for bin in self.bins.iter_mut().rev() {
            let (begin, end) = (bin.index * BIN, (bin.index + 1) * BIN);
            if bin.doing != Doing::Rest {
                worked = Some(begin);
            }
            let (from, to) = (begin + lag.least, end + lag.most);
            if to > now || bin.measured {
                continue;
            }
            if to + FROZEN < now {
                break;
            }
            let rests = bin.doing == Doing::Rest && !(sliced && worked.is_some_and(|at| at < to));
            let power = match () {
                // What it draws by itself or for the host: the sensor may still show work that has ended.
                () if rests => seen.least(from, to).map(|power| match bin.budget {
                    Some(budget) => power.min(budget.saturating_mul(1_000) / bin.time.max(1)),
                    None => power,
                }),
                // The mean is right where power is even, or is cut into slices shorter than the sensor can tell.
                () if exact || sliced => seen.mean(from, to),
                () => seen.greatest(from, to),
            };
            if let Some(power) = power {
                let charge = energy(power, bin.time);
                self.total += charge - bin.charge;
                bin.charge = charge;
                bin.measured = true;
            }
        }
    }

    /// The last ten seconds against a cap: `per_cent` of it is used.
    pub(super) fn window(&self, now: Micros, cap: Power, per_cent: i64, resting: Power) -> Window {
        let mut window = Window::empty(now, cap, per_cent, resting);
        for bin in &self.bins {
            window.add(bin.index, bin.time, bin.budget, bin.charge);
        }
        window
    }
}

/// All cards' accounts against the cap for all.
#[derive(Clone, Debug, Default)]
pub(super) struct Together {
    budgets: VecDeque<(i64, Micros, Option<Energy>)>,
}

impl Together {
    pub(super) fn advance(&mut self, from: Micros, to: Micros, cap: Option<Power>) {
        let mut at = from.max(to - WINDOW - BIN);
        while at < to {
            let index = at / BIN;
            let end = to.min((index + 1) * BIN);
            let budget = cap.map(|cap| energy(cap, end - at));
            match self.budgets.back_mut().filter(|(last, ..)| *last == index) {
                Some((_, time, before)) => {
                    *time += end - at;
                    *before = before.zip(budget).map(|(before, more)| before + more);
                }
                None => self.budgets.push_back((index, end - at, budget)),
            }
            at = end;
        }
        let oldest = to / BIN - SPAN;
        while self.budgets.front().is_some_and(|(index, ..)| *index < oldest) {
            self.budgets.pop_front();
        }
    }

    pub(super) fn window<'a>(
        &self,
        accounts: impl Iterator<Item = &'a Account>,
        now: Micros,
        cap: Power,
        per_cent: i64,
        resting: Power,
    ) -> Window {
        let mut charges: VecDeque<Energy> = self.budgets.iter().map(|_| 0).collect();
        let first = self.budgets.front().map_or(0, |(index, ..)| *index);
        for bin in accounts.flat_map(|account| &account.bins) {
            let slot = usize::try_from(bin.index - first).ok();
            if let Some(charge) = slot.and_then(|slot| charges.get_mut(slot)) {
                *charge += bin.charge;
            }
        }
        let mut window = Window::empty(now, cap, per_cent, resting);
        for ((index, time, budget), charge) in self.budgets.iter().zip(charges) {
            window.add(*index, *time, *budget, charge);
        }
        window
    }
}

/// Slices follow each other so that work goes on evenly, not in bursts ten seconds apart: what the cap gives, less what
/// is charged, with little saved up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    level: Energy,
    total: Energy,
}

impl Pace {
    /// Energy may be saved up for at most this long.
    const DEPTH: Micros = 300_000;

    pub(super) fn keep(&mut self, total: Energy, cap: Option<Power>, passed: Micros, rests: bool) {
        let used = total - std::mem::replace(&mut self.total, total);
        let Some(cap) = cap else { return };
        let depth = energy(cap, Self::DEPTH);
        let level = self.level + energy(cap, passed) * TARGET / 100 - used;
        // What was refunded late must not pile up, nor what the host's own load took.
        self.level = if rests { depth } else { level.clamp(-4 * depth, depth) };
    }

    pub(super) fn allows(&self) -> bool {
        self.level >= 0
    }
}

/// The last ten seconds bin by bin, oldest first, and what follows if a power is held from now on.
#[derive(Clone, Debug)]
pub(super) struct Window {
    now: Micros,
    cap: Power,
    per_cent: i64,
    first: i64,
    /// Budget and charge.
    bins: Vec<(Energy, Energy)>,
}

impl Window {
    fn empty(now: Micros, cap: Power, per_cent: i64, resting: Power) -> Self {
        let first = now / BIN - SPAN;
        // What nobody watched counts as rest.
        let unwatched = (energy(cap, BIN), energy(resting.min(cap), BIN));
        let mut bins = vec![unwatched; BINS];
        bins.push((0, 0));
        Self { now, cap, per_cent, first, bins }
    }

    /// Energy of a bin under a cap that may have been another then. What lay within a looser cap counts at most as the
    /// present one: lowering a cap asks nothing back; and room that a looser cap left is gone.
    fn add(&mut self, index: i64, time: Micros, budget: Option<Energy>, charge: Energy) {
        let slot = usize::try_from(index - self.first).ok();
        let Some(bin) = slot.and_then(|slot| self.bins.get_mut(slot)) else { return };
        let now = energy(self.cap, time);
        let then = budget.unwrap_or(now.max(charge));
        let lowered = (then - now).max(0);
        *bin = (now.min(then), charge.min(now.max(charge - lowered)));
    }

    /// What may still be used; negative: what was used too much.
    pub(super) fn room(&self) -> Energy {
        let (budget, charge) = self.bins.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        budget * self.per_cent / 100 - charge
    }

    /// How long a power can be held from `wait` on, with another until then; `None`: for ever.
    pub(super) fn lasts(&self, power: Power, resting: Power, wait: Micros) -> Option<Micros> {
        let begun = self.now % BIN;
        let grown =
            |power: Power, time: Micros| energy(self.cap, time) * self.per_cent / 100 - energy(power, time);
        let mut room = self.room();
        let mut held = 0;
        let mut waited = 0;
        let mut gone = self.bins.iter();
        let mut time = BIN - begun;
        for _ in 0..2 * BINS {
            let waits = waited < wait;
            room += grown(if waits { resting } else { power }, time);
            if waits {
                waited += time;
            } else if room < 0 {
                return Some(held);
            } else {
                held += time;
            }
            if held >= WINDOW {
                return None;
            }
            // A new bin begins, and the oldest leaves.
            time = BIN;
            if let Some((budget, charge)) = gone.next() {
                room -= budget * self.per_cent / 100 - charge;
            }
        }
        None
    }
}
