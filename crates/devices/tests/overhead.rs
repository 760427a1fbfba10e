//! What observing costs: ten readings a second of four cards through the real NVML wrapper, and the metering of fifty
//! requests a second.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::{Duration, Instant};

use idlewatt_core::meter::{Meter, Place, Purpose, Task, Tokens};
use idlewatt_devices::{Gpus, Places};
use idlewatt_protocol::RequestId;
use idlewatt_simnvml::rig::Rig;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const SECONDS: u32 = 20;
const READINGS: u32 = 10;
const REQUESTS: u32 = 50;
const TOKENS: u32 = 60;

/// CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn percent(used: Duration) -> f64 {
    used.as_secs_f64() / f64::from(SECONDS) * 100.0
}

fn four_cards(rig: &Rig) -> Gpus {
    Gpus::new(&Places { nvml: Some(rig.library()), sysfs: "/nonexistent".into(), ..Places::default() })
}

#[test]
fn observing_costs_at_most_a_hundredth_of_a_core() {
    let folder = tempfile::tempdir().unwrap();
    let card =
        |card: u32| json!({"uuid": format!("GPU-{card}"), "load_w": 250.0, "noise_mw": 4000.0, "seed": card});
    let rig = Rig::new(folder.path(), &json!({ "cards": (0..4).map(card).collect::<Vec<_>>() })).unwrap();
    let mut gpus = four_cards(&rig);
    let mut meter = Meter::default();
    let place = Place::Cards((0..4).map(|card| format!("GPU-{card}")).collect());
    meter.set_purpose(Purpose::Waiting(place.clone()), true);
    let mut readings: Vec<_> = gpus.read().into_iter().map(Result::unwrap).collect();
    assert_eq!(readings.len(), 4);

    let begun = cpu();
    for _ in 0..SECONDS * READINGS {
        readings = gpus.read().into_iter().map(Result::unwrap).collect();
    }
    let sampling = cpu() - begun;

    // The meter is given the same readings in virtual time: each request lasts 160 ms, so eight run at once.
    let mut at = Instant::now();
    let tick = Duration::from_secs(1) / (REQUESTS * TOKENS);
    let id = |number: u32| RequestId(u128::from(number).to_be_bytes());
    let begun = cpu();
    for step in 0..SECONDS * REQUESTS * TOKENS {
        at += tick;
        if step % (REQUESTS * TOKENS / READINGS) == 0 {
            for reading in &mut readings {
                reading.at = at;
                meter.read(reading);
            }
        }
        let (newest, token) = (step / TOKENS, step % TOKENS);
        if token == 0 {
            meter.begin(id(newest), Task { service: "a".into(), place: place.clone(), own: false }, at);
        }
        for running in newest.saturating_sub(7)..=newest {
            if (step + running) % 8 == 0 {
                let said = Tokens { prompt: 100, cached: 0, completion: (step - running * TOKENS) / 8 + 1 };
                meter.progress(id(running), said);
            }
        }
        if token == TOKENS - 1 && newest >= 7 {
            meter.end(id(newest - 7), at);
        }
    }
    let metering = cpu() - begun;
    let (sampling, metering) = (percent(sampling), percent(metering));
    println!(
        "4 cards {READINGS} times a second: {sampling:.2} % of a core, the simulated driver's own work in it; \
         {REQUESTS} requests a second, {TOKENS} tokens each: {metering:.2} %; together {:.2} %",
        sampling + metering
    );
    let bound = if std::env::var_os("IDLEWATT_STRICT").is_some() { 1.0 } else { 10.0 };
    assert!(sampling + metering <= bound);
}
