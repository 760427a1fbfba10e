//! The power governor: sharing never draws more than the host allows, over any ten seconds.
//!
//! A pure state machine. It takes what the cards say, what runs where, and the host's limits; it says which limit binds
//! each card, what each service may start, and gives [`Effect`]s: set a card's own limit, stop and continue a model
//! server of the node's own, end what cannot go on. How it accounts is in docs/design/governing.md: every stretch of
//! work is charged at the worst the card can do until a sensor has told what it did.
//!
//! Whether to share at all is the policy's; what the joules cost, the meter's and the tariff's. The host's own load takes
//! from what sharing may use and is never counted against it.

mod account;
mod card;
mod deciding;
mod levels;
mod limits;
mod sense;
mod slicing;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use idlewatt_protocol::{Millijoules, Milliwatts};
use jiff::civil::Date;

use crate::device::{GpuReading, ThermalLimits};
use crate::meter::Place;
use crate::windows::ShareWindows;
use crate::{Now, Wakeup};
use account::{Doing, GREATEST, Micros, Pace, Power, SECOND, Together};
use card::{Governed, over};
use deciding::{SLICE, Scene, duration};
use limits::{Claim, Today, shares};
use slicing::Slicing;

/// What a cap is an average over. Shorter than what heats a cable or trips a breaker at a few percent over, longer than
/// the slowest sensor.
pub const WINDOW: Duration = Duration::from_secs(10);

/// What the host set for all cards. A card's own cap comes with the card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `power.machine_cap`: most power of all cards together.
    pub machine_cap: Option<Milliwatts>,
    /// `thermal.limit`. Power is lowered in the last few degrees below it, and is zero at it.
    pub thermal: ThermalLimits,
    /// `thermal.hot_spot`, °C: the same for the hottest spot that a card tells of.
    pub hot_spot_limit_c: i32,
    /// `thermal.fan_limit`, percent: the same for the fan, in quiet hours.
    pub fan_limit: Option<u32>,
    /// `thermal.quiet_hours`
    pub quiet_hours: ShareWindows,
    /// `power.daily_energy`: most energy that sharing may use in a local day.
    pub daily_energy: Option<Millijoules>,
}

/// What is known now.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Every card, as it was read last. A reading that was brought before is not counted twice.
    pub cards: &'a [Card],
    /// Every service that the host shares.
    pub services: &'a [Service],
    /// Whether the node shares. While it does not and nothing shared runs, a card has its own limit back.
    pub sharing: bool,
    /// Energy that sharing used on a local day; counts only while that is today.
    pub used: (Date, Millijoules),
}

/// A card.
#[derive(Clone, Debug)]
pub struct Card {
    /// As read last.
    pub reading: GpuReading,
    /// `power.cap` for this card; `None` where the host set none and the card does not tell what it was made for.
    pub cap: Option<Milliwatts>,
    /// Whether its own limit can be set now, through the driver or the helper.
    pub settable: bool,
    /// Whether the host's own work is known to use it now. Its power then teaches nothing about shared work.
    pub own_use: bool,
}

/// A service that the host shares.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// Where it computes. [`Place::Anywhere`] is held to the strictest of all cards; [`Place::Elsewhere`] to none.
    pub place: Place,
    /// Whether its process is the node's own, so that it may be stopped and continued.
    pub stoppable: bool,
    /// Most requests at once.
    pub slots: u32,
    /// Shared requests that run now.
    pub running: u32,
}

/// What holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Each card, in the order given.
    pub cards: Vec<Held>,
    /// Each service, in the order given.
    pub services: Vec<Admission>,
    /// What to do now, in this order.
    pub effects: Vec<Effect>,
    /// When to ask again even if nothing happens.
    pub wake: Option<Wakeup>,
}

