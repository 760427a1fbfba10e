//! The real NVML wrapper against simulated cards: what the driver tells, what it refuses, and what it loses.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use idlewatt_core::device::{GpuReading, LimitRange, Power};
use idlewatt_core::meter::{Meter, Place, Purpose};
use idlewatt_devices::{Gpus, Level, Places, Sensors};
use idlewatt_protocol::Milliwatts;
use idlewatt_simnvml::rig;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A simulated driver in a folder of its own.
struct Rig {
    folder: TempDir,
    driver: rig::Rig,
}

impl Rig {
    fn new(control: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let driver = rig::Rig::new(folder.path(), control).unwrap();
        Self { folder, driver }
    }

    fn steer(&self, control: &Value) {
        self.driver.steer(control).unwrap();
    }

    fn places(&self) -> Places {
        Places {
            nvml: Some(self.driver.library()),
            sysfs: self.folder.path().join("sys"),
            retry: Duration::from_millis(50),
            ..Places::default()
        }
    }

    fn gpus(&self) -> Gpus {
        Gpus::new(&self.places())
    }

    /// True energy of card 0 between two moments, mJ, by the simulation's own record.
    fn truth(&self, from_us: f64, to_us: f64) -> f64 {
        let record = fs::read_to_string(self.folder.path().join("simnvml.csv")).unwrap();
        let energy_at = |at: f64| {
            let lines =
                record.lines().map(|line| line.split(',').map(|it| it.parse::<f64>().unwrap()).collect());
            lines.take_while(|line: &Vec<f64>| line[0] <= at).last().map_or(0.0, |line| line[3])
        };
        energy_at(to_us) - energy_at(from_us)
    }
}

fn only(gpus: &mut Gpus) -> GpuReading {
    let mut readings = gpus.read();
    assert_eq!(readings.len(), 1);
    readings.remove(0).unwrap()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_card_tells_what_it_is_and_does() {
    let rig = Rig::new(&json!({"cards": [{
        "uuid": "GPU-a", "name": "NVIDIA Test", "load_w": 120.0, "limit_w": 300, "default_limit_w": 320, "limit_range_w": [100, 350],
        "vram_total": 8_589_934_592_u64, "vram_used": 1000, "utilisation": 37, "ambient_c": 20.0, "c_per_w": 0.25,
        "processes": [{"pid": 42, "vram": 700}, {"pid": 43}],
    }]}));
    let mut gpus = rig.gpus();
    let card = only(&mut gpus);
    assert_eq!((card.id.as_str(), card.name.as_str()), ("GPU-a", "NVIDIA Test"));
    assert_eq!(card.power, Some(Power { value: Milliwatts(120_000), averaged: false }));
    assert_eq!((card.temperature_c, card.utilisation), (Some(50), Some(37)));
    assert_eq!((card.vram_used, card.vram_total), (Some(1000), Some(8_589_934_592)));
    assert_eq!((card.limit, card.default_limit), (Some(Milliwatts(300_000)), Some(Milliwatts(320_000))));
    assert_eq!(card.limit_range, Some(LimitRange { min: Milliwatts(100_000), max: Milliwatts(350_000) }));
    assert!(card.energy.is_some() && card.fan_percent.is_some() && card.hot_spot_c >= card.temperature_c);
    let processes = gpus.processes();
    assert_eq!(
        processes.iter().map(|it| (it.pid, it.vram)).collect::<Vec<_>>(),
        [(42, Some(700)), (43, None)]
    );
}

#[test]
fn no_driver_is_a_normal_state() {
    let places = Places { nvml: Some("/nonexistent/libnvidia-ml.so.1".into()), ..Places::default() };
    let mut gpus = Gpus::new(&places);
    assert!(gpus.read().is_empty());
    let findings = gpus.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].level, Level::Note);
}

