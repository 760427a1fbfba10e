//! The simulation against what its parts must do.

use idlewatt_simgpu::{Card, LlmServer, Model, Physics, Random, Sensing};

fn near(a: f64, b: f64, within: f64) -> bool {
    (a - b).abs() <= within
}

fn card(sensing: Sensing) -> Card {
    Card::new(100.0, 30.0, 450.0, Physics::default(), sensing)
}

#[test]
fn any_step_of_time_is_exact() {
    let (mut whole, mut cut) = (card(Sensing::default()), card(Sensing::default()));
    whole.set_load(330.0);
    cut.set_load(330.0);
    whole.run_to(103.0);
    for step in 1..=3000 {
        cut.run_to(100.0 + f64::from(step) / 1000.0);
    }
    let (whole, cut) = (whole.truth(), cut.truth());
    // 300 W of step lose 300 W × 40 ms.
    assert!(near(whole.energy_j, 330.0 * 3.0 - 12.0, 1e-6), "{whole:?}");
    assert!(near(whole.energy_j, cut.energy_j, 1e-6) && near(whole.temperature_c, cut.temperature_c, 1e-6));
}

#[test]
fn sensors_look_late_seldom_and_back() {
    let mut card =
        card(Sensing { lag_s: 0.2, refresh_s: 0.1, counter_refresh_s: 0.02, ..Sensing::default() });
    card.set_load(430.0);
    card.run_to(100.25);
    // Refreshed at 100.2, and that saw 100.0: before the step.
    assert!(near(card.instant_power_w(), 30.0, 1e-9) && near(card.averaged_power_w(), 30.0, 1e-9));
    card.run_to(100.7);
    assert!(near(card.instant_power_w(), 430.0, 0.1), "{}", card.instant_power_w());
    // Half a second of 430 W in one second's mean, less the rise.
    assert!(near(card.averaged_power_w(), 30.0 + 400.0 * 0.46, 0.5), "{}", card.averaged_power_w());
    assert!(near(card.counter_j(), card.truth_at(100.5).energy_j, 1e-6));
}

#[test]
fn a_limit_holds_the_power_and_heat_and_fan_follow_it() {
    let mut card = card(Sensing::default());
    card.set_load(400.0);
    card.set_limit(200.0);
    card.run_to(1000.0);
    assert!(near(card.truth().power_w, 200.0, 1e-6) && near(card.truth().temperature_c, 47.0, 1e-3));
    assert!(near(card.hot_spot_c(), 53.0, 1e-3));
    assert!(near(card.fan_percent(), 30.0 + 70.0 * 7.0 / 45.0, 1e-3));
    card.set_limit(450.0);
    card.run_to(2000.0);
    assert!(near(card.truth().temperature_c, 69.0, 1e-3));
}

#[test]
fn noise_is_the_same_for_the_same_seed_and_moment() {
    let read = |seed| {
        let mut card = card(Sensing { noise_w: 10.0, seed, ..Sensing::default() });
        (0..100)
            .map(|step| {
                card.run_to(100.0 + f64::from(step) / 10.0);
                card.instant_power_w()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(read(1), read(1));
    assert_ne!(read(1), read(2));
    let mean = read(1).iter().sum::<f64>() / 100.0;
    assert!(near(mean, 30.0, 2.0) && read(1).iter().any(|watts| (watts - 30.0).abs() > 8.0));
}

/// Runs until nothing is left; seconds and joules above idle.
fn run(server: &mut LlmServer) -> (f64, f64) {
    let (mut seconds, mut joules) = (0.0, 0.0);
    while let Some(step) = server.step(1e6) {
        seconds += step.seconds;
        joules += step.seconds * (step.load_w - server.model().idle_w);
    }
    (seconds, joules)
}

#[test]
fn what_requests_cost_adds_up_to_what_the_card_used() {
    let mut random = Random::new(7);
    let mut server = LlmServer::new(Model::any(&mut random));
    for id in 0..40 {
        server.ask(id, random.whole(0, 500), random.whole(1, 3000), random.whole(1, 200));
    }
    let (_, joules) = run(&mut server);
    let sum: f64 = (0..40).map(|id| server.truth_j(id)).sum();
    assert!(near(sum, joules, joules * 1e-9), "{sum} {joules}");
}

#[test]
fn a_token_is_cheap_in_company_and_dear_behind_a_long_context() {
    let alone = |cached, count| {
        let mut server = LlmServer::new(Model::default());
        (0..count).for_each(|id| server.ask(id, cached, 1, 200));
        run(&mut server);
        server.truth_j(0)
    };
    assert!(alone(0, 4) < alone(0, 1) * 0.5, "{} {}", alone(0, 4), alone(0, 1));
    assert!(alone(8000, 1) > alone(0, 1) * 1.1);
}

#[test]
fn a_limit_makes_a_step_slower_and_not_cheaper() {
    let seconds = |limit: f64| {
        let mut server = LlmServer::new(Model::default());
        server.ask(1, 0, 2000, 100);
        let (mut seconds, mut peak) = (0.0, 0.0_f64);
        while let Some(step) = server.step(limit) {
            seconds += step.seconds;
            peak = peak.max(step.load_w);
        }
        (seconds, peak, server.truth_j(1))
    };
    let ((free, _, cost), (held, peak, same)) = (seconds(450.0), seconds(150.0));
    assert!(held > free * 1.2 && peak <= 150.0 + 1e-9 && near(cost, same, 1e-9), "{free} {held} {peak}");
}
