//! The governor on simulated cards: sharing stays under its cap, and uses it.
//!
//! `script/show governor` runs more seeds for longer and prints the table.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "helpers of tests fail as tests do, and watts are small"
)]

mod plant;
mod properties;
mod rules;

use idlewatt_core::governor::Effect;
use idlewatt_core::meter::Place;
use idlewatt_simgpu::Sensing;
use plant::{CardPlan, Fault, Moment, Plant, ServicePlan, card, machine, settings, watts};

/// Shared energy in any ten seconds, as a part of what the cap gives.
const MOST: f64 = 1.02;
/// How long it may take to settle after the start and after a change of the cap, s.
const SETTLED: f64 = 5.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Hardware,
    DutyCycle,
    Admission,
}

impl By {
    /// Least part of the cap that is used while there is more to do than fits.
    fn least(self) -> f64 {
        if self == Self::Admission { 0.7 } else { 0.9 }
    }

    fn card(self) -> CardPlan {
        CardPlan { settable: self == Self::Hardware, ..CardPlan::default() }
    }

    fn service(self) -> ServicePlan {
        ServicePlan { stoppable: self == Self::DutyCycle, ..ServicePlan::default() }
    }

    fn one(self, change: impl FnOnce(&mut CardPlan, &mut ServicePlan)) -> (Vec<CardPlan>, Vec<ServicePlan>) {
        let (mut card, mut service) = (self.card(), self.service());
        change(&mut card, &mut service);
        (vec![card], vec![service])
    }

    fn two(self, cap: f64) -> (Vec<CardPlan>, Vec<ServicePlan>) {
        let card = || CardPlan { cap: Some(cap), ..self.card() };
        let on = |id: &str| ServicePlan { place: Place::Cards(vec![id.into()]), ..self.service() };
        (vec![card(), card()], vec![on("GPU-0"), on("GPU-1")])
    }
}

fn sees(lag_s: f64) -> Sensing {
    Sensing { lag_s, noise_w: 3.0, ..Sensing::default() }
}

/// Whether `at` lies in the first `on` of every `period`, s.
fn every(at: f64, period: f64, on: f64) -> bool {
    at.rem_euclid(period) < on
}

struct Scenario {
    name: &'static str,
    /// Whether the part of the cap that is used is claimed: there must be more to do than fits all the time.
    uses: bool,
    build: fn(By) -> (Vec<CardPlan>, Vec<ServicePlan>),
    machine_cap: Option<f64>,
    caps: &'static [(f64, f64)],
}

const PLAIN: Scenario =
    Scenario { name: "", uses: true, build: |by| by.one(|_, _| {}), machine_cap: None, caps: &[] };

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "step", build: |by| by.one(|_, it| it.queued = |at| at > 20.0), ..PLAIN },
    Scenario { name: "step, sensor 0.1 s late", build: |by| by.one(|it, _| it.sensing = sees(0.1)), ..PLAIN },
    Scenario { name: "step, sensor 1 s late", build: |by| by.one(|it, _| it.sensing = sees(1.0)), ..PLAIN },
    Scenario { name: "step, sensor averages 1 s", build: |by| by.one(|it, _| it.averaged = true), ..PLAIN },
    Scenario {
        name: "steps of load, 0.1 s late",
        build: |by| {
            by.one(|card, it| {
                card.sensing = sees(0.1);
                it.power = |at, _| if every(at, 14.0, 7.0) { 300.0 } else { 420.0 };
            })
        },
        ..PLAIN
    },
    Scenario {
        name: "steps of load, 1 s late",
        build: |by| {
            by.one(|card, it| {
                card.sensing = sees(1.0);
                it.power = |at, _| if every(at, 14.0, 7.0) { 300.0 } else { 420.0 };
            })
        },
        ..PLAIN
    },
    Scenario {
        name: "prompts and answers, 0.1 s late",
        build: |by| {
            by.one(|card, it| {
                card.sensing = sees(0.1);
                it.power = |_, age| if age < 0.6 { 420.0 } else { 310.0 };
                it.length = (1.0, 8.0);
            })
        },
        ..PLAIN
    },
    Scenario {
        name: "bursts, 0.1 s late",
        uses: false,
        build: |by| {
            by.one(|card, it| {
                card.sensing = sees(0.1);
                it.queued = |at| every(at, 9.0, 4.0) || every(at, 23.0, 9.0);
            })
        },
        ..PLAIN
    },
    Scenario {
        name: "bursts, 1 s late",
        uses: false,
        build: |by| {
            by.one(|card, it| {
                card.sensing = sees(1.0);
                it.queued = |at| every(at, 9.0, 4.0) || every(at, 23.0, 9.0);
            })
        },
        ..PLAIN
    },
    Scenario { name: "short requests", build: |by| by.one(|_, it| it.length = (0.3, 1.5)), ..PLAIN },
    Scenario { name: "a low cap", build: |by| by.one(|it, _| it.cap = Some(130.0)), ..PLAIN },
    Scenario {
        name: "sensor silent 3 s of 10",
        build: |by| by.one(|it, _| it.fault = |at| every(at, 10.0, 3.0).then_some(Fault::Silent)),
        ..PLAIN
    },
    Scenario {
        name: "sensor frozen 4 s of 13",
        build: |by| {
            by.one(|card, it| {
                card.fault = |at| every(at, 13.0, 4.0).then_some(Fault::Frozen);
                it.queued = |at| every(at, 20.0, 17.0);
            })
        },
        uses: false,
        ..PLAIN
    },
    Scenario {
        name: "sensor zero, absurd, back in time",
        build: |by| {
            by.one(|it, _| {
                it.fault = |at| match at.rem_euclid(12.0) {
                    at if at < 1.0 => Some(Fault::Zero),
                    at if at < 2.0 => Some(Fault::Absurd),
                    at if at < 3.0 => Some(Fault::Backwards),
                    _ => None,
                };
            })
        },
        ..PLAIN
    },
    Scenario {
        name: "host load comes and goes",
        build: |by| {
            by.one(|it, _| {
                it.host = |at| match at.rem_euclid(60.0) {
                    at if at < 15.0 => 0.0,
                    at if at < 30.0 => 100.0,
                    at if at < 45.0 => 400.0,
                    _ => 60.0,
                };
            })
        },
        ..PLAIN
    },
    Scenario {
        name: "two cards, one machine cap",
        build: |by| by.two(360.0),
        machine_cap: Some(400.0),
        ..PLAIN
    },
    Scenario {
        name: "two cards, one machine cap, 1 s late",
        build: |by| {
            let (mut cards, services) = by.two(360.0);
            cards.iter_mut().for_each(|it| it.sensing = sees(1.0));
            (cards, services)
        },
        machine_cap: Some(400.0),
        ..PLAIN
    },
    Scenario {
        name: "two cards, work comes and goes",
        uses: false,
        build: |by| {
            let (cards, mut services) = by.two(360.0);
            services[0].queued = |at| every(at, 30.0, 18.0);
            services[1].queued = |at| every(at, 22.0, 12.0);
            (cards, services)
        },
        machine_cap: Some(400.0),
        ..PLAIN
    },
    Scenario {
        name: "cap changed while running",
        caps: &[(30.0, 150.0), (50.0, 320.0), (52.0, 200.0), (70.0, 130.0), (90.0, 280.0)],
        ..PLAIN
    },
    Scenario { name: "card tells no limit", build: |by| by.one(|it, _| it.tells_limit = false), ..PLAIN },
    Scenario {
        name: "where it runs is not known",
        build: |by| {
            let (cards, mut services) = by.two(280.0);
            services.truncate(1);
            services[0].place = Place::Anywhere;
            (cards, services)
        },
        ..PLAIN
    },
];

