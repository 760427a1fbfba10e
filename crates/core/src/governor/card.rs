//! One card under the governor: what it did, what limits it, and its own limit as the best way to hold it.

use idlewatt_protocol::Milliwatts;

use super::account::{Account, Doing, GREATEST, Micros, Pace, Power, Rates, SECOND, WINDOW, Window, energy};
use super::deciding::CUT_AHEAD;
use super::levels::Levels;
use super::limits::{Claim, Heat, Today};
use super::sense::{Seen, Situation};
use super::{Card, Effect, Limit, NotHardware, Settings};

/// Part of a cap that is used where work is charged before it is measured, percent: what is left covers the noise of
/// sensors.
pub(super) const TARGET: i64 = 98;
/// A card that holds itself is believed up to this part of its cap, percent; past it the next actuator is added.
const BELIEVED: i64 = 105;
/// A card shows a limit that was set within this time.
const SHOWN: Micros = SECOND;
/// A limit that the card does not show is set again this often.
const AGAIN: Micros = 5 * SECOND;
/// A card whose limit was given back shows its own again within this time.
const RESTORED: Micros = 2 * SECOND;
/// What is guessed of a card that tells no limit and was never seen at work, as a multiple of its cap.
const GUESS: i64 = 3;

const WATT: Power = 1_000;

/// A card, and what is remembered of it.
#[derive(Clone, Debug)]
pub(super) struct Governed {
    pub(super) told: Card,
    pub(super) told_at: Micros,
    pub(super) seen: Seen,
    pub(super) account: Account,
    heat: Heat,
    levels: Levels,
    pub(super) doing: Doing,
    since: Micros,
    /// The lowest of its own limits.
    pub(super) cap: Option<(Power, Limit)>,
    /// Its part of the machine's cap.
    pub(super) share: Option<Power>,
    pub(super) worst: Option<Power>,
    pub(super) held: bool,
    /// A limit that would hold it was set a moment ago.
    pub(super) pending: bool,
    pace: Pace,
    /// The limit that it had before ours.
    original: Option<Power>,
    wanted: Option<Power>,
    set_at: Micros,
    unmet: Option<Micros>,
}

impl Governed {
    pub(super) fn new(told: Card, at: Micros) -> Self {
        Self {
            told,
            told_at: at,
            seen: Seen::default(),
            account: Account::default(),
            heat: Heat::default(),
            levels: Levels::default(),
            doing: Doing::Rest,
            since: at,
            cap: None,
            share: None,
            worst: None,
            held: false,
            pending: false,
            pace: Pace::default(),
            original: None,
            wanted: None,
            set_at: at - RESTORED,
            unmet: None,
        }
    }

    /// Time passed with what was decided last.
    pub(super) fn pass(&mut self, from: Micros, to: Micros) {
        let resting = self.resting();
        let rates = Rates { cap: self.cap.map(|it| it.0), worst: self.worst.unwrap_or(resting), resting };
        self.account.advance(from, to, self.doing, rates);
    }

    /// The card was read.
    pub(super) fn read(&mut self, card: &Card, read_at: Micros, now: Micros) {
        self.told.clone_from(card);
        self.told_at = now;
        let situation = Situation {
            doing: self.doing,
            since: self.since,
            own_use: card.own_use,
            limit: self.limit_told(),
        };
        self.seen.read(read_at, &card.reading, situation);
        self.account.settle(now, &self.seen, self.held);
        if self.wanted.is_none() && now - self.set_at >= RESTORED {
            self.original = believable(card.reading.limit);
        }
    }

    /// So many requests run on it now that no slices are made of.
    pub(super) fn count(&mut self, requests: usize, now: Micros) {
        let requests = if self.told.own_use { 0 } else { requests };
        let mean = || self.seen.mean(now - SECOND, now);
        self.levels.learn(requests, self.seen.lag(false).most, mean, now);
    }

    /// How many requests at once can go on for ever; `None`: none, or too few to be worth it.
    pub(super) fn lasting(&self) -> Option<usize> {
        self.levels.lasting(self.steady()?)
    }

