//! Simulated cards and model servers under the governor, in virtual time: what is drawn is the simulator's truth, what
//! the governor knows is what its sensors say.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use idlewatt_core::Now;
use idlewatt_core::device::{GpuReading, LimitRange, Power, ThermalLimits};
use idlewatt_core::governor::{Card, Decision, Effect, Governor, Inputs, Service, Settings};
use idlewatt_core::meter::Place;
use idlewatt_core::windows::ShareWindows;
use idlewatt_protocol::{Millijoules, Milliwatts};
use idlewatt_simgpu as simgpu;
use idlewatt_simgpu::{Physics, Random, Sensing};
use jiff::tz::TimeZone;

/// Resolution of the simulation, s.
pub(crate) const STEP: f64 = 0.01;
/// What a cap is an average over, s.
pub(crate) const WINDOW: f64 = 10.0;

pub(crate) fn start() -> Now {
    Now {
        monotonic: Instant::now() + Duration::from_secs(1_000_000),
        wall: "2026-11-21T13:20:00Z".parse().unwrap(),
        zone: TimeZone::get("Europe/Berlin").unwrap(),
    }
}

pub(crate) fn watts(watts: f64) -> Milliwatts {
    Milliwatts((watts * 1e3).round() as i64)
}

pub(crate) fn settings() -> Settings {
    Settings {
        machine_cap: None,
        thermal: ThermalLimits::every(95),
        hot_spot_limit_c: 110,
        fan_limit: None,
        quiet_hours: ShareWindows::ALWAYS,
        daily_energy: None,
    }
}

/// What is wrong with a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Silent,
    Frozen,
    Zero,
    Backwards,
    Absurd,
}

/// A card, its host, and its sensors.
pub(crate) struct CardPlan {
    pub(crate) cap: Option<f64>,
    pub(crate) limit: f64,
    pub(crate) min_limit: f64,
    pub(crate) settable: bool,
    pub(crate) averaged: bool,
    pub(crate) tells_limit: bool,
    pub(crate) idle: f64,
    pub(crate) sensing: Sensing,
    /// The host's own load above idle, W, at a moment.
    pub(crate) host: fn(f64) -> f64,
    pub(crate) fault: fn(f64) -> Option<Fault>,
}

impl Default for CardPlan {
    fn default() -> Self {
        Self {
            cap: Some(280.0),
            limit: 450.0,
            min_limit: 100.0,
            settable: false,
            averaged: false,
            tells_limit: true,
            idle: 30.0,
            sensing: Sensing { noise_w: 3.0, ..Sensing::default() },
            host: |_| 0.0,
            fault: |_| None,
        }
    }
}

/// A model server and those who want something of it.
pub(crate) struct ServicePlan {
    pub(crate) place: Place,
    pub(crate) stoppable: bool,
    pub(crate) slots: u32,
    /// Whether there is more to do than fits, at a moment.
    pub(crate) queued: fn(f64) -> bool,
    /// W above idle while it computes, by the moment and the age of the youngest request.
    pub(crate) power: fn(f64, f64) -> f64,
    /// W above that for each request but the first.
    pub(crate) each: f64,
    /// Shortest and longest request at full speed, s.
    pub(crate) length: (f64, f64),
}

impl Default for ServicePlan {
    fn default() -> Self {
        Self {
            place: Place::Cards(vec!["GPU-0".into()]),
            stoppable: false,
            slots: 2,
            queued: |_| true,
            power: |_, _| 380.0,
            each: 0.0,
            length: (2.0, 30.0),
        }
    }
}

struct SimCard {
    plan: CardPlan,
    card: simgpu::Card,
    /// J of the host's own load.
    host: f64,
    /// As read last, and when.
    shown: Option<f64>,
    shown_at: f64,
}

struct SimService {
    plan: ServicePlan,
    /// Left, s at full speed; age, s.
    running: Vec<(f64, f64)>,
    stopped: bool,
    next_arrival: f64,
    slots: u32,
}

/// One moment of the truth.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) at: f64,
    /// J since the start: shared, and the host's own, by card.
    pub(crate) shared: Vec<f64>,
    pub(crate) host: Vec<f64>,
    /// W·s since the start: what the caps gave, by card, and for all.
    pub(crate) caps: Vec<f64>,
    pub(crate) machine_cap: f64,
    /// s since the start with more to do than ran.
    pub(crate) queued: bool,
}