struct Outcome {
    worst: f64,
    used: f64,
    cuts: usize,
    stops: usize,
}

fn run(scenario: &Scenario, by: By, seed: u64, seconds: f64) -> Outcome {
    let (cards, services) = (scenario.build)(by);
    let mut settings = settings();
    settings.machine_cap = scenario.machine_cap.map(watts);
    let count = cards.len();
    let mut plant = Plant::new(seed, settings, cards, services);
    for (at, cap) in scenario.caps.iter().filter(|(at, _)| *at < seconds) {
        plant.run_to(*at);
        plant.set_cap(0, Some(*cap));
    }
    plant.run_to(seconds);
    let changes: Vec<f64> = std::iter::once(0.0).chain(scenario.caps.iter().map(|it| it.0)).collect();
    let settled = |at: f64| changes.iter().all(|change| !(*change..change + SETTLED).contains(&at));
    let cards = (0..count).map(|it| plant.worst(settled, card(it))).fold(0.0, f64::max);
    // The first requests find a whole window's energy unused.
    let from = plant.truth.iter().find(|it| it.queued).map_or(0.0, |it| it.at) + 15.0;
    let (worst, used) = match scenario.machine_cap {
        Some(_) => (cards.max(plant.worst(settled, machine)), plant.part_used(from, machine)),
        None => {
            let all = |it: &Moment| (it.shared.iter().sum(), it.caps.iter().sum());
            (cards, plant.part_used(from, all))
        }
    };
    Outcome {
        worst,
        used,
        cuts: plant.count(|it| matches!(it, Effect::Cut { .. })),
        stops: plant.count(|it| matches!(it, Effect::Stop { .. })),
    }
}

#[expect(clippy::print_stdout, reason = "a claim prints its figures")]
fn show(table: &str) {
    print!("{table}");
}

/// Every scenario under one actuator alone.
fn holds_and_uses_its_cap(by: By) {
    let strict = std::env::var_os("IDLEWATT_STRICT").is_some();
    let (seeds, seconds) = if strict { (12, 180.0) } else { (1, 95.0) };
    let (mut table, mut wrong) = (String::new(), Vec::new());
    for scenario in SCENARIOS {
        let outcomes: Vec<Outcome> = (1..=seeds).map(|seed| run(scenario, by, seed, seconds)).collect();
        let worst = outcomes.iter().map(|it| it.worst).fold(0.0, f64::max);
        let used = outcomes.iter().map(|it| it.used).fold(f64::INFINITY, f64::min);
        let (cuts, stops) = outcomes.iter().fold((0, 0), |sum, it| (sum.0 + it.cuts, sum.1 + it.stops));
        let line = format!(
            "{by:<9?} {:36} worst 10 s / cap {worst:.3}  cap used {used:.3}  cuts {cuts:4}  stops {stops:5}",
            scenario.name
        );
        table.push_str(&format!("{line}\n"));
        if worst > MOST || scenario.uses && !(by.least()..).contains(&used) {
            wrong.push(line);
        }
    }
    show(&table);
    assert!(wrong.is_empty(), "past the claim:\n{}", wrong.join("\n"));
}

#[test]
fn the_cards_own_limit_holds_and_uses_the_cap() {
    holds_and_uses_its_cap(By::Hardware);
}

#[test]
fn slices_of_work_hold_and_use_the_cap() {
    holds_and_uses_its_cap(By::DutyCycle);
}

#[test]
fn admission_alone_holds_and_uses_the_cap() {
    holds_and_uses_its_cap(By::Admission);
}