    /// The power that it can be at for ever: what is not measured yet is charged at the worst, and an end is foreseen.
    fn steady(&self) -> Option<Power> {
        let ((cap, _), worst) = self.cap.zip(self.worst)?;
        let blind = self.seen.lag(false).most + CUT_AHEAD + SECOND / 4;
        Some((energy(cap, WINDOW) * TARGET / 100 - energy(worst, blind)) * 1_000 / (WINDOW - blind))
    }

    /// Fills the pace with what the cap gave since the last time, less what was charged.
    pub(super) fn keep_pace(&mut self, passed: Micros) {
        let cap = self.cap.map(|it| it.0);
        self.pace.keep(self.account.total(), cap, passed, self.doing == Doing::Rest);
    }

    /// Whether the pace allows a slice now.
    pub(super) fn in_pace(&self) -> bool {
        self.cap.is_none() || self.pace.allows()
    }

    /// Finds the lowest of its own limits.
    pub(super) fn limit(&mut self, settings: &Settings, today: &Today, cards: i64) {
        let ceiling = self.ceiling();
        self.cap = self.heat.lowest(settings, today, &self.told.reading, self.told.cap, ceiling, cards);
        self.worst = self.worst_now();
    }

    /// What it does from now on.
    pub(super) fn turn_to(&mut self, now: Micros, works: bool, waits: bool) {
        let doing = match (works, waits) {
            (true, _) => Doing::Work,
            (false, true) => Doing::Stopped,
            (false, false) => Doing::Rest,
        };
        if doing != self.doing {
            self.seen.turn(now, self.doing, self.since, doing);
            (self.doing, self.since) = (doing, now);
        }
    }

    fn limit_told(&self) -> Option<Power> {
        let reading = &self.told.reading;
        let range = reading.limit_range.map(|it| it.max);
        [reading.limit, reading.default_limit, range].into_iter().find_map(believable)
    }

    fn worst_now(&self) -> Option<Power> {
        let recent = self.seen.recent_peak();
        match self.limit_told() {
            Some(limit) => Some(recent.map_or(limit, |recent| recent.max(limit))),
            None if !self.seen.any() => None,
            None => match self.seen.peak() {
                Some(peak) => Some(peak + peak / 10),
                None => self.cap.map(|(cap, _)| cap * GUESS).max(recent),
            },
        }
    }

    /// What it draws while nothing shared runs; a tenth of its worst until that was seen.
    pub(super) fn resting(&self) -> Power {
        self.seen.resting().unwrap_or_else(|| self.worst.unwrap_or(0) / 10)
    }

    /// The same without the host's load.
    pub(super) fn idle(&self) -> Power {
        self.seen.idle().unwrap_or(0).min(self.resting())
    }

    /// The most that it was made for, or that its owner left it.
    pub(super) fn ceiling(&self) -> Option<Power> {
        let reading = &self.told.reading;
        let range = reading.limit_range.map(|it| it.max);
        self.original.or_else(|| [reading.default_limit, range].into_iter().find_map(believable))
    }

    /// The lowest of its own limits and its part of the machine's cap.
    pub(super) fn lowest(&self) -> Option<(Power, Option<Limit>)> {
        let own = self.cap.map(|(cap, limit)| (cap, Some(limit)));
        let share = self.share.map(|share| (share, None));
        [own, share].into_iter().flatten().min_by_key(|(cap, _)| *cap)
    }

    /// Its claim on the machine's cap.
    pub(super) fn claim(&self, now: Micros) -> Claim {
        let most = self.cap.map(|it| it.0).into_iter().chain(self.worst).min().unwrap_or(GREATEST);
        let used = self.seen.mean(now - SECOND, now).filter(|_| self.doing == Doing::Work);
        let wants = match (used, self.share) {
            (Some(used), Some(share)) if used < share - share / 10 => used + used / 8 + 10 * WATT,
            _ => most,
        };
        Claim { most, wants }
    }

