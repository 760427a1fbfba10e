//! What the governor says and does, one rule at a time.

use std::time::{Duration, Instant};

use idlewatt_core::Now;
use idlewatt_core::device::{GpuReading, LimitRange, Power};
use idlewatt_core::governor::{
    Actuator, Card, Decision, Effect, Governor, Inputs, Limit, NotHardware, Refusal, Service, Settings,
    Unenforceable,
};
use idlewatt_core::meter::Place;
use idlewatt_protocol::{Millijoules, Milliwatts};
use jiff::civil::date;

use crate::plant::{CardPlan, Moment, Plant, ServicePlan, card, settings, start, watts};

/// A governor with one card and one service, asked by hand.
pub(crate) struct Desk {
    pub(crate) governor: Governor,
    pub(crate) settings: Settings,
    pub(crate) cards: Vec<Card>,
    pub(crate) services: Vec<Service>,
    pub(crate) sharing: bool,
    pub(crate) used: (jiff::civil::Date, Millijoules),
    pub(crate) now: Now,
}

pub(crate) fn read(id: &str, at: Instant, power: Option<f64>) -> GpuReading {
    GpuReading {
        power: power.map(|power| Power { value: watts(power), averaged: false }),
        temperature_c: Some(50),
        limit: Some(watts(450.0)),
        default_limit: Some(watts(450.0)),
        limit_range: Some(LimitRange { min: watts(100.0), max: watts(450.0) }),
        ..GpuReading::silent(id, "Simulated card", at)
    }
}

impl Desk {
    fn new() -> Self {
        let now = start();
        let reading = read("GPU-0", now.monotonic, Some(30.0));
        let place = Place::Cards(vec!["GPU-0".into()]);
        Self {
            governor: Governor::default(),
            settings: settings(),
            cards: vec![Card { reading, cap: Some(watts(280.0)), settable: false, own_use: false }],
            services: vec![Service { id: "it".into(), place, stoppable: false, slots: 4, running: 0 }],
            sharing: true,
            used: (date(2026, 11, 21), Millijoules::ZERO),
            now,
        }
    }

    fn decide(&mut self) -> Decision {
        let inputs =
            Inputs { cards: &self.cards, services: &self.services, sharing: self.sharing, used: self.used };
        self.governor.decide(&self.settings, &inputs, &self.now)
    }

    /// Reads the card a tenth of a second later.
    fn next(&mut self) -> Decision {
        self.now = self.now.later(Duration::from_millis(100));
        for card in &mut self.cards {
            card.reading.at = self.now.monotonic;
            // No sensor shows the same to the milliwatt.
            if let Some(power) = &mut card.reading.power {
                power.value.0 += if power.value.0 % 2 == 0 { 1 } else { -1 };
            }
        }
        self.decide()
    }

    fn after(&mut self, seconds: f64) -> Decision {
        for _ in 0..(seconds * 10.0) as u32 {
            self.next();
        }
        self.next()
    }
}

fn limits(decision: &Decision) -> Vec<Option<i64>> {
    let watts = |it: &Effect| match it {
        Effect::SetLimit { limit, .. } => Some(limit.map(|it| it.0 / 1_000)),
        _ => None,
    };
    decision.effects.iter().filter_map(watts).collect()
}

#[test]
fn a_card_that_takes_limits_is_told_one_and_gets_its_own_back() {
    let mut desk = Desk::new();
    desk.cards[0].settable = true;
    desk.cards[0].cap = Some(Milliwatts(280_700));
    let first = desk.next();
    assert_eq!(limits(&first), [Some(280)], "in whole watts, below the cap");
    assert_eq!(first.services[0].slots, 0, "nothing starts before it is in force");
    desk.cards[0].reading.limit = Some(watts(280.0));
    let held = desk.next();
    assert_eq!(held.services[0].slots, 4);
    assert_eq!(
        (held.cards[0].actuator, held.cards[0].not_hardware, held.cards[0].binding),
        (Actuator::Hardware, None, Some(Limit::UserCap))
    );
    assert!(limits(&desk.after(60.0)).is_empty(), "it is told once");
    desk.sharing = false;
    let ended = desk.next();
    assert_eq!(limits(&ended), [None]);
    assert_eq!(ended.wake, None, "a node that does not share sets no timer");
}