/// What holds a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The card's id.
    pub card: String,
    /// The lowest of all limits; `None` where there is none.
    pub cap: Option<Milliwatts>,
    /// The limit that it comes from.
    pub binding: Option<Limit>,
    /// Who holds it.
    pub actuator: Actuator,
    /// Why the card's own limit does not hold it alone; `None` where it does, or where there is no cap.
    pub not_hardware: Option<NotHardware>,
}

/// A limit, with its facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The host's cap for this card.
    UserCap,
    /// The host's cap for all cards: this card's part of it.
    MachineCap {
        /// For all cards.
        cap: Milliwatts,
    },
    /// The core is nearly too hot.
    Temperature {
        /// °C
        reading_c: i32,
        /// °C
        limit_c: i32,
    },
    /// The hottest spot is nearly too hot.
    HotSpot {
        /// °C
        reading_c: i32,
        /// °C
        limit_c: i32,
    },
    /// The fan is nearly too loud for these hours.
    Fan {
        /// Percent.
        reading: u32,
        /// Percent.
        limit: u32,
        /// When these hours end; `None` where they never do.
        until: Option<jiff::Timestamp>,
    },
    /// The day's energy is nearly used.
    DailyEnergy {
        /// Used today.
        used: Millijoules,
        /// For a day.
        limit: Millijoules,
        /// The next local midnight.
        until: jiff::Timestamp,
    },
    /// The card's own greatest limit.
    Card,
}

/// Who holds a cap, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actuator {
    /// The card itself.
    Hardware,
    /// Model servers of the node's own are stopped and continued.
    DutyCycle,
    /// Fewer, later and shorter requests.
    Admission,
    /// Nobody: there is no cap, nothing measures this card, or nothing fits under the cap.
    Nobody,
}

/// Why a card's own limit does not hold its cap alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHardware {
    /// It cannot be set here; the engine knows why.
    NotSettable,
    /// The card takes none as low as the cap.
    BelowRange {
        /// The lowest that it takes.
        min: Milliwatts,
    },
    /// It was set, and the card does not show it yet.
    NotInForce,
}

/// What a service may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The service's id.
    pub service: String,
    /// Most shared requests that may run at once now, those that run included; zero: none may start.
    pub slots: u32,
    /// Where none may start: when to look again at the latest, as far as is known.
    pub next: Option<Instant>,
    /// Where none may start: why.
    pub refusal: Option<Refusal>,
}

/// Why a service may start nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The cap's energy of the last ten seconds is used. Passes within seconds: the node is busy.
    Used,
    /// A limit that passes by itself leaves too little.
    Limited(Limit),
    /// The host's own load leaves too little.
    HostLoad {
        /// What the card draws without shared work.
        draws: Milliwatts,
        /// What it may draw.
        cap: Milliwatts,
    },
    /// A card that it computes on is not to share (`gpus.off`). The governor is told of no such card as one that shares, and
    /// never says this itself.
    Off,
    /// `cap_unenforceable`: nothing of this service fits under the cap as it is set.
    CapUnenforceable(Unenforceable),
}

/// Why a cap cannot be held for a service at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unenforceable {
    /// The card tells neither its power nor its limit.
    NothingMeasures,
    /// The smallest slice of work can take more energy than the cap leaves in [`WINDOW`].
    SmallestSlice {
        /// How the slice is made.
        by: Actuator,
        /// What it lasts.
        slice: Duration,
        /// What it can take, with the idle rest of the window.
        needs: Millijoules,
        /// What the cap leaves.
        leaves: Millijoules,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Set the card's own limit; `None`: give it back the one it had.
    SetLimit {
        /// The card's id.
        card: String,
        /// Within its range, in whole watts.
        limit: Option<Milliwatts>,
    },
    /// Stop the service's process, with all that it computes.
    Stop {
        /// The service's id.
        service: String,
    },
    /// Continue it.
    Continue {
        /// The service's id.
        service: String,
    },
    /// End the service's shared requests now: their networks are told that they were given up. Its process runs.
    Cut {
        /// The service's id.
        service: String,
        /// For people and the log.
        why: Refusal,
    },
}