#[test]
fn what_a_card_does_not_tell_is_none_and_the_rest_is_there() {
    let rig = Rig::new(&json!({"cards": [{"faults": {
        "power": "not_supported", "power_instant": "not_supported", "power_average": "not_supported", "energy": "no_permission",
        "temperature": "not_supported", "memory": "unknown", "utilisation": "not_supported", "limit": "not_supported",
        "limit_range": "not_supported", "fan": "not_supported", "memory_temperature": "not_supported",
    }}]}));
    let card = only(&mut rig.gpus());
    assert_eq!((card.power, card.energy, card.temperature_c), (None, None, None));
    assert_eq!((card.vram_used, card.vram_total, card.utilisation, card.limit), (None, None, None, None));
    assert_eq!((card.limit_range, card.fan_percent, card.hot_spot_c), (None, None, None));
    assert_eq!(card.default_limit, Some(Milliwatts(450_000)));
}

#[test]
fn without_the_instantaneous_field_power_is_an_average_from_ampere_on() {
    for (architecture, averaged) in [(6, false), (7, true), (8, true), (9, true)] {
        let fault = json!({"power_instant": "not_supported"});
        let rig = Rig::new(&json!({"cards": [{"architecture": architecture, "faults": fault}]}));
        assert_eq!(only(&mut rig.gpus()).power.unwrap().averaged, averaged, "{architecture}");
    }
}

#[test]
fn a_lost_card_hides_no_other_and_is_found_again_when_it_is_back() {
    let cards = |lost: bool| json!({"cards": [{"uuid": "GPU-a", "lost": lost}, {"uuid": "GPU-b"}]});
    let rig = Rig::new(&cards(false));
    let mut gpus = rig.gpus();
    assert!(gpus.read().iter().all(Result::is_ok));
    rig.steer(&cards(true));
    let readings = gpus.read();
    let error = readings[0].as_ref().unwrap_err();
    assert!(error.lost && error.id == "GPU-a", "{error}");
    assert_eq!(readings[1].as_ref().unwrap().id, "GPU-b");
    assert!(gpus.findings().iter().any(|finding| finding.level == Level::Problem));
    rig.steer(&cards(false));
    until("both cards are read again", || {
        let readings = gpus.read();
        let ids: Vec<_> = readings.iter().flatten().map(|card| card.id.as_str()).collect();
        (ids == ["GPU-a", "GPU-b"]).then_some(())
    });
}

#[test]
fn a_driver_that_is_loaded_later_is_found() {
    let rig = Rig::new(&json!({"init_error": "driver_not_loaded"}));
    let mut gpus = rig.gpus();
    assert!(gpus.read().is_empty());
    assert_eq!(gpus.findings()[0].level, Level::Warning);
    rig.steer(&json!({}));
    until("the card", || (gpus.read().len() == 1).then_some(()));
    assert_eq!(gpus.findings()[0].level, Level::Good);
}

#[test]
fn a_sleeping_card_is_not_woken_to_be_looked_at() {
    // Any question to the card would fail, and be seen.
    let rig = Rig::new(&json!({"cards": [{"uuid": "GPU-a"}]}));
    let power = rig.folder.path().join("sys/bus/pci/devices/0000:01:00.0/power");
    fs::create_dir_all(&power).unwrap();
    fs::write(power.join("runtime_status"), "suspended\n").unwrap();
    let mut gpus = rig.gpus();
    rig.steer(&json!({"cards": [{"uuid": "GPU-a", "lost": true}]}));
    let card = only(&mut gpus);
    assert_eq!((card.power, card.vram_used), (None, None));
    assert!(gpus.processes().is_empty());
    fs::write(power.join("runtime_status"), "active\n").unwrap();
    assert!(gpus.read()[0].is_err());
}

#[test]
fn while_every_card_sleeps_the_driver_is_not_loaded() {
    let rig = Rig::new(&json!({"cards": [{"uuid": "GPU-a"}]}));
    let device = rig.folder.path().join("sys/bus/pci/drivers/nvidia/0000:01:00.0");
    fs::create_dir_all(device.join("power")).unwrap();
    fs::write(device.join("vendor"), "0x10de\n").unwrap();
    fs::write(device.join("power/runtime_status"), "suspended\n").unwrap();
    let mut gpus = rig.gpus();
    assert!(gpus.read().is_empty());
    assert!(gpus.findings()[0].what.contains("sleeps"), "{:?}", gpus.findings());
    assert!(!rig.folder.path().join("simnvml.csv").exists(), "the driver was loaded");
    fs::write(device.join("power/runtime_status"), "active\n").unwrap();
    until("the card that woke", || (gpus.read().len() == 1).then_some(()));
}