/// The whole.
pub(crate) struct Plant {
    pub(crate) settings: Settings,
    pub(crate) sharing: bool,
    pub(crate) governor: Governor,
    pub(crate) used: Millijoules,
    /// How often the cards are read, s, and for how long an effect is under way, s: stop and continue, limit, cut.
    pub(crate) read_every: f64,
    pub(crate) delays: (f64, f64, f64),
    pub(crate) decisions: u64,
    pub(crate) last: Option<Decision>,
    pub(crate) told: Vec<(f64, Effect)>,
    pub(crate) truth: Vec<Moment>,
    /// Largest of what a limit's change was.
    random: Random,
    cards: Vec<SimCard>,
    services: Vec<SimService>,
    origin: Now,
    at: f64,
    read_at: f64,
    wake_at: f64,
    under_way: VecDeque<(f64, Effect)>,
}

impl Plant {
    pub(crate) fn new(
        seed: u64,
        settings: Settings,
        cards: Vec<CardPlan>,
        services: Vec<ServicePlan>,
    ) -> Self {
        let mut random = Random::new(seed);
        let cards: Vec<SimCard> = cards
            .into_iter()
            .map(|mut plan| {
                plan.sensing.phase = random.unit();
                plan.sensing.seed = random.bits();
                let load = plan.idle + (plan.host)(0.0);
                let sensing = plan.sensing.clone();
                let card = simgpu::Card::new(0.0, load, plan.limit, Physics::default(), sensing);
                SimCard { plan, card, host: 0.0, shown: None, shown_at: 0.0 }
            })
            .collect();
        let services = services.into_iter().map(|plan| {
            let next_arrival = 0.5;
            SimService { plan, running: Vec::new(), stopped: false, next_arrival, slots: 0 }
        });
        Self {
            settings,
            sharing: true,
            governor: Governor::default(),
            used: Millijoules::ZERO,
            read_every: 0.1,
            delays: (0.005, 0.03, 0.1),
            decisions: 0,
            last: None,
            told: Vec::new(),
            truth: Vec::new(),
            cards,
            services: services.collect(),
            origin: start(),
            at: 0.0,
            read_at: 0.0,
            wake_at: f64::INFINITY,
            under_way: VecDeque::new(),
            random,
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.origin.later(Duration::from_secs_f64(self.at))
    }

    pub(crate) fn set_cap(&mut self, card: usize, cap: Option<f64>) {
        self.cards[card].plan.cap = cap;
        self.decide();
    }

    /// The wall clock is set.
    pub(crate) fn jump(&mut self, seconds: i64) {
        self.origin.wall += jiff::SignedDuration::from_secs(seconds);
    }

    pub(crate) fn card(&mut self, card: usize) -> &mut simgpu::Card {
        &mut self.cards[card].card
    }

    /// Runs until a moment, s.
    pub(crate) fn run_to(&mut self, until: f64) {
        while self.at + STEP / 2.0 < until {
            self.step();
        }
    }

    fn step(&mut self) {
        self.at += STEP;
        let mut changed = self.arrivals();
        while self.under_way.front().is_some_and(|(due, _)| *due <= self.at) {
            let Some((_, effect)) = self.under_way.pop_front() else { break };
            changed |= self.apply(effect);
        }
        changed |= self.compute();
        let due = self.at >= self.read_at;
        if due {
            // Nobody is on time to the millisecond.
            self.read_at += self.read_every * self.random.within(0.9, 1.1);
        }
        if due || changed || self.at >= self.wake_at {
            self.read(due);
            self.decide();
        }
        self.note();
    }

    fn arrivals(&mut self) -> bool {
        let mut changed = false;
        for service in &mut self.services {
            let wants = (service.plan.queued)(self.at) && self.sharing;
            let running = service.running.len() as u32;
            if wants && running < service.slots && self.at >= service.next_arrival {
                let length = self.random.within(service.plan.length.0, service.plan.length.1);
                service.running.push((length, 0.0));
                service.next_arrival = self.at + self.random.within(0.01, 0.05);
                changed = true;
            }
        }
        changed
    }

    fn apply(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::SetLimit { card, limit } => {
                let card = &mut self.cards[index(&card)];
                let watts = limit.map_or(card.plan.limit, |limit| limit.to_main_unit());
                assert!(watts >= card.plan.min_limit && watts <= card.plan.limit, "{watts} W out of range");
                card.card.set_limit(watts);
                false
            }
            Effect::Stop { service } => {
                self.services[index(&service)].stopped = true;
                false
            }
            Effect::Continue { service } => {
                self.services[index(&service)].stopped = false;
                false
            }
            Effect::Cut { service, .. } => {
                self.services[index(&service)].running.clear();
                true
            }
        }
    }