/// What the governor remembers between two questions.
#[derive(Clone, Debug, Default)]
pub struct Governor {
    origin: Option<Instant>,
    at: Micros,
    cards: BTreeMap<String, Governed>,
    together: Together,
    machine_cap: Option<Power>,
    machine_pace: Pace,
    slicing: Slicing,
}

/// A card that is not told of any more is remembered this long, as one whose sensor is silent.
const REMEMBERED: Micros = 60 * SECOND;
/// Civil time may jump, and timers stand still while a machine sleeps.
const WALL_RECHECK: Duration = Duration::from_secs(60);

impl Governor {
    /// Decides. To be asked after every reading, right after a request began or ended, on every change of a setting or
    /// a service, and at [`Decision::wake`]. Between two questions what was decided holds.
    pub fn decide(&mut self, settings: &Settings, inputs: &Inputs<'_>, now: &Now) -> Decision {
        let origin = *self.origin.get_or_insert(now.monotonic);
        let at = micros(now.monotonic.saturating_duration_since(origin)).max(self.at);
        let passed = self.pass(at);
        self.read(inputs, origin, passed);
        let today = Today::new(settings, inputs, now);
        self.limit(settings, inputs, &today);
        let active = inputs.sharing || inputs.services.iter().any(|it| it.running > 0);
        let mut effects = self.hold(active);

        let scene = Scene::new(now.monotonic, at, &self.cards, &self.together, self.machine_cap);
        let machine_in_pace = self.machine_cap.is_none() || self.machine_pace.allows();
        let in_pace = |ids: &[&str]| {
            machine_in_pace && ids.iter().filter_map(|id| self.cards.get(*id)).all(Governed::in_pace)
        };
        let work = self.slicing.decide(&scene, inputs.services, in_pace, &mut effects);
        let admit = |it: &Service| scene.admission(it, &scene.under(it), &work.cards);
        let services: Vec<Admission> = inputs.services.iter().map(admit).collect();
        let open: Vec<(&Service, bool)> = inputs
            .services
            .iter()
            .zip(&services)
            .map(|(it, admission)| (it, !matches!(admission.refusal, Some(Refusal::CapUnenforceable(_)))))
            .collect();
        let known = inputs.cards.iter().filter_map(|card| self.cards.get(&card.reading.id));
        let cards = known.map(|card| self.held(card, scene.actuator(card, &open))).collect();

        let mut wake = Wake(None);
        wake.at(work.again.map(|again| now.monotonic + duration(again - at)), "the next slice");
        if self.cards.values().any(|card| card.pending) {
            wake.at(Some(now.monotonic + duration(SLICE)), "a limit takes effect");
        }
        if inputs.sharing {
            let next = services.iter().filter_map(|it| it.next).min();
            wake.at(next, "there is energy for a request");
            for turn in [today.midnight, today.quiet_changes] {
                let turn = turn.map(|at| now.instant_of(at).min(now.monotonic + WALL_RECHECK));
                wake.at(turn, "a limit's hours turn");
            }
        }

        let (works, waits): (Vec<String>, Vec<String>) = (owned(&work.cards), owned(&work.waiting));
        for (id, card) in &mut self.cards {
            card.turn_to(at, works.contains(id), waits.contains(id));
        }
        Decision { cards, services, effects, wake: wake.0 }
    }

    /// Time passed with what was decided last; how much.
    fn pass(&mut self, at: Micros) -> Micros {
        let from = std::mem::replace(&mut self.at, at);
        for card in self.cards.values_mut() {
            card.pass(from, at);
        }
        self.together.advance(from, at, self.machine_cap);
        at - from
    }

