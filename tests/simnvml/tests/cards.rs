//! The simulated driver as nvml-wrapper sees it: what the cards keep, and who may set what.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use idlewatt_simnvml::rig::{RIGHT, Rig};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde_json::{Value, json};

fn rig(folder: &Path, control: &Value) -> (Rig, Nvml) {
    let rig = Rig::new(folder, control).unwrap();
    let nvml = load(&rig);
    (rig, nvml)
}

fn load(rig: &Rig) -> Nvml {
    Nvml::builder().lib_path(rig.library().as_os_str()).init().unwrap()
}

/// True energy of card 0 until a moment, mJ.
fn truth(folder: &Path, until: SystemTime) -> f64 {
    let until = until.duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e6;
    let record = fs::read_to_string(folder.join("simnvml.csv")).unwrap();
    let lines =
        record.lines().map(|line| line.split(',').map(|it| it.parse::<f64>().unwrap()).collect::<Vec<_>>());
    lines.take_while(|line| line[0] <= until).last().map_or(0.0, |line| line[3])
}

#[test]
fn the_counter_follows_the_truth_through_changing_load() {
    let folder = tempfile::tempdir().unwrap();
    let control = |load: f64| json!({"cards": [{"load_w": load, "refresh_ms": 20}]});
    let (rig, nvml) = rig(folder.path(), &control(60.0));
    let read = || nvml.device_by_index(0).unwrap().total_energy_consumption().unwrap() as f64;
    let (from, before) = (SystemTime::now(), read());
    for load in [300.0, 60.0, 200.0] {
        rig.steer(&control(load)).unwrap();
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            read();
            sleep(Duration::from_millis(15));
        }
    }
    let (counted, to) = (read() - before, SystemTime::now());
    let truth = truth(folder.path(), to) - truth(folder.path(), from);
    // One refresh of 20 ms and one line of 10 ms at either end.
    assert!((counted - truth).abs() < 12_000.0, "counted {counted} mJ, true {truth} mJ");
    assert!(truth > 120_000.0, "{truth}");
}

#[test]
fn limits_and_energy_are_the_cards_and_not_a_processs() {
    const CHILD: &str = "SIMNVML_TEST_CHILD";
    if let Some(folder) = std::env::var_os(CHILD) {
        let nvml = Nvml::builder()
            .lib_path(Path::new(&folder).join("libnvidia-ml.so.1").as_os_str())
            .init()
            .unwrap();
        let mut device = nvml.device_by_index(0).unwrap();
        let set = device.set_power_management_limit(200_000);
        assert_eq!(set.is_ok(), std::env::var_os(RIGHT).is_some());
        println!("\nenergy {}", device.total_energy_consumption().unwrap());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (rig, nvml) = rig(folder.path(), &json!({"cards": [{"uuid": "GPU-a", "load_w": 300.0}]}));
    let device = nvml.device_by_uuid("GPU-a").unwrap();
    assert_eq!(device.enforced_power_limit().unwrap(), 450_000);
    sleep(Duration::from_millis(300));
    let child = |right: bool| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["limits_and_energy", "--nocapture"]).env(CHILD, folder.path()).env_remove(RIGHT);
        if right {
            command.env(RIGHT, "1");
        }
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let energy =
            output.lines().find_map(|line| line.strip_prefix("energy ")).map(|it| it.parse::<u64>().unwrap());
        energy.unwrap_or_else(|| panic!("{output}"))
    };
    child(false);
    assert_eq!(device.enforced_power_limit().unwrap(), 450_000);
    let before = device.total_energy_consumption().unwrap();
    let (theirs, mine) = (child(true), device.total_energy_consumption().unwrap());
    assert!((before..=mine).contains(&theirs), "{before} {theirs} {mine}");
    assert_eq!((device.enforced_power_limit().unwrap(), rig.limit_mw("GPU-a")), (200_000, Some(200_000)));
    sleep(Duration::from_millis(400));
    // Averaged over a second, of which it was at 300 W for a part.
    assert!(device.power_usage().unwrap() < 300_000);
}

#[test]
fn a_driver_loaded_again_forgets_limits_and_energy_and_must_be_asked_anew() {
    let folder = tempfile::tempdir().unwrap();
    let control = |loads: u32| {
        json!({"needs_right": false, "driver_loads": loads,
            "cards": [{"limit_w": 350, "default_limit_w": 400, "load_w": 300.0}]})
    };
    let (rig, nvml) = rig(folder.path(), &control(0));
    nvml.device_by_index(0).unwrap().set_power_management_limit(250_000).unwrap();
    sleep(Duration::from_millis(100));
    let before = nvml.device_by_index(0).unwrap().total_energy_consumption().unwrap();
    rig.steer(&control(1)).unwrap();
    assert!(matches!(nvml.device_by_index(0), Err(NvmlError::Uninitialized)));
    drop(nvml);
    let nvml = load(&rig);
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(device.enforced_power_limit().unwrap(), 400_000);
    assert!(device.total_energy_consumption().unwrap() < before);
}

#[test]
fn only_limits_in_the_cards_range_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (_rig, nvml) =
        rig(folder.path(), &json!({"needs_right": false, "cards": [{"limit_range_w": [150, 500]}]}));
    let mut device = nvml.device_by_index(0).unwrap();
    let range = device.power_management_limit_constraints().unwrap();
    assert_eq!((range.min_limit, range.max_limit), (150_000, 500_000));
    for limit in [0, 149_999, 500_001, u32::MAX] {
        assert!(matches!(device.set_power_management_limit(limit), Err(NvmlError::InvalidArg)));
    }
    device.set_power_management_limit(500_000).unwrap();
    assert!(matches!(nvml.device_by_uuid("GPU-nobody"), Err(NvmlError::NotFound)));
}

#[test]
fn the_hosts_own_tools_set_the_limit_through_the_control_file() {
    let folder = tempfile::tempdir().unwrap();
    let control =
        |limit: u32, load: f64| json!({"needs_right": false, "cards": [{"limit_w": limit, "load_w": load}]});
    let (rig, nvml) = rig(folder.path(), &control(350, 50.0));
    let mut device = nvml.device_by_index(0).unwrap();
    device.set_power_management_limit(250_000).unwrap();
    rig.steer(&control(350, 60.0)).unwrap();
    assert_eq!(device.enforced_power_limit().unwrap(), 250_000, "only a new limit sets one");
    rig.steer(&control(300, 60.0)).unwrap();
    assert_eq!(device.enforced_power_limit().unwrap(), 300_000);
}