    pub(super) fn window(&self, now: Micros) -> Option<Window> {
        let (cap, _) = self.cap?;
        Some(self.account.window(now, cap, TARGET, self.resting()))
    }

    /// Sets the card's own limit to its lowest, or gives it back, and finds whether that holds it.
    pub(super) fn hold(&mut self, active: bool, now: Micros) -> Option<(bool, Effect)> {
        let lowest = self.lowest().map(|it| it.0);
        let trim = self.excess(lowest, now);
        let wanted = lowest.filter(|_| active && self.told.settable).and_then(|cap| {
            let range = self.told.reading.limit_range.filter(|it| it.min <= it.max);
            let limit = (cap - trim) / WATT * WATT;
            let limit = range.map_or(limit, |range| limit.clamp(range.min.0, range.max.0));
            // Never above what it had: a cap is no reason to draw more.
            (limit > 0 && self.ceiling().is_none_or(|ceiling| limit < ceiling)).then_some(limit)
        });
        let in_force = believable(self.told.reading.limit);
        let obeys = |cap: Power| self.room(cap, now) * 100 >= -energy(cap, WINDOW) * (BELIEVED - 100);
        self.held = match (lowest, in_force) {
            (None, _) => true,
            (Some(cap), Some(limit)) => limit < cap + WATT && obeys(cap),
            _ => false,
        };
        let holds = wanted.is_some_and(|wanted| lowest.is_some_and(|cap| wanted <= cap));
        self.unmet = if self.held || !holds { None } else { self.unmet.or(Some(now)) };
        self.pending = self.unmet.is_some_and(|since| now - since < SHOWN);

        let lower = wanted.unwrap_or(i64::MAX) < self.wanted.unwrap_or(i64::MAX);
        let settled = now - self.set_at;
        let due = if wanted == self.wanted {
            wanted.is_some() && wanted != in_force && settled >= AGAIN
        } else {
            // A raise can wait: each is a call into the driver.
            lower || wanted.is_none() || settled >= SECOND
        };
        due.then(|| {
            self.wanted = wanted;
            self.set_at = now;
            let limit = wanted.map(Milliwatts);
            (lower, Effect::SetLimit { card: self.told.reading.id.clone(), limit })
        })
    }

    /// What a card that holds itself drew too much over the last window, so that it is held lower until that is paid.
    fn excess(&self, cap: Option<Power>, now: Micros) -> Power {
        let Some(cap) = cap.filter(|_| self.held) else { return 0 };
        over(self.room(cap, now), cap)
    }

    /// The most that it can do once its own limit is set: where it takes one and was not seen to ignore it, its cap, or
    /// the lowest that it takes.
    pub(super) fn worst_within(&self) -> Option<Power> {
        let least = self.told.reading.limit_range.map_or(WATT, |range| range.min.0);
        let takes = self.told.settable && (self.pending || self.unmet.is_none());
        match self.lowest().filter(|_| takes) {
            Some((cap, _)) => self.worst.map(|worst| worst.min(cap.max(least))),
            None => self.worst,
        }
    }

    fn room(&self, cap: Power, now: Micros) -> i64 {
        self.account.window(now, cap, 100, self.resting()).room()
    }

    pub(super) fn not_hardware(&self) -> Option<NotHardware> {
        let (cap, _) = self.lowest().filter(|_| !self.held)?;
        Some(match self.told.reading.limit_range {
            _ if !self.told.settable => NotHardware::NotSettable,
            Some(range) if range.min.0 > cap => NotHardware::BelowRange { min: range.min },
            _ => NotHardware::NotInForce,
        })
    }
}

fn believable(limit: Option<Milliwatts>) -> Option<Power> {
    limit.map(|it| it.0).filter(|limit| (1..=GREATEST).contains(limit))
}

/// By how much to lower a power so that what was used too much is paid in half a window; noise is not paid.
pub(super) fn over(room: i64, cap: Power) -> Power {
    let debt = -room;
    if debt * 100 <= energy(cap, WINDOW) { 0 } else { (debt * 1_000 / (WINDOW / 2)).min(cap / 4) }
}