#[test]
fn a_card_that_is_plugged_in_is_found() {
    let rig = Rig::new(&json!({"cards": [{"uuid": "GPU-a"}]}));
    let plug = |address: &str| {
        let device = rig.folder.path().join("sys/bus/pci/drivers/nvidia").join(address);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), "0x10de\n").unwrap();
    };
    plug("0000:01:00.0");
    let mut gpus = rig.gpus();
    assert_eq!(gpus.read().len(), 1);
    rig.steer(&json!({"cards": [{"uuid": "GPU-a"}, {"uuid": "GPU-b", "pci": "00000000:02:00.0"}]}));
    plug("0000:02:00.0");
    until("both cards", || (gpus.read().len() == 2).then_some(()));
}

#[test]
fn a_handle_that_knows_nothing_after_the_driver_was_loaded_again_is_given_up() {
    let cards = |faults: Value| json!({"cards": [{"uuid": "GPU-a", "faults": faults}]});
    let rig = Rig::new(&cards(json!({"memory": "unknown", "temperature": "unknown"})));
    let mut gpus = rig.gpus();
    assert!(gpus.read()[0].as_ref().unwrap_err().lost);
    rig.steer(&cards(json!({})));
    until("the card", || gpus.read().first().is_some_and(Result::is_ok).then_some(()));
}

#[test]
fn a_chip_that_looks_away_says_so_and_the_method_names_what_is_told() {
    let sensor = |card: Value| Rig::new(&json!({"cards": [card]})).gpus().sensors().remove(0);
    let h100 = sensor(json!({"name": "NVIDIA H100 PCIe", "architecture": 9}));
    assert!(h100.leaves_out.is_some_and(|it| it.contains("quarter")));
    assert_eq!(h100.method, "NVML: instantaneous power, energy counter");
    let faults = json!({"power_instant": "not_supported", "energy": "not_supported"});
    let rtx = sensor(json!({"name": "NVIDIA GeForce RTX 3060", "architecture": 7, "faults": faults}));
    assert_eq!((rtx.method.as_str(), rtx.leaves_out), ("NVML: power averaged over about a second", None));
}

#[test]
fn the_refresh_is_measured_as_the_card_has_it() {
    let rig = Rig::new(&json!({"cards": [{"uuid": "GPU-a", "load_w": 200.0, "refresh_ms": 50}]}));
    let mut sensors = Sensors::new(&rig.places());
    let refresh = idlewatt_devices::refresh(Duration::from_millis(800), || sensors.read())["GPU-a"];
    assert!((Duration::from_millis(35)..Duration::from_millis(80)).contains(&refresh), "{refresh:?}");
}

#[test]
fn the_meter_finds_the_true_energy_of_a_noisy_card_under_changing_load() {
    let card = |load: f64| json!({"cards": [{"load_w": load, "noise_mw": 4000.0, "seed": 7, "lag_ms": 30}]});
    let rig = Rig::new(&card(60.0));
    let mut gpus = rig.gpus();
    let mut meter = Meter::default();
    meter.set_purpose(Purpose::Waiting(Place::Anywhere), true);
    meter.read(&only(&mut gpus));
    let clock =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64() * 1e6;
    let from = clock();
    for load in [60.0, 320.0, 150.0, 320.0, 90.0] {
        rig.steer(&card(load));
        let until = Instant::now() + Duration::from_millis(1000);
        while Instant::now() < until {
            sleep(Duration::from_millis(50));
            meter.read(&only(&mut gpus));
        }
    }
    let truth = rig.truth(from, clock());
    #[expect(clippy::cast_precision_loss, reason = "a comparison within percents")]
    let measured = meter.take().measured().0 as f64;
    let error = (measured - truth) / truth;
    println!("measured {measured:.0} mJ, true {truth:.0} mJ, error {:.2} %", error * 100.0);
    assert!(error.abs() < 0.05, "{error}");
}