    fn compute(&mut self) -> bool {
        let mut loads: Vec<f64> =
            self.cards.iter().map(|it| it.plan.idle + (it.plan.host)(self.at)).collect();
        let hosts: Vec<f64> = self.cards.iter().map(|it| (it.plan.host)(self.at)).collect();
        let mut speeds = vec![1.0; self.services.len()];
        for (service, speed) in self.services.iter_mut().zip(&mut speeds) {
            if service.stopped || service.running.is_empty() {
                *speed = 0.0;
                continue;
            }
            let age = service.running.iter().map(|(_, age)| *age).fold(f64::INFINITY, f64::min);
            let more = service.running.len().saturating_sub(1) as f64;
            let asks = (service.plan.power)(self.at, age) + service.plan.each * more;
            for (index, load) in loads.iter_mut().enumerate() {
                if service.plan.place.covers(&self.cards[index].plan_id(index)) {
                    *load += asks;
                    let limit = self.cards[index].card.limit();
                    *speed = f64::min(*speed, ((limit - (*load - asks)) / asks).clamp(0.05, 1.0));
                }
            }
        }
        for ((card, load), host) in self.cards.iter_mut().zip(loads).zip(hosts) {
            card.card.set_load(load);
            let before = card.card.truth().energy_j;
            card.card.run_to(self.at);
            card.host += (card.card.truth().energy_j - before) * host / load;
        }
        let mut changed = false;
        for (service, speed) in self.services.iter_mut().zip(speeds) {
            let before = service.running.len();
            for (left, age) in &mut service.running {
                *left -= STEP * speed;
                *age += STEP * f64::from(speed > 0.0);
            }
            service.running.retain(|(left, _)| *left > 0.0);
            changed |= service.running.len() != before;
        }
        changed
    }

    fn read(&mut self, due: bool) {
        for (at, card) in self.cards.iter_mut().enumerate() {
            if due {
                card.shown_at = self.at;
                let power = if card.plan.averaged {
                    card.card.averaged_power_w()
                } else {
                    card.card.instant_power_w()
                };
                card.shown = match (card.plan.fault)(self.at) {
                    None => Some(power),
                    Some(Fault::Silent) => None,
                    Some(Fault::Frozen) => card.shown,
                    Some(Fault::Zero) => Some(0.0),
                    Some(Fault::Backwards) => Some(power),
                    Some(Fault::Absurd) => Some(if at % 2 == 0 { -5.0 } else { 4e6 }),
                };
            }
        }
    }

    fn readings(&self) -> Vec<Card> {
        let now = self.now();
        let read = |(index, it): (usize, &SimCard)| {
            let backwards = (it.plan.fault)(self.at) == Some(Fault::Backwards);
            let back = it.shown_at - if backwards { 30.0 } else { 0.0 };
            let at = now.monotonic - Duration::from_secs_f64(self.at - back);
            let mut reading = GpuReading::silent(it.plan_id(index), "Simulated card", at);
            reading.power = it.shown.map(|power| Power { value: watts(power), averaged: it.plan.averaged });
            reading.temperature_c = Some(it.card.truth().temperature_c.round() as i32);
            reading.hot_spot_c = Some(it.card.hot_spot_c().round() as i32);
            reading.fan_percent = Some(it.card.fan_percent().round() as u32);
            if it.plan.tells_limit {
                reading.limit = Some(watts(it.card.limit()));
                reading.default_limit = Some(watts(it.plan.limit));
                let (min, max) = (watts(it.plan.min_limit), watts(it.plan.limit));
                reading.limit_range = Some(LimitRange { min, max });
            }
            Card { reading, cap: it.plan.cap.map(watts), settable: it.plan.settable, own_use: false }
        };
        self.cards.iter().enumerate().map(read).collect()
    }

