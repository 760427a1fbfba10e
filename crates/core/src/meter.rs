//! The energy meter: where each millijoule went, and how well that is known.
//!
//! Power is integrated between two readings of a card (trapezoid; a gap longer than [`MAX_GAP`] is not guessed). What a
//! card used while requests ran is shared among them at every change of what runs: the part that the loaded, idle card
//! would have used anyway equally, the rest by the tokens that each computed. Integers throughout: what requests used
//! and what nobody asked for always add up to what was measured, exactly.
//!
//! The driver's own energy counter is held against the integral; where they disagree, no figure is called measured.
//! A change counts from the last reading on: read every card right before `begin`, `end` and [`Meter::set_purpose`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::{Label, Millijoules, Milliwatts, RequestId};

use crate::device::GpuReading;

mod card;

pub use card::Baselines;
use card::Card;

/// Power is not assumed to have stayed the same for longer than this between two readings.
pub const MAX_GAP: Duration = Duration::from_secs(15);

/// A request shorter than this is estimated: sensors average over up to a second.
pub const SHORTEST_MEASURED: Duration = Duration::from_secs(1);

/// What a token costs beside another, as integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// A prompt token that was computed; one from the cache is free.
    pub prefill: u32,
    /// A generated token.
    pub decode: u32,
}

impl Default for Weights {
    /// Decoding reads all weights for each token of a stream, a prompt is read in batches: about ten to one on one
    /// card. To be fitted from requests that ran alone.
    fn default() -> Self {
        Self { prefill: 1, decode: 10 }
    }
}

/// What the cards are on for while no shared request runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Not for sharing.
    #[default]
    Host,
    /// A model is kept loaded for sharing, there.
    Waiting(Place),
    /// The machine is kept awake for sharing, with no model loaded.
    Awake,
}

/// Where a request is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On these cards, by id.
    Cards(Vec<String>),
    /// On this machine; on which card, or whether on one, is not known: all count, and the figure is an estimate.
    Anywhere,
    /// Where nothing measures: another machine, or a processor without a sensor.
    Elsewhere,
}

/// Where energy went, all cards. The parts add up to what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Shared requests.
    pub answering: Millijoules,
    /// A model kept loaded for sharing.
    pub waiting: Millijoules,
    /// The machine kept awake for sharing.
    pub awake: Millijoules,
    /// Not for sharing.
    pub host: Millijoules,
    /// How the parts are known; `unknown` where nothing was measured.
    pub label: Label,
}

impl Split {
    /// All that was measured.
    #[must_use]
    pub fn measured(&self) -> Millijoules {
        self.answering + self.waiting + self.awake + self.host
    }

    /// What was used for sharing.
    #[must_use]
    pub fn shared(&self) -> Millijoules {
        self.answering + self.waiting + self.awake
    }
}

/// The meter of one node.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    weights: Weights,
    purpose: Purpose,
    loaded: bool,
    cards: BTreeMap<String, Card>,
    running: BTreeMap<RequestId, Running>,
    split: Split,
}

#[derive(Clone, Debug)]
struct Running {
    place: Place,
    since: Instant,
    marginal: i64,
    total: i64,
    /// Tokens computed so far, and at the last sharing out.
    tokens: Tokens,
    shared_out: Tokens,
    /// Power on its cards × the sensor's delay, when it began.
    edge: i64,
    ticks: u32,
    label: Label,
    /// Whether every part of it lay above a learned baseline.
    has_baseline: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tokens {
    prompt: u32,
    completion: u32,
}

impl Meter {
    /// A meter that shares out by these weights.
    #[must_use]
    pub fn new(weights: Weights) -> Self {
        Self { weights, ..Self::default() }
    }

    /// A card was read.
    pub fn read(&mut self, reading: &GpuReading) {
        let busy = self.running.values().any(|request| request.runs_on(&reading.id));
        let card = self.cards.entry(reading.id.clone()).or_default();
        let tick = card.advance(reading, busy, self.loaded);
        for request in self.running.values_mut().filter(|request| request.runs_on(&reading.id)) {
            match tick {
                Some(_) => request.ticks += 1,
                None if request.ticks > 0 => request.label = request.label.max(Label::Estimated),
                None => {}
            }
        }
        let Some(energy) = tick else { return };
        let guessed = |place: &Place| *place == Place::Anywhere;
        let mut here = self.running.values().filter(|request| request.runs_on(&reading.id));
        let (part, estimate) = match &self.purpose {
            _ if busy => (&mut self.split.answering, here.any(|request| guessed(&request.place))),
            Purpose::Waiting(place) if place.covers(&reading.id) => (&mut self.split.waiting, guessed(place)),
            Purpose::Awake => (&mut self.split.awake, false),
            Purpose::Waiting(_) | Purpose::Host => (&mut self.split.host, false),
        };
        *part += Millijoules(energy);
        let estimate = estimate || self.diverges(&reading.id);
        let label = if estimate { Label::Estimated } else { Label::Measured };
        if self.split.label != Label::Estimated {
            self.split.label = label;
        }
    }

    /// What the cards are on for from the last reading on, and whether a model is loaded on them, for sharing or not.
    pub fn set_purpose(&mut self, purpose: Purpose, loaded: bool) {
        self.purpose = purpose;
        self.loaded = loaded;
    }

