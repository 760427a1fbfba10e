//! One card's part of the meter: what it used since the last sharing out, and how that is cut.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use idlewatt_protocol::RequestId;

use super::Tokens;
use super::baseline::{Baselines, IDLE_UTILISATION, Learning};
use super::cost::{Cost, Work};
use super::energy;
use super::gauge::{Found, Gauge, Tick};
use super::silence::Silence;
use crate::device::GpuReading;

/// Costs are fitted from stretches of at least this length: sensors and clocks lag by a tenth of a second.
const STRETCH: Duration = Duration::from_secs(3);
/// After work a card needs this long to come down; what it draws until then is nobody else's doing.
const COMING_DOWN: Duration = Duration::from_secs(2);
/// Parts of a baseline by which an idle card's power may exceed it.
const ABOVE_IDLE: i64 = 4;

#[derive(Clone, Debug, Default)]
pub(super) struct Card {
    pub(super) gauge: Gauge,
    learning: Learning,
    used: Option<Used>,
    costs: BTreeMap<String, Cost>,
    silence: Silence,
    /// What sensors were late to show of a silence, mJ: made good in what comes next.
    owed: BTreeMap<RequestId, f64>,
    row: Option<Row>,
    busy_until: Option<Instant>,
}

/// What a card used for requests since the last sharing out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// What it would have used loaded and idle, mJ.
    pub(super) base: i64,
    /// The rest, mJ.
    pub(super) active: i64,
    /// Whether the base is known; otherwise all of it is in the rest.
    pub(super) has_baseline: bool,
    pub(super) time: Duration,
    /// Sum of the squares of what power may have done between readings, mJ².
    pub(super) doubt: f64,
    /// How far the base may be off, mJ.
    pub(super) base_doubt: i64,
}

/// One request's part of that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) base: i64,
    pub(super) active: i64,
    /// Some of it lay above no known baseline.
    pub(super) no_baseline: bool,
    /// Its part of the doubt, mJ².
    pub(super) chance: f64,
    /// How far its part, and its base, may be off, mJ.
    pub(super) unsure: f64,
}

/// What one request computed since the last sharing out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Computed<'a> {
    pub(super) id: RequestId,
    pub(super) service: &'a str,
    /// Nothing was said of it in this time: a prompt that is being read, or an answer that comes in one piece.
    pub(super) silent: bool,
    pub(super) decoded: u32,
    /// Prompt tokens said late, beyond those said with the first piece.
    pub(super) prompt: u32,
    /// Tokens before the ones that were generated.
    pub(super) context: u32,
}

/// A stretch from which a cost is learned.
#[derive(Clone, Debug)]
struct Row {
    service: String,
    work: Work,
    energy: i64,
    time: Duration,
    /// Something in it is not known.
    spoilt: bool,
}

impl Card {
    /// Takes a reading.
    pub(super) fn advance(&mut self, reading: &GpuReading, busy: bool, loaded: bool) -> Found {
        let found = self.gauge.advance(reading);
        if let Some(power) = self.gauge.power() {
            self.learning.learn(reading.at, power, reading.utilisation, busy, loaded);
        }
        if busy {
            self.busy_until = Some(reading.at);
            match found {
                Found::Energy(tick) => self.use_up(tick),
                Found::Lost => self.spoil(),
                Found::Nothing => {}
            }
        }
        found
    }

    /// Of a tick in which no request ran: what waiting for one used, if the card is kept on for that. The rest is
    /// somebody else's work.
    pub(super) fn idle_part(&self, tick: Tick, reading: &GpuReading, loaded: bool) -> i64 {
        if self.busy_until.is_some_and(|until| reading.at.saturating_duration_since(until) <= COMING_DOWN) {
            return tick.energy;
        }
        let known = self.baselines();
        match if loaded { known.loaded } else { known.idle } {
            Some(power) => {
                let idle = energy(power, tick.time);
                if tick.energy > idle + idle / ABOVE_IDLE { idle } else { tick.energy }
            }
            None if reading.utilisation.is_some_and(|percent| percent > IDLE_UTILISATION) => 0,
            None => tick.energy,
        }
    }

    pub(super) fn baselines(&self) -> Baselines {
        self.learning.shown()
    }

    pub(super) fn take_used(&mut self) -> Option<Used> {
        self.used.take()
    }