    fn read(&mut self, inputs: &Inputs<'_>, origin: Instant, passed: Micros) {
        let at = self.at;
        for card in inputs.cards {
            let read_at = micros(card.reading.at.saturating_duration_since(origin)).min(at);
            let known = self.cards.entry(card.reading.id.clone());
            known.or_insert_with(|| Governed::new(card.clone(), at)).read(card, read_at, at);
        }
        for card in self.cards.values_mut() {
            let here = |it: &&Service| !it.stoppable && it.place.covers(&card.told.reading.id);
            card.count(inputs.services.iter().filter(here).map(|it| it.running as usize).sum(), at);
        }
        self.cards.retain(|_, card| card.doing != Doing::Rest || at - card.told_at < REMEMBERED);
        for card in self.cards.values_mut() {
            card.keep_pace(passed);
        }
        let total = self.cards.values().map(|card| card.account.total()).sum();
        let rests = self.cards.values().all(|card| card.doing == Doing::Rest);
        self.machine_pace.keep(total, self.machine_cap, passed, rests);
    }

    /// Finds the lowest limit of each card, and its part of the machine's cap.
    fn limit(&mut self, settings: &Settings, inputs: &Inputs<'_>, today: &Today) {
        let count = i64::try_from(self.cards.len()).unwrap_or(i64::MAX);
        for card in self.cards.values_mut() {
            card.limit(settings, today, count);
        }
        self.machine_cap = settings.machine_cap.map(|it| it.0.clamp(0, GREATEST));
        let Some(cap) = self.machine_cap else {
            self.cards.values_mut().for_each(|card| card.share = None);
            return;
        };
        let at = self.at;
        let accounts = self.cards.values().map(|it| &it.account);
        let resting = self.cards.values().map(Governed::resting).sum();
        let cap = cap - over(self.together.window(accounts, at, cap, 100, resting).room(), cap);
        let works = |card: &Governed| {
            let runs = |it: &Service| it.running > 0 && it.place.covers(&card.told.reading.id);
            card.doing != Doing::Rest || inputs.services.iter().any(runs)
        };
        let rests: Power = self.cards.values().filter(|it| !works(it)).map(Governed::resting).sum();
        let claims: Vec<Claim> = self.cards.values().filter(|it| works(it)).map(|it| it.claim(at)).collect();
        let mut working = shares(cap - rests, &claims).into_iter();
        // A card that rests has its own limit ready at what it would get with all at work.
        let all: Vec<Claim> = self.cards.values().map(|it| it.claim(at)).collect();
        let with_all = shares(cap, &all);
        for (card, ready) in self.cards.values_mut().zip(with_all) {
            card.share = if works(card) { working.next() } else { Some(ready) };
        }
    }

    /// Sets and gives back the cards' own limits: lower ones first, so that their sum never rises in between.
    fn hold(&mut self, active: bool) -> Vec<Effect> {
        let at = self.at;
        let mut effects: Vec<(bool, Effect)> =
            self.cards.values_mut().filter_map(|card| card.hold(active, at)).collect();
        effects.sort_by_key(|(lowers, _)| !lowers);
        effects.into_iter().map(|(_, effect)| effect).collect()
    }

    fn held(&self, card: &Governed, actuator: Actuator) -> Held {
        let lowest = card.lowest();
        let machine = Limit::MachineCap { cap: Milliwatts(self.machine_cap.unwrap_or_default()) };
        Held {
            card: card.told.reading.id.clone(),
            cap: lowest.map(|(cap, _)| Milliwatts(cap)),
            binding: lowest.map(|(_, limit)| limit.unwrap_or(machine)),
            actuator,
            not_hardware: card.not_hardware(),
        }
    }
}

/// The earliest of several moments.
struct Wake(Option<Wakeup>);

impl Wake {
    fn at(&mut self, at: Option<Instant>, why: &'static str) {
        if let Some(at) = at
            && self.0.is_none_or(|wake| at < wake.at)
        {
            self.0 = Some(Wakeup { at, why });
        }
    }
}

fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX)
}

fn owned(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}
