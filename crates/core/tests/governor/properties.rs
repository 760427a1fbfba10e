//! What holds whatever happens.

use std::time::Duration;

use idlewatt_core::device::{LimitRange, Power};
use idlewatt_core::governor::{Card, Governor, Inputs, Service};
use idlewatt_core::meter::Place;
use idlewatt_protocol::{Millijoules, Milliwatts};
use jiff::civil::date;
use proptest::prelude::*;

use crate::plant::{CardPlan, Plant, ServicePlan, settings, start, watts};
use crate::rules::read;

/// Few in `script/test`, many in `script/show governor`.
fn cases(few: u32) -> ProptestConfig {
    let strict = std::env::var_os("IDLEWATT_STRICT").is_some();
    ProptestConfig { cases: if strict { few * 25 } else { few }, ..ProptestConfig::default() }
}

/// What a host may set, as watts, degrees, percent and joules.
#[derive(Clone, Copy, Debug)]
struct Set {
    cap: f64,
    machine: f64,
    celsius: i32,
    hot_spot: i32,
    fan: u32,
    day: i64,
}

fn set() -> impl Strategy<Value = Set> {
    (60.0..450.0, 100.0..900.0, 45..95, 55..110, 30_u32..100, 0_i64..20_000).prop_map(
        |(cap, machine, celsius, hot_spot, fan, day)| Set { cap, machine, celsius, hot_spot, fan, day },
    )
}

impl Set {
    /// The lower of both in everything that `which` names.
    fn tighter(self, other: Self, which: u8) -> Self {
        let tight = |bit: u8| which >> bit & 1 == 1;
        let mut it = self;
        it.cap = if tight(0) { it.cap.min(other.cap) } else { it.cap };
        it.machine = if tight(1) { it.machine.min(other.machine) } else { it.machine };
        it.celsius = if tight(2) { it.celsius.min(other.celsius) } else { it.celsius };
        it.hot_spot = if tight(3) { it.hot_spot.min(other.hot_spot) } else { it.hot_spot };
        it.fan = if tight(4) { it.fan.min(other.fan) } else { it.fan };
        it.day = if tight(5) { it.day.min(other.day) } else { it.day };
        it
    }

    fn settings(self, machine: bool) -> idlewatt_core::governor::Settings {
        let mut settings = settings();
        settings.machine_cap = machine.then(|| watts(self.machine));
        settings.thermal.every = self.celsius;
        settings.hot_spot_limit_c = self.hot_spot;
        settings.fan_limit = Some(self.fan);
        settings.daily_energy = Some(Millijoules(self.day * 1_000));
        settings
    }

    fn energy(self, seed: u64, settable: bool, stoppable: bool) -> f64 {
        let plan = CardPlan { cap: Some(self.cap), settable, ..CardPlan::default() };
        let service = ServicePlan { stoppable, ..ServicePlan::default() };
        let mut settings = self.settings(true);
        // Counted by the engine; here it is not used up.
        settings.daily_energy = None;
        let mut plant = Plant::new(seed, settings, vec![plan], vec![service]);
        plant.run_to(60.0);
        plant.truth.last().unwrap().shared[0]
    }
}

/// A reading: W, °C, °C, percent.
type Told = (f64, i32, i32, u32);

fn told() -> impl Strategy<Value = Vec<Told>> {
    prop::collection::vec((5.0..460.0, 30..100, 40..115, 0_u32..100), 1..60)
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn a_tighter_limit_never_allows_more_whatever_the_card_said_before(
        loose in set(), other in set(), which in 1_u8..64, told in told(), settable: bool
    ) {
        let tight = loose.tighter(other, which);
        let caps = |set: Set| {
            let (mut governor, mut now) = (Governor::default(), start());
            let mut caps = Vec::new();
            for (power, celsius, hot_spot, fan) in &told {
                now = now.later(Duration::from_millis(500));
                let mut reading = read("GPU-0", now.monotonic, Some(*power));
                (reading.temperature_c, reading.hot_spot_c) = (Some(*celsius), Some(*hot_spot));
                reading.fan_percent = Some(*fan);
                let cards = [Card { reading, cap: Some(watts(set.cap)), settable, own_use: false }];
                let used = (date(2026, 11, 21), Millijoules(300_000));
                let inputs = Inputs { cards: &cards, services: &[], sharing: true, used };
                let decision = governor.decide(&set.settings(false), &inputs, &now);
                caps.push(decision.cards[0].cap.unwrap());
            }
            caps
        };
        for (tight, loose) in caps(tight).into_iter().zip(caps(loose)) {
            prop_assert!(tight <= loose, "{tight:?} > {loose:?}");
        }
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn a_tighter_limit_never_takes_more_energy(
        loose in set(), other in set(), which in 1_u8..32, seed in 0_u64..1000, settable: bool, stoppable: bool
    ) {
        let tight = loose.tighter(other, which);
        let (less, more) = (tight.energy(seed, settable, stoppable), loose.energy(seed, settable, stoppable));
        // When requests come and end is chance; a fiftieth is what one of them makes.
        prop_assert!(less <= more * 1.02 + 50.0, "{less:.0} J under {tight:?}, {more:.0} J under {loose:?}");
    }

    #[test]
    fn nothing_that_sensors_drivers_and_settings_say_stops_the_governor(
        steps in prop::collection::vec((
            0_u64..20_000, -5_000_i64..20_000,
            prop::option::of(any::<i64>()), prop::option::of(any::<i64>()), prop::option::of(any::<i64>()),
            any::<(i64, i64)>(), any::<i32>(), 0_u32..9,
            any::<(bool, bool, bool, bool)>(), prop::option::of(any::<i64>()), any::<i64>(),
        ), 1..80)
    ) {
        let (mut governor, mut now) = (Governor::default(), start());
        for (pause, back, power, energy, cap, (min, max), celsius, running, flags, machine, day) in steps {
            let (settable, stoppable, sharing, known) = flags;
            now = now.later(Duration::from_millis(pause));
            let at = now.monotonic - Duration::from_millis(back.unsigned_abs());
            let mut reading = read("GPU-0", at, None);
            reading.power = power.map(|power| Power { value: Milliwatts(power), averaged: false });
            reading.energy = energy.map(Millijoules);
            reading.temperature_c = Some(celsius);
            reading.limit = Some(Milliwatts(max));
            reading.limit_range = Some(LimitRange { min: Milliwatts(min), max: Milliwatts(max) });
            let cards = [Card { reading, cap: cap.map(Milliwatts), settable, own_use: known }];
            let place = if known { Place::Cards(vec!["GPU-0".into()]) } else { Place::Anywhere };
            let services = [Service { id: "it".into(), place, stoppable, slots: 8, running }];
            let mut settings = settings();
            settings.machine_cap = machine.map(Milliwatts);
            settings.thermal.every = celsius;
            settings.daily_energy = Some(Millijoules(day));
            let used = (date(2026, 11, 21), Millijoules(day));
            let cards = if pause % 7 == 0 { &cards[..0] } else { &cards[..] };
            let inputs = Inputs { cards, services: &services, sharing, used };
            let decision = governor.decide(&settings, &inputs, &now);
            prop_assert!(decision.wake.is_none_or(|wake| wake.at > now.monotonic));
            prop_assert!(decision.services[0].slots <= 8);
        }
    }
}