#[test]
fn a_cap_that_only_the_card_itself_can_hold_keeps_no_node_from_sharing() {
    let mut desk = Desk::new();
    desk.cards[0].settable = true;
    desk.cards[0].cap = Some(watts(100.0));
    desk.sharing = false;
    // It has its own 450 W back while nothing is shared: two seconds of that would be more than the cap gives in ten.
    assert_eq!(desk.after(3.0).services[0].refusal, Some(Refusal::Used), "it passes");
    desk.sharing = true;
    let first = desk.next();
    assert_eq!((limits(&first), first.services[0].slots), (vec![Some(100)], 0));
    assert_eq!(first.services[0].refusal, Some(Refusal::Used), "until it is in force");
    desk.cards[0].reading.limit = Some(watts(100.0));
    assert_eq!(desk.next().services[0].slots, 4);
}

#[test]
fn a_cap_below_the_cards_range_is_judged_by_the_lowest_limit_that_it_takes() {
    let mut desk = Desk::new();
    desk.cards[0].settable = true;
    // Two seconds at 100 W fit, two at 450 W do not.
    desk.cards[0].cap = Some(watts(60.0));
    desk.sharing = false;
    assert!(!matches!(desk.after(3.0).services[0].refusal, Some(Refusal::CapUnenforceable(_))));
    desk.sharing = true;
    assert_eq!(limits(&desk.next()), [Some(100)]);
    desk.cards[0].reading.limit = Some(watts(100.0));
    let held = desk.after(1.0);
    assert_eq!(
        (held.services[0].slots, held.cards[0].actuator),
        (1, Actuator::Admission),
        "one, to learn of it"
    );
}

#[test]
fn a_cap_that_the_card_does_not_keep_to_is_told_as_one_that_nobody_holds() {
    let mut desk = Desk::new();
    desk.cards[0].settable = true;
    desk.cards[0].cap = Some(watts(100.0));
    assert!(matches!(desk.after(3.0).services[0].refusal, Some(Refusal::CapUnenforceable(_))));
    desk.cards[0].settable = false;
    desk.sharing = false;
    assert!(matches!(desk.after(3.0).services[0].refusal, Some(Refusal::CapUnenforceable(_))));
}

#[test]
fn a_cap_never_raises_the_limit_that_a_card_has() {
    let mut desk = Desk::new();
    desk.cards[0].settable = true;
    desk.cards[0].reading.limit = Some(watts(200.0));
    let decision = desk.next();
    assert!(limits(&decision).is_empty());
    assert_eq!(decision.cards[0].actuator, Actuator::Hardware, "its own limit holds the cap already");
    assert_eq!((decision.cards[0].cap, decision.cards[0].binding), (Some(watts(200.0)), Some(Limit::Card)));
}

#[test]
fn a_limit_that_a_card_ignores_is_set_again_and_the_next_actuator_takes_over() {
    let mut desk = Desk::new();
    desk.cards[0].settable = true;
    assert_eq!(limits(&desk.next()), [Some(280)]);
    let mut again = 0;
    for _ in 0..100 {
        again += limits(&desk.next()).len();
    }
    let decision = desk.next();
    assert!((1..=2).contains(&again), "set again {again} times in ten seconds");
    assert_eq!(decision.cards[0].not_hardware, Some(NotHardware::NotInForce));
    assert_eq!(decision.cards[0].actuator, Actuator::Admission);
}

#[test]
fn a_driver_that_was_loaded_anew_is_told_its_limit_again() {
    let mut desk = Desk::new();
    desk.cards[0].settable = true;
    desk.next();
    desk.cards[0].reading.limit = Some(watts(280.0));
    desk.after(20.0);
    desk.cards[0].reading.limit = Some(watts(450.0));
    assert_eq!(limits(&desk.next()), [Some(280)]);
}

