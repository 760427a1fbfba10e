//! The energy meter: where each millijoule went, and how well that is known.
//!
//! Each card's energy comes from its power and its own counter together ([`gauge`]). What a card used while requests ran
//! is shared among them at every change of what runs: the part that the loaded, idle card would have used anyway
//! equally, the rest by what each computed, at what a token of its service was found to cost on that card ([`cost`]).
//! Integers throughout: what requests used and what nobody asked for always add up to what was measured, exactly.
//!
//! Where sensors disagree, fall silent or stand still, no figure is called measured. A change counts from the last
//! reading on: read every card right before `begin`, `end` and [`Meter::set_purpose`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::{Label, Millijoules, Milliwatts, RequestId};

use crate::device::GpuReading;

mod baseline;
mod card;
mod cost;
mod gauge;
mod silence;
mod wall;

pub use baseline::Baselines;
use card::{Card, Computed, Share};
use gauge::{Found, Tick};
use wall::Wall;

/// Power is not assumed to have gone in a straight line for longer than this between two readings.
pub const MAX_GAP: Duration = Duration::from_secs(15);

/// A request shorter than this is estimated: sensors average over up to a second.
pub const SHORTEST_MEASURED: Duration = Duration::from_secs(1);

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

/// A request as the meter sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What computes it: tokens of the same service cost the same on the same card.
    pub service: String,
    /// Where.
    pub place: Place,
    /// The host's own: metered like any other, and no part of what was used for sharing.
    pub own: bool,
}

/// What a request has computed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Prompt tokens that were computed.
    pub prompt: u32,
    /// Prompt tokens that were known from before: they cost nothing but are context.
    pub cached: u32,
    /// Tokens generated.
    pub completion: u32,
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
    /// Not for sharing: the host's own requests, and whatever else used the cards.
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

    fn known_as(&mut self, label: Label) {
        if self.label != Label::Estimated {
            self.label = label;
        }
    }
}

/// The meter of one node.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    purpose: Purpose,
    loaded: bool,
    cards: BTreeMap<String, Card>,
    running: BTreeMap<RequestId, Running>,
    split: Split,
    wall: Wall,
}

#[derive(Clone, Debug)]
struct Running {
    task: Task,
    since: Instant,
    marginal: i64,
    total: i64,
    /// Tokens computed so far, and at the last sharing out.
    tokens: Tokens,
    shared_out: Tokens,
    /// Error: of the edge at its beginning, mJ; of what power did between readings, mJ²; of its shares and its base, mJ.
    edge: i64,
    chance: f64,
    unsure: f64,
    ticks: u32,
    label: Label,
    /// Whether every part of it lay above a learned baseline.
    has_baseline: bool,
}

impl Meter {
    /// A card was read.
    pub fn read(&mut self, reading: &GpuReading) {
        let busy = self.running.values().any(|request| request.runs_on(&reading.id));
        let card = self.cards.entry(reading.id.clone()).or_default();
        let found = card.advance(reading, busy, self.loaded);
        let diverges = card.gauge.diverges();
        for request in self.running.values_mut().filter(|request| request.runs_on(&reading.id)) {
            request.ticks += u32::from(matches!(found, Found::Energy(_)));
            if found == Found::Lost || diverges {
                request.label = request.label.max(Label::Estimated);
            }
        }
        if let Found::Energy(tick) = found {
            self.split.known_as(if diverges { Label::Estimated } else { Label::Measured });
            if !busy {
                self.keep_idle(reading, tick);
            }
        }
    }

    /// What the cards are on for from the last reading on, and whether a model is loaded on them, for sharing or not.
    pub fn set_purpose(&mut self, purpose: Purpose, loaded: bool) {
        self.purpose = purpose;
        self.loaded = loaded;
    }

    /// A request goes to its model server.
    pub fn begin(&mut self, id: RequestId, task: Task, at: Instant) {
        self.share_out();
        let label = if task.place == Place::Anywhere { Label::Estimated } else { Label::Measured };
        let mut request = Running {
            task,
            since: at,
            marginal: 0,
            total: 0,
            tokens: Tokens::default(),
            shared_out: Tokens::default(),
            edge: 0,
            chance: 0.0,
            unsure: 0.0,
            ticks: 0,
            label,
            has_baseline: true,
        };
        request.edge = self.edge(&request);
        self.running.insert(id, request);
    }