    /// A request goes to its model server.
    pub fn begin(&mut self, id: RequestId, place: Place, at: Instant) {
        self.share_out();
        let mut request = Running {
            label: Label::Measured,
            place,
            since: at,
            marginal: 0,
            total: 0,
            tokens: Tokens::default(),
            shared_out: Tokens::default(),
            edge: 0,
            ticks: 0,
            has_baseline: true,
        };
        if request.place == Place::Anywhere {
            request.label = Label::Estimated;
        }
        request.edge = self.edge(&request);
        self.running.insert(id, request);
    }

    /// What a request has computed so far: prompt tokens that were not cached, and completion tokens.
    pub fn progress(&mut self, id: RequestId, prompt: u32, completion: u32) {
        let first = self.running.get(&id).is_some_and(|request| request.tokens == Tokens::default());
        if let Some(request) = self.running.get_mut(&id) {
            request.tokens = Tokens { prompt, completion };
        }
        // The prompt is read: until here it was the prompt that cost, from here on it is the answer.
        if first && completion > 0 {
            self.share_out();
        }
    }

    /// A request has ended: its joules. `None` parts are not known.
    pub fn end(&mut self, id: RequestId, at: Instant) -> Energy {
        self.share_out();
        let Some(request) = self.running.remove(&id) else { return Energy::default() };
        if request.ticks == 0 {
            return Energy::default();
        }
        let diverged = self.cards.iter().any(|(card, state)| request.runs_on(card) && state.diverges());
        let short = at.saturating_duration_since(request.since) < SHORTEST_MEASURED;
        let label = if diverged || short { Label::Estimated } else { request.label };
        Energy {
            marginal_mj: request.has_baseline.then_some(Millijoules(request.marginal)),
            total_mj: Some(Millijoules(request.total)),
            wall_mj: None,
            error_mj: (label == Label::Measured).then(|| Millijoules(request.edge + self.edge(&request))),
            label,
        }
    }

    /// Where energy went since this was asked last. What requests used so far is in it before they end.
    pub fn take(&mut self) -> Split {
        std::mem::take(&mut self.split)
    }

    /// What is known of each card's power, by its id.
    #[must_use]
    pub fn baselines(&self) -> BTreeMap<String, Baselines> {
        self.cards.iter().map(|(id, card)| (id.clone(), card.baselines())).collect()
    }

    /// Whether a card's own energy counter disagrees with its power readings.
    #[must_use]
    pub fn diverges(&self, gpu: &str) -> bool {
        self.cards.get(gpu).is_some_and(Card::diverges)
    }

    /// What a card's sensor cannot see of an edge: power now × its delay.
    fn edge(&self, request: &Running) -> i64 {
        self.cards.iter().filter(|(id, _)| request.runs_on(id)).map(|(_, card)| card.edge().0).sum()
    }

    /// Gives what every card used since the last time to the requests that ran on it.
    fn share_out(&mut self) {
        let ids: Vec<String> = self.cards.keys().cloned().collect();
        for id in ids {
            let Some(used) = self.cards.get_mut(&id).and_then(Card::take_used) else { continue };
            let on_card = |request: &&mut Running| request.runs_on(&id);
            let weights = self.token_weights(&id);
            let base = parts(used.base, &vec![1; weights.len()]);
            let active = parts(used.active, &weights);
            for ((request, base), active) in self.running.values_mut().filter(on_card).zip(base).zip(active) {
                request.marginal += active;
                request.total += active + base;
                request.has_baseline &= used.has_baseline;
            }
        }
        for request in self.running.values_mut() {
            request.shared_out = request.tokens;
        }
    }

    /// Weights of the requests on a card for what they computed since the last sharing out. A prompt that is still
    /// being read counts as much as all others' mean, because nobody says how far it is.
    fn token_weights(&self, gpu: &str) -> Vec<u64> {
        let requests = || self.running.values().filter(|request| request.runs_on(gpu));
        let computed = |request: &Running| {
            let (now, before) = (request.tokens, request.shared_out);
            u64::from(now.prompt.saturating_sub(before.prompt)) * u64::from(self.weights.prefill)
                + u64::from(now.completion.saturating_sub(before.completion)) * u64::from(self.weights.decode)
        };
        let known: Vec<u64> = requests().map(computed).filter(|weight| *weight > 0).collect();
        let mean = known.iter().sum::<u64>().checked_div(known.len() as u64).unwrap_or(0).max(1);
        requests()
            .map(|request| if request.tokens == Tokens::default() { mean } else { computed(request) })
            .collect()
    }
}

impl Running {
    fn runs_on(&self, gpu: &str) -> bool {
        self.place.covers(gpu)
    }
}

impl Place {
    /// Whether what this card draws counts for it.
    #[must_use]
    pub fn covers(&self, gpu: &str) -> bool {
        match self {
            Self::Cards(ids) => ids.iter().any(|id| id == gpu),
            Self::Anywhere => true,
            Self::Elsewhere => false,
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Anywhere, _) | (_, Self::Anywhere) => Self::Anywhere,
            (Self::Elsewhere, it) | (it, Self::Elsewhere) => it,
            (Self::Cards(mut ids), Self::Cards(more)) => {
                ids.extend(more);
                Self::Cards(ids)
            }
        }
    }
}

/// Cuts `amount` into integer parts by weight that add up to it exactly; equally where no weight is above zero.
fn parts(amount: i64, weights: &[u64]) -> Vec<i64> {
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

/// Power × time in millijoules, for bounds and sums: 1 mW for 1 s is 1 mJ.
fn energy(power: Milliwatts, time: Duration) -> i64 {
    let exact = i128::from(power.0) * i128::try_from(time.as_micros()).unwrap_or(i128::MAX) / 1_000_000;
    i64::try_from(exact).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