    /// Cuts what was used by what each request computed. The shares, and what is held until silent ones speak, add up to
    /// it.
    #[expect(clippy::cast_precision_loss, reason = "weights and errors")]
    pub(super) fn share(&mut self, used: &Used, all: &[Computed<'_>]) -> Vec<Share> {
        let steps = Steps::of(all);
        let owed = std::mem::take(&mut self.owed);
        let known = |it: &Computed<'_>| {
            let owed = owed.get(&it.id).copied().unwrap_or_default();
            (!it.silent).then(|| (self.cost(it.service).of(steps.share(it)) + owed).max(0.0))
        };
        let known: Vec<Option<f64>> = all.iter().map(known).collect();
        let silent: Vec<RequestId> = all.iter().filter(|it| it.silent).map(|it| it.id).collect();
        let rest = self.unexplained(used.active as f64, all, &known);
        let mut weights: Vec<u64> = known.iter().map(|it| fixed(it.unwrap_or_default())).collect();
        weights.push(fixed(rest));
        if silent.is_empty() {
            weights.pop();
        } else if weights.iter().all(|weight| *weight == 0) {
            // Nobody computed anything that shows: it is the silent ones' doing.
            weights.pop();
            weights.push(1);
        }
        let mut active = parts(used.active, &weights);
        let mut held = if silent.is_empty() { 0 } else { active.pop().unwrap_or_default() };
        if let [alone] = silent[..] {
            self.silence.took(alone, held);
            let place = all.iter().position(|it| it.id == alone);
            if let Some(part) = place.and_then(|place| active.get_mut(place)) {
                *part = std::mem::take(&mut held);
            }
        }
        self.silence.hold(held, silent);
        let base = parts(used.base, &vec![1; all.len()]);
        let share = |((it, base), active): ((&Computed<'_>, i64), i64)| {
            let part = active as f64 / (used.active as f64).max(1.0);
            Share {
                base,
                active,
                no_baseline: !used.has_baseline,
                chance: used.doubt * part * part,
                unsure: self.cost(it.service).error() * active as f64 * (1.0 - part)
                    + used.base_doubt as f64 / all.len() as f64,
            }
        };
        all.iter().zip(base).zip(active).map(share).collect()
    }

    /// A request that was silent says what it has computed: what was held for it.
    pub(super) fn speaks(&mut self, id: RequestId, service: &str, tokens: Tokens) -> Vec<(RequestId, Share)> {
        let decoded = f64::from(tokens.completion.saturating_sub(1));
        let context =
            decoded * (f64::from(tokens.prompt.saturating_add(tokens.cached)) + decoded / 2.0) / 1000.0;
        let work = Work { prompt: f64::from(tokens.prompt), decoded, steps: decoded, context };
        if let Some(row) = &mut self.row {
            row.work += work;
        }
        let cost = self.cost(service);
        let (claim, error, fitted) = (cost.of(work), cost.error(), cost.is_fitted());
        let shares = self.silence.speaks(id, claim);
        if fitted {
            #[expect(clippy::cast_precision_loss, reason = "a bound")]
            let late = self.gauge.edge() as f64;
            self.owed.insert(id, self.silence.lacks(id).clamp(-late, late));
        }
        unsure(shares, error)
    }

    /// A request is over: what was held for it, and for those who were silent with it alone.
    pub(super) fn leaves(&mut self, id: RequestId, service: &str) -> Vec<(RequestId, Share)> {
        let error = self.cost(service).error();
        unsure(self.silence.leaves(id), error)
    }

    /// Nobody says how far a prompt is: what the others' tokens do not explain is its doing. Without a fit each counts
    /// as much as the others' mean.
    fn unexplained(&self, active: f64, all: &[Computed<'_>], known: &[Option<f64>]) -> f64 {
        let (count, sum) =
            known.iter().flatten().fold((0.0, 0.0), |(count, sum), it| (count + 1.0, sum + it));
        if all.iter().all(|it| self.cost(it.service).is_fitted()) {
            (active - sum).max(0.0)
        } else {
            let silent = known.iter().filter(|it| it.is_none()).fold(0.0, |count, _| count + 1.0);
            if count > 0.0 { sum / count * silent } else { 1.0 }
        }
    }

    fn cost(&self, service: &str) -> &Cost {
        self.costs.get(service).unwrap_or(const { &Cost::NONE })
    }

    /// Learns from a stretch that is shared out, once it is long enough and everything in it is known.
    pub(super) fn learn(&mut self, used: &Used, all: &[Computed<'_>]) {
        let Some(first) = all.first() else { return };
        let steps = Steps::of(all);
        let row = self.row.get_or_insert_with(|| Row {
            service: first.service.to_owned(),
            work: Work::default(),
            energy: 0,
            time: Duration::ZERO,
            spoilt: false,
        });
        row.spoilt |= !used.has_baseline || all.iter().any(|it| it.service != row.service);
        row.energy += used.active;
        row.time += used.time;
        all.iter().filter(|it| !it.silent).for_each(|it| row.work += steps.adds(it));
        if row.time < STRETCH || all.iter().any(|it| it.silent) {
            return;
        }
        let Some(row) = self.row.take().filter(|row| !row.spoilt) else { return };
        #[expect(clippy::cast_precision_loss, reason = "a fit")]
        self.costs.entry(row.service).or_default().learn(row.work, row.energy as f64);
    }

    /// Something that ran here stays unknown.
    pub(super) fn spoil(&mut self) {
        if let Some(row) = &mut self.row {
            row.spoilt = true;
        }
    }

    /// Nothing runs here any more: a stretch that holds something unknown never ends, so it is forgotten.
    pub(super) fn rest(&mut self) {
        self.row = self.row.take().filter(|row| !row.spoilt);
    }

    fn use_up(&mut self, tick: Tick) {
        let loaded = self.baselines().loaded;
        let base = loaded.map_or(0, |loaded| energy(loaded, tick.time).clamp(0, tick.energy));
        let used = self.used.get_or_insert(Used {
            base: 0,
            active: 0,
            has_baseline: true,
            time: Duration::ZERO,
            doubt: 0.0,
            base_doubt: 0,
        });
        used.base += base;
        used.active += tick.energy - base;
        used.has_baseline &= loaded.is_some();
        used.time += tick.time;
        #[expect(clippy::cast_precision_loss, reason = "an error")]
        let doubt = tick.doubt as f64;
        used.doubt += doubt * doubt;
        used.base_doubt += energy(self.learning.loaded_spread(), tick.time);
    }
}

/// Steps of a stretch, by service: everybody who generates does so in each.
struct Steps<'a> {
    services: BTreeMap<&'a str, Generated>,
    /// Somebody's prompt is read in the same steps.
    mixed: bool,
}

#[derive(Clone, Copy, Default)]
struct Generated {
    /// By the one who generated most: as many steps there were.
    most: u32,
    all: u32,
}

impl<'a> Steps<'a> {
    fn of(all: &[Computed<'a>]) -> Self {
        let mut services = BTreeMap::<_, Generated>::new();
        for it in all.iter().filter(|it| !it.silent) {
            let generated = services.entry(it.service).or_default();
            generated.most = generated.most.max(it.decoded);
            generated.all = generated.all.saturating_add(it.decoded);
        }
        Self { services, mixed: all.iter().any(|it| it.silent) }
    }

    /// A request's part of the work. Who reads a prompt takes part in each step.
    fn share(&self, it: &Computed<'_>) -> Work {
        let Generated { most, all } = self.services.get(it.service).copied().unwrap_or_default();
        let takers = f64::from(all) + if self.mixed { f64::from(most) } else { 0.0 };
        let decoded = f64::from(it.decoded);
        let steps = if all == 0 { 0.0 } else { f64::from(most) * decoded / takers };
        let context = decoded * (f64::from(it.context) + decoded / 2.0) / 1000.0;
        Work { prompt: f64::from(it.prompt), decoded, steps, context }
    }

    /// The same, less steps that a prompt pays for: its cost a token has them in it.
    fn adds(&self, it: &Computed<'_>) -> Work {
        let work = self.share(it);
        Work { steps: if self.mixed { 0.0 } else { work.steps }, ..work }
    }
}

/// Shares of what was held: each was cut by what was foretold.
#[expect(clippy::cast_precision_loss, reason = "an error")]
fn unsure(shares: Vec<(RequestId, i64)>, error: f64) -> Vec<(RequestId, Share)> {
    let share = |active: i64| Share { active, unsure: error * active as f64, ..Share::default() };
    shares.into_iter().map(|(id, active)| (id, share(active))).collect()
}

/// A weight as an integer, fine enough for a millijoule among kilojoules.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number of a few thousand million"
)]
pub(super) fn fixed(weight: f64) -> u64 {
    (weight.clamp(0.0, 1e12) * 1000.0) as u64
}

/// Cuts `amount` into integer parts by weight that add up to it exactly; equally where no weight is above zero.
pub(super) fn parts(amount: i64, weights: &[u64]) -> Vec<i64> {
    let equal = weights.iter().all(|weight| *weight == 0);
    let weight = |weight: &u64| if equal { 1 } else { i128::from(*weight) };
    let sum: i128 = weights.iter().map(weight).sum();
    let mut upto = 0;
    let mut given = 0;
    weights
        .iter()
        .map(|it| {
            upto += weight(it);
            let cut = i64::try_from(i128::from(amount) * upto / sum.max(1)).unwrap_or(amount);
            let part = cut - given;
            given = cut;
            part
        })
        .collect()
}