    /// What a request has computed so far. The first time ends the reading of its prompt.
    pub fn progress(&mut self, id: RequestId, tokens: Tokens) {
        let Some(request) = self.running.get(&id) else { return };
        if !request.is_silent() || tokens == Tokens::default() {
            if let Some(request) = self.running.get_mut(&id) {
                request.tokens = tokens;
            }
            return;
        }
        // Until here it was the prompt that cost, from here on it is the answer.
        self.share_out();
        let Some(request) = self.running.get_mut(&id) else { return };
        request.tokens = tokens;
        request.shared_out = tokens;
        let task = request.task.clone();
        let cards = self.cards.iter_mut().filter(|(gpu, _)| task.place.covers(gpu));
        let shares: Vec<_> = cards.flat_map(|(_, card)| card.speaks(id, &task.service, tokens)).collect();
        self.give(shares);
    }

    /// A request has ended: its joules. `None` parts are not known.
    pub fn end(&mut self, id: RequestId, at: Instant) -> Energy {
        self.share_out();
        let Some(request) = self.running.get(&id) else { return Energy::default() };
        let (task, silent) = (request.task.clone(), request.is_silent());
        let mut shares = Vec::new();
        for (_, card) in self.cards.iter_mut().filter(|(gpu, _)| task.place.covers(gpu)) {
            if silent {
                card.spoil();
            }
            shares.extend(card.leaves(id, &task.service));
        }
        self.give(shares);
        let Some(request) = self.running.remove(&id) else { return Energy::default() };
        for (gpu, card) in self.cards.iter_mut().filter(|(gpu, _)| request.runs_on(gpu)) {
            if !self.running.values().any(|other| other.runs_on(gpu)) {
                card.rest();
            }
        }
        if request.ticks == 0 {
            return Energy::default();
        }
        let time = at.saturating_duration_since(request.since);
        let alive_for = request.since.checked_sub(SHORTEST_MEASURED).unwrap_or(request.since);
        let mut cards = self.cards.iter().filter(|(gpu, _)| request.runs_on(gpu));
        // A sensor that shows one value through idleness and work shows neither.
        let stuck = request.tokens.completion > 0
            && time > SHORTEST_MEASURED
            && cards.any(|(_, card)| card.gauge.is_stuck_since(alive_for));
        let label = if stuck || time < SHORTEST_MEASURED { Label::Estimated } else { request.label };
        let total = Millijoules(request.total);
        Energy {
            marginal_mj: request.has_baseline.then_some(Millijoules(request.marginal)),
            total_mj: Some(total),
            wall_mj: self.wall.of(total),
            error_mj: (label == Label::Measured).then(|| Millijoules(self.error(&request))),
            label,
        }
    }

    /// A plug says what the whole machine draws, at the moment at which the cards were read last.
    pub fn calibrate(&mut self, wall: Milliwatts) {
        let cards: Option<Milliwatts> = self.cards.values().map(|card| card.gauge.power()).sum();
        if let Some(cards) = cards.filter(|_| !self.cards.is_empty()) {
            self.wall.learn(cards, wall);
        }
    }

    /// Where energy went since this was asked last. What requests used so far is in it before they end.
    pub fn take(&mut self) -> Split {
        self.share_out();
        std::mem::take(&mut self.split)
    }

    /// All that was ever measured, all cards: what the parts of every [`Split`] add up to.
    #[must_use]
    pub fn measured(&self) -> Millijoules {
        self.cards.values().map(|card| card.gauge.given()).sum()
    }

    /// What is known of each card's power, by its id.
    #[must_use]
    pub fn baselines(&self) -> BTreeMap<String, Baselines> {
        self.cards.iter().map(|(id, card)| (id.clone(), card.baselines())).collect()
    }

    /// Whether a card's own energy counter disagrees with its power readings.
    #[must_use]
    pub fn diverges(&self, gpu: &str) -> bool {
        self.cards.get(gpu).is_some_and(|card| card.gauge.diverges())
    }