#[test]
fn a_cap_below_the_cards_range_is_held_by_the_next_actuator_as_well() {
    let plan = CardPlan { settable: true, cap: Some(80.0), ..CardPlan::default() };
    let service = ServicePlan { stoppable: true, ..ServicePlan::default() };
    let mut plant = Plant::new(1, settings(), vec![plan], vec![service]);
    plant.run_to(60.0);
    assert!(plant.worst(|at| at > 15.0, card(0)) <= 1.02);
    assert!(plant.part_used(15.0, card(0)) >= 0.9);
    let held = &plant.last.as_ref().unwrap().cards[0];
    assert_eq!(held.not_hardware, Some(NotHardware::BelowRange { min: watts(100.0) }));
    assert_eq!(held.actuator, Actuator::DutyCycle);
}

#[test]
fn a_cap_that_no_slice_fits_under_is_refused_with_the_reason() {
    let mut desk = Desk::new();
    desk.cards[0].cap = Some(watts(75.0));
    let refused = desk.after(2.0);
    let Some(Refusal::CapUnenforceable(Unenforceable::SmallestSlice { by, slice, needs, leaves })) =
        refused.services[0].refusal
    else {
        panic!("{refused:?}")
    };
    assert_eq!((by, slice), (Actuator::Admission, Duration::from_secs(2)));
    assert!(needs > leaves && leaves == Millijoules(735_000), "{needs:?} {leaves:?}");
    assert_eq!((refused.services[0].slots, refused.cards[0].actuator), (0, Actuator::Nobody));
    desk.services[0].stoppable = true;
    let sliced = desk.next();
    assert_eq!((sliced.services[0].refusal, sliced.cards[0].actuator), (None, Actuator::DutyCycle));
    desk.cards[0].cap = Some(watts(25.0));
    assert!(matches!(desk.next().services[0].refusal, Some(Refusal::CapUnenforceable(_))), "it idles above");
}

#[test]
fn a_card_that_tells_nothing_is_refused_where_there_is_a_cap() {
    let mut desk = Desk::new();
    let silent = GpuReading::silent("GPU-0", "Simulated card", desk.now.monotonic);
    desk.cards[0].reading = silent;
    let nothing = Some(Refusal::CapUnenforceable(Unenforceable::NothingMeasures));
    assert_eq!(desk.next().services[0].refusal, nothing);
    desk.cards[0].cap = None;
    let free = desk.next();
    assert_eq!((free.services[0].refusal, free.services[0].slots), (None, 4));
    assert_eq!((free.cards[0].cap, free.cards[0].actuator), (None, Actuator::Nobody));
}

#[test]
fn a_service_that_may_be_anywhere_is_held_to_the_strictest_card() {
    let mut desk = Desk::new();
    let reading = read("GPU-1", desk.now.monotonic, Some(20.0));
    desk.cards.push(Card { reading, cap: Some(watts(60.0)), settable: false, own_use: false });
    assert!(desk.next().services[0].refusal.is_none(), "it runs on the other card");
    for place in [Place::Anywhere, Place::Cards(vec!["GPU-of-yesterday".into()])] {
        desk.services[0].place = place;
        assert!(matches!(desk.next().services[0].refusal, Some(Refusal::CapUnenforceable(_))));
    }
    desk.services[0].place = Place::Elsewhere;
    assert_eq!(desk.next().services[0].slots, 4);
}

#[test]
fn the_hosts_own_load_takes_from_the_cap_and_is_told_as_such() {
    let mut desk = Desk::new();
    desk.after(3.0);
    desk.cards[0].reading.power = Some(Power { value: watts(260.0), averaged: false });
    let busy = desk.after(3.0);
    assert!(matches!(busy.services[0].refusal, Some(Refusal::HostLoad { .. })), "{:?}", busy.services[0]);
    desk.cards[0].reading.power = Some(Power { value: watts(400.0), averaged: false });
    desk.after(60.0);
    desk.cards[0].reading.power = Some(Power { value: watts(30.0), averaged: false });
    let free = desk.after(1.5);
    assert_eq!(free.services[0].refusal, None, "a game leaves no debt");
}

