//! Energy of 10 s to 10 min of load, by counter, by power, and by both.

use idlewatt_core::meter::SHORTEST_MEASURED;
use idlewatt_protocol::Label;
use idlewatt_simgpu::{LlmServer, Model, Random};

use crate::rig::{Rig, Sees};
use crate::{Errors, seeds};

/// A load as a curve over time, W. What comes and goes faster than about once a second, ten readings a second do not
/// show, and a meter without a counter cannot know.
enum Load {
    Steady(f64),
    Square { low: f64, high: f64, period: f64 },
    Ramp { from: f64, to: f64, over: f64 },
    Random { low: f64, high: f64, mean: f64 },
    Answers(Box<LlmServer>),
}

impl Load {
    fn any(random: &mut Random, idle: f64, seconds: f64) -> Self {
        let (low, high) = (idle + random.within(0.0, 60.0), random.within(150.0, 400.0));
        match random.whole(0, 4) {
            0 => Self::Steady(high),
            1 => Self::Square { low, high, period: random.scale(1.0, 20.0) },
            2 => Self::Ramp { from: low, to: high, over: seconds },
            3 => Self::Random { low, high, mean: random.scale(1.0, 5.0) },
            _ => Self::Answers(Box::new(LlmServer::new(Model { idle_w: idle, ..Model::any(random) }))),
        }
    }

    /// What is asked now, and for how long.
    fn next(&mut self, at: f64, limit: f64, random: &mut Random) -> (f64, f64) {
        match self {
            Self::Steady(watts) => (*watts, 1.0),
            Self::Square { low, high, period } => {
                let up = (at / *period).fract() < 0.5;
                (if up { *high } else { *low }, *period / 2.0)
            }
            Self::Ramp { from, to, over } => (*from + (*to - *from) * at / *over, 0.02),
            Self::Random { low, high, mean } => (random.within(*low, *high), random.wait(*mean).max(0.01)),
            Self::Answers(server) => {
                if server.running() == 0 {
                    server.ask(random.bits(), 0, random.whole(20, 3000), random.whole(5, 300));
                }
                server.step(limit).map_or((45.0, 0.1), |step| (step.load_w, step.seconds))
            }
        }
    }
}

/// One load on one card; what the meter found, what was true, J, and how the meter calls it.
fn run(seed: u64, sees: Sees, gain: f64) -> (f64, f64, Label, bool) {
    let mut random = Random::new(seed);
    let idle = random.within(15.0, 60.0);
    let mut rig = Rig::new(&mut random, idle, 450.0, sees);
    rig.card.sensing.counter_gain = gain;
    // A counter with another gain has counted so from its beginning: what matters is what comes now.
    rig.run_to(rig.now() + 0.2);
    let seconds = random.scale(10.0, 600.0);
    let mut load = Load::any(&mut random, idle, seconds);
    rig.begin(1);
    let begun = rig.card.truth();
    let end = begun.at + seconds;
    while rig.now() < end {
        let (watts, time) = load.next(rig.now() - begun.at, 450.0, &mut random);
        rig.card.set_load(watts);
        rig.run_to((rig.now() + time).min(end));
    }
    let energy = rig.end(1);
    let truth = rig.card.truth().energy_j - begun.energy_j;
    assert!(seconds > SHORTEST_MEASURED.as_secs_f64());
    (energy.total_mj.unwrap().0 as f64 / 1e3, truth, energy.label, rig.meter.diverges(crate::rig::CARD))
}

#[test]
fn energy_of_loads_is_right_within_a_percent() {
    for sees in [Sees::Counter, Sees::Power, Sees::Both, Sees::Averaged] {
        let mut errors = Errors::default();
        for seed in seeds(25, 1000) {
            let (measured, truth, label, _) = run(seed, sees, 1.0);
            assert_eq!(label, Label::Measured, "{sees:?}, seed {seed}");
            errors.add(measured, truth);
        }
        let (p95, worst) = (errors.quantile(0.95), errors.worst());
        println!(
            "{sees:?}: {} loads, error p50 {:.2} %, p95 {:.2} %, worst {:.2} %, mean {:+.2} %",
            errors.0.len(),
            errors.quantile(0.5) * 100.0,
            p95 * 100.0,
            worst * 100.0,
            errors.mean() * 100.0
        );
        assert!(p95 <= 0.01 && worst <= 0.02, "{sees:?}");
    }
}

#[test]
fn a_counter_that_lies_by_forty_percent_is_caught_and_labelled() {
    for gain in [0.6, 1.4] {
        let mut errors = Errors::default();
        for seed in seeds(10, 500) {
            let (measured, truth, label, diverges) = run(seed, Sees::Both, gain);
            assert!(label == Label::Estimated && diverges, "gain {gain}, seed {seed}: {label:?}");
            errors.add(measured, truth);
        }
        println!(
            "gain {gain}: {} counters, all caught; error p95 {:.2} %, worst {:.2} %",
            errors.0.len(),
            errors.quantile(0.95) * 100.0,
            errors.worst() * 100.0
        );
        assert!(errors.worst() <= 0.03);
    }
}