    pub(crate) fn decide(&mut self) -> &Decision {
        let services: Vec<Service> = self
            .services
            .iter()
            .enumerate()
            .map(|(index, it)| Service {
                id: format!("service-{index}"),
                place: it.plan.place.clone(),
                stoppable: it.plan.stoppable,
                slots: it.plan.slots,
                running: it.running.len() as u32,
            })
            .collect();
        let (now, cards) = (self.now(), self.readings());
        let used = (now.local().date(), self.used);
        let inputs = Inputs { cards: &cards, services: &services, sharing: self.sharing, used };
        let decision = self.governor.decide(&self.settings, &inputs, &now);
        self.decisions += 1;
        for effect in &decision.effects {
            self.told.push((self.at, effect.clone()));
            let delay = match effect {
                Effect::Stop { .. } | Effect::Continue { .. } => self.delays.0,
                Effect::SetLimit { .. } => self.delays.1,
                Effect::Cut { .. } => self.delays.2,
            };
            self.under_way.push_back((self.at + delay, effect.clone()));
        }
        self.under_way.make_contiguous().sort_by(|one, other| one.0.total_cmp(&other.0));
        for (service, admission) in self.services.iter_mut().zip(&decision.services) {
            service.slots = admission.slots;
        }
        self.wake_at = decision.wake.map_or(f64::INFINITY, |wake| {
            assert!(wake.at > now.monotonic, "a wake-up that is past would spin: {wake:?}");
            self.at + (wake.at - now.monotonic).as_secs_f64()
        });
        self.last.insert(decision)
    }

    fn note(&mut self) {
        let last = self.truth.last();
        let sum = |before: Option<f64>, rate: Option<f64>| before.unwrap_or(0.0) + rate.unwrap_or(0.0) * STEP;
        let (mut shared, mut host, mut caps) = (Vec::new(), Vec::new(), Vec::new());
        for (index, it) in self.cards.iter().enumerate() {
            host.push(it.host);
            shared.push(it.card.truth().energy_j - it.host);
            caps.push(sum(last.map(|last| last.caps[index]), it.plan.cap));
        }
        let machine = self.settings.machine_cap.map(Milliwatts::to_main_unit);
        let machine_cap = sum(last.map(|last| last.machine_cap), machine);
        let queued = self.services.iter().all(|it| (it.plan.queued)(self.at));
        self.truth.push(Moment { at: self.at, shared, host, caps, machine_cap, queued });
    }

    /// Over all windows that end settled, the worst shared energy as a part of what the cap gave.
    pub(crate) fn worst(&self, settled: impl Fn(f64) -> bool, of: impl Fn(&Moment) -> (f64, f64)) -> f64 {
        let bins = (WINDOW / STEP).round() as usize;
        let windows = self.truth.iter().zip(self.truth.iter().skip(bins));
        windows
            .filter(|(_, end)| settled(end.at))
            .map(|(begin, end)| {
                let ((used, gave), (used_then, gave_then)) = (of(end), of(begin));
                (used - used_then) / (gave - gave_then)
            })
            .fold(0.0, f64::max)
    }

    /// Shared energy as a part of what the cap gave beside the host, while there was more to do than ran.
    pub(crate) fn part_used(&self, from: f64, of: impl Fn(&Moment) -> (f64, f64)) -> f64 {
        let (mut used, mut gave) = (0.0, 0.0);
        for pair in self.truth.windows(2).filter(|pair| pair[0].at >= from && pair[1].queued) {
            let ((used_then, gave_then), (used_now, gave_now)) = (of(&pair[0]), of(&pair[1]));
            let host: f64 = pair[1].host.iter().zip(&pair[0].host).map(|(now, then)| now - then).sum();
            used += used_now - used_then;
            gave += (gave_now - gave_then - host).max(0.0);
        }
        used / gave
    }

    pub(crate) fn count(&self, of: impl Fn(&Effect) -> bool) -> usize {
        self.told.iter().filter(|(_, effect)| of(effect)).count()
    }
}

impl SimCard {
    fn plan_id(&self, index: usize) -> String {
        format!("GPU-{index}")
    }
}

fn index(id: &str) -> usize {
    id.rsplit('-').next().unwrap().parse().unwrap()
}

/// A card's shared energy against its own cap.
pub(crate) fn card(index: usize) -> impl Fn(&Moment) -> (f64, f64) {
    move |moment| (moment.shared[index], moment.caps[index])
}

/// All cards' shared energy against the cap for all.
pub(crate) fn machine(moment: &Moment) -> (f64, f64) {
    (moment.shared.iter().sum(), moment.machine_cap)
}