#[test]
fn heat_lowers_power_before_the_limit_and_names_itself() {
    let mut desk = Desk::new();
    desk.settings.thermal.every = 80;
    let at = |desk: &mut Desk, celsius: i32| {
        desk.cards[0].reading.temperature_c = Some(celsius);
        let held = desk.next().cards[0].clone();
        (held.cap.unwrap().0 / 1_000, held.binding.unwrap())
    };
    assert_eq!(at(&mut desk, 75), (280, Limit::UserCap));
    let hot = Limit::Temperature { reading_c: 77, limit_c: 80 };
    assert_eq!(at(&mut desk, 77), (270, hot), "three degrees left: three fifths of what the card can do");
    assert_eq!(at(&mut desk, 79).0, 90);
    assert_eq!(at(&mut desk, 78).0, 90, "a degree less is not cooler yet");
    assert_eq!(at(&mut desk, 76).0, 180);
    assert_eq!(at(&mut desk, 80).0, 0);
    let refused = desk.next().services[0].refusal;
    assert!(matches!(refused, Some(Refusal::Limited(Limit::Temperature { .. }))), "{refused:?}");
    desk.cards[0].reading.hot_spot_c = Some(112);
    desk.settings.thermal.every = 95;
    assert!(matches!(desk.next().cards[0].binding, Some(Limit::HotSpot { reading_c: 112, .. })));
}

#[test]
fn a_card_settles_below_its_thermal_limit_instead_of_working_in_bursts() {
    for stoppable in [true, false] {
        let plan = CardPlan { settable: !stoppable, cap: None, limit: 450.0, ..CardPlan::default() };
        let service = ServicePlan { stoppable, ..ServicePlan::default() };
        let mut settings = settings();
        settings.thermal.every = 60;
        let mut plant = Plant::new(3, settings, vec![plan], vec![service]);
        let mut hottest: f64 = 0.0;
        let mut coolest = f64::INFINITY;
        for second in 1..=300 {
            plant.run_to(f64::from(second));
            let celsius = plant.card(0).truth().temperature_c;
            hottest = hottest.max(celsius);
            coolest = if second > 150 { coolest.min(celsius) } else { coolest };
        }
        assert!(hottest < 60.5 && coolest > 53.0, "stoppable {stoppable}: {coolest:.1} to {hottest:.1} °C");
    }
}

#[test]
fn the_fan_is_limited_in_quiet_hours_only() {
    let mut desk = Desk::new();
    desk.settings.fan_limit = Some(50);
    desk.settings.quiet_hours = "Mon-Sun 22:00-07:00".parse().unwrap();
    desk.cards[0].reading.fan_percent = Some(48);
    assert_eq!(desk.next().cards[0].binding, Some(Limit::UserCap));
    desk.now.wall = "2026-11-21T21:30:00Z".parse().unwrap();
    let quiet = desk.next();
    let until = Some("2026-11-22T06:00:00Z".parse().unwrap());
    assert_eq!(quiet.cards[0].binding, Some(Limit::Fan { reading: 48, limit: 50, until }));
    assert_eq!(quiet.cards[0].cap, Some(watts(90.0)));
}

#[test]
fn a_days_energy_ends_sharing_until_local_midnight() {
    let mut desk = Desk::new();
    desk.settings.daily_energy = Some(Millijoules(3_600_000_000));
    // The day on which Berlin's clocks go back has 25 hours.
    desk.now.wall = "2026-10-25T21:30:00Z".parse().unwrap();
    desk.used = (date(2026, 10, 25), Millijoules(3_599_000_000));
    let last = desk.next();
    assert_eq!(last.cards[0].cap, Some(watts(100.0)), "what is left lasts ten seconds at least");
    desk.used.1 = Millijoules(3_600_000_001);
    let over = desk.next();
    let until = "2026-10-25T23:00:00Z".parse().unwrap();
    let limit = Limit::DailyEnergy { used: desk.used.1, limit: Millijoules(3_600_000_000), until };
    assert_eq!(
        (over.cards[0].binding, over.services[0].refusal),
        (Some(limit), Some(Refusal::Limited(limit)))
    );
    desk.now.wall = "2026-10-25T23:00:01Z".parse().unwrap();
    assert_eq!(desk.next().cards[0].binding, Some(Limit::UserCap));
}