    /// A tick in which no request ran on the card.
    fn keep_idle(&mut self, reading: &GpuReading, tick: Tick) {
        let Some(card) = self.cards.get(&reading.id) else { return };
        let (part, loaded) = match &self.purpose {
            Purpose::Waiting(place) if place.covers(&reading.id) => {
                if *place == Place::Anywhere {
                    self.split.label = Label::Estimated;
                }
                (&mut self.split.waiting, true)
            }
            Purpose::Awake => (&mut self.split.awake, false),
            Purpose::Waiting(_) | Purpose::Host => {
                self.split.host += Millijoules(tick.energy);
                return;
            }
        };
        let idle = card.idle_part(tick, reading, loaded);
        *part += Millijoules(idle);
        self.split.host += Millijoules(tick.energy - idle);
    }

    /// What the sensors cannot see of an edge. With others on the card, theirs is most of it.
    fn edge(&self, request: &Running) -> i64 {
        let on = |gpu: &str| self.running.values().filter(|other| other.runs_on(gpu)).count() + 1;
        let edge = |(gpu, card): (&String, &Card)| card.gauge.edge() / i64::try_from(on(gpu)).unwrap_or(1);
        self.cards.iter().filter(|(gpu, _)| request.runs_on(gpu)).map(edge).sum()
    }

    /// Half width of the error: the sources of it are independent of each other.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an error")]
    fn error(&self, request: &Running) -> i64 {
        let edges = (request.edge + self.edge(request)) as f64;
        (edges.powi(2) + 4.0 * request.chance + request.unsure.powi(2)).sqrt().ceil() as i64
    }

    /// Gives what every card used since the last time to the requests that ran on it.
    fn share_out(&mut self) {
        let mut shares = Vec::new();
        for (gpu, card) in &mut self.cards {
            let Some(used) = card.take_used() else { continue };
            let here = self.running.iter().filter(|(_, request)| request.runs_on(gpu));
            let all: Vec<Computed<'_>> = here.map(|(id, request)| request.computed(*id)).collect();
            shares.extend(all.iter().map(|it| it.id).zip(card.share(&used, &all)));
            card.learn(&used, &all);
        }
        self.give(shares);
        for request in self.running.values_mut() {
            request.shared_out = request.tokens;
        }
    }

    fn give(&mut self, shares: Vec<(RequestId, Share)>) {
        for (id, share) in shares {
            let Some(request) = self.running.get_mut(&id) else { continue };
            let part = if request.task.own { &mut self.split.host } else { &mut self.split.answering };
            *part += Millijoules(share.active + share.base);
            if request.task.place == Place::Anywhere {
                self.split.label = Label::Estimated;
            }
            request.take(share);
        }
    }
}

impl Running {
    fn runs_on(&self, gpu: &str) -> bool {
        self.task.place.covers(gpu)
    }

    /// Nothing was said of it yet: its prompt is being read, or its answer comes in one piece.
    fn is_silent(&self) -> bool {
        self.tokens == Tokens::default()
    }

    /// What it computed since the last sharing out.
    fn computed(&self, id: RequestId) -> Computed<'_> {
        let (tokens, before) = (self.tokens, self.shared_out);
        Computed {
            id,
            service: &self.task.service,
            silent: self.is_silent(),
            prompt: tokens.prompt.saturating_sub(before.prompt),
            decoded: tokens.completion.saturating_sub(before.completion),
            context: tokens.prompt.saturating_add(tokens.cached).saturating_add(before.completion),
        }
    }

    fn take(&mut self, share: Share) {
        self.marginal += share.active;
        self.total += share.active + share.base;
        self.has_baseline &= !share.no_baseline;
        self.chance += share.chance;
        self.unsure += share.unsure;
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

/// Power × time in millijoules: 1 mW for 1 s is 1 mJ.
fn energy(power: Milliwatts, time: Duration) -> i64 {
    let exact = i128::from(power.0) * i128::try_from(time.as_micros()).unwrap_or(i128::MAX) / 1_000_000;
    i64::try_from(exact).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