#[test]
fn a_wall_clock_that_jumps_changes_no_power() {
    let run = |jumps: bool| {
        let mut plant = Plant::new(5, settings(), vec![CardPlan::default()], vec![ServicePlan::default()]);
        for second in 1..=40 {
            plant.run_to(f64::from(second));
            if jumps {
                plant.jump(if second % 2 == 0 { 86_400 } else { -90_000 });
            }
        }
        plant.truth.last().unwrap().shared[0]
    };
    assert!((run(true) - run(false)).abs() < 1e-6);
}

#[test]
fn requests_that_stand_still_for_long_go_on_elsewhere() {
    let host = |at: f64| if at > 20.0 { 400.0 } else { 0.0 };
    let plan = CardPlan { host, ..CardPlan::default() };
    let service = ServicePlan { stoppable: true, queued: |at| at < 20.0, ..ServicePlan::default() };
    let mut plant = Plant::new(7, settings(), vec![plan], vec![service]);
    plant.run_to(30.0);
    let cut = plant.told.iter().position(|(_, it)| matches!(it, Effect::Cut { .. })).unwrap();
    let (at, before) = (plant.told[cut].0, &plant.told[cut - 1]);
    assert!(at < 26.0, "{at}");
    assert!(
        matches!(before, (when, Effect::Continue { .. }) if *when == at),
        "a process that is stopped hears of nothing"
    );
}

#[test]
fn regression_a_process_that_stands_still_is_continued_when_its_service_is_gone() {
    let stop = |it: &Effect| matches!(it, Effect::Stop { .. });
    let leave: [fn(&mut Desk); 3] = [
        |desk| desk.services.clear(),
        |desk| desk.services[0].running = 0,
        |desk| desk.services[0].stoppable = false,
    ];
    for leave in leave {
        let mut desk = Desk::new();
        desk.services[0].stoppable = true;
        desk.services[0].running = 1;
        desk.cards[0].reading.power = Some(Power { value: watts(440.0), averaged: false });
        assert!((0..600).any(|_| desk.next().effects.iter().any(stop)));
        leave(&mut desk);
        assert_eq!(desk.next().effects[0], Effect::Continue { service: "it".into() });
    }
}

#[test]
fn fewer_requests_at_once_go_on_where_more_would_all_be_ended() {
    for lag_s in [0.0, 0.1] {
        let mut plan = CardPlan::default();
        plan.sensing.lag_s = lag_s;
        // 220 W, 255 W, 290 W, …
        let service = ServicePlan {
            slots: 8,
            power: |_, _| 190.0,
            each: 35.0,
            length: (8.0, 40.0),
            ..ServicePlan::default()
        };
        let mut plant = Plant::new(11, settings(), vec![plan], vec![service]);
        plant.run_to(180.0);
        let cuts: Vec<f64> =
            plant.told.iter().filter(|(_, it)| matches!(it, Effect::Cut { .. })).map(|(at, _)| *at).collect();
        assert!(cuts.len() <= 1, "once to learn how many are too many: {cuts:?}");
        assert_eq!(plant.last.as_ref().unwrap().services[0].slots, 2);
        assert!(plant.worst(|at| at > 15.0, card(0)) <= 1.02);
        assert!(plant.part_used(30.0, card(0)) >= 0.8, "{}", plant.part_used(30.0, card(0)));
    }
}

#[test]
fn what_the_host_draws_is_taken_from_what_sharing_may_use() {
    for (settable, stoppable) in [(true, false), (false, true), (false, false)] {
        let plan = CardPlan { settable, host: |_| 120.0, ..CardPlan::default() };
        let service = ServicePlan { stoppable, ..ServicePlan::default() };
        let mut plant = Plant::new(13, settings(), vec![plan], vec![service]);
        plant.run_to(90.0);
        let both = |it: &Moment| (it.shared[0] + it.host[0], it.caps[0]);
        let worst = plant.worst(|at| at > 15.0, both);
        assert!((0.8..=1.02).contains(&worst), "settable {settable}, stoppable {stoppable}: {worst:.3}");
    }
}
