//! Sensors of Linux against trees of recorded files: each vendor's figures in their own units, and everything that such a
//! file can say instead of a figure.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use idlewatt_core::device::{GpuReading, LimitRange, Power, Scope, SensorReading};
use idlewatt_devices::{Gpus, Level, Places, Sensors};
use idlewatt_protocol::{Millijoules, Milliwatts};
use tempfile::TempDir;

const XTX: &str = include_str!("fixtures/radeon-rx-7900-xtx.txt");
const RX_6900: &str = include_str!("fixtures/radeon-rx-6900-xt.txt");
const PHOENIX: &str = include_str!("fixtures/ryzen-phoenix.txt");
const B580: &str = include_str!("fixtures/arc-b580-xe.txt");
const A380: &str = include_str!("fixtures/arc-a380-i915.txt");
const CORE_I7: &str = include_str!("fixtures/core-i7-powercap.txt");
const ORIN: &str = include_str!("fixtures/jetson-orin-nx.txt");
const NOTEBOOK: &str = include_str!("fixtures/notebook-battery.txt");

const XTX_CARD: &str = "bus/pci/drivers/amdgpu/0000:03:00.0";
const XTX_SENSORS: &str = "bus/pci/drivers/amdgpu/0000:03:00.0/hwmon/hwmon8";
const B580_SENSORS: &str = "bus/pci/drivers/xe/0000:04:00.0/hwmon/hwmon3";

/// A machine's `/sys`, `/proc` and `/usr/share` in one folder.
struct Tree(TempDir);

impl Tree {
    /// One file a line, its path before the first blank; a line that begins with `#` is a remark.
    fn of(fixtures: &[&str]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        let lines = fixtures.iter().flat_map(|fixture| fixture.lines()).filter(|line| !line.starts_with('#'));
        for (path, content) in lines.map(|line| line.split_once(' ').unwrap()) {
            tree.write(path, &content.replace("\\n", "\n"));
        }
        tree
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn places(&self) -> Places {
        Places {
            nvml: Some(self.path("no-nvml.so")),
            sysfs: self.0.path().to_owned(),
            proc: self.path("proc"),
            share: self.path("share"),
            retry: Duration::ZERO,
        }
    }

    fn gpus(&self) -> Gpus {
        Gpus::new(&self.places())
    }

    fn sensors(&self) -> Sensors {
        Sensors::new(&self.places())
    }
}

fn only(gpus: &mut Gpus) -> GpuReading {
    let mut readings = gpus.read();
    assert_eq!(readings.len(), 1, "{readings:?}");
    readings.remove(0).unwrap()
}

fn reading(sensors: &mut Sensors, id: &str) -> Option<SensorReading> {
    sensors.read().into_iter().find(|reading| reading.sensor == id)
}

const fn watts(watts: i64) -> Milliwatts {
    Milliwatts(watts * 1000)
}

#[test]
fn a_radeon_tells_its_power_limits_heat_and_memory() {
    let card = only(&mut Tree::of(&[XTX]).gpus());
    assert_eq!((card.id.as_str(), card.name.as_str()), ("amdgpu-0000:03:00.0", "AMD Radeon RX 7900 XTX"));
    assert_eq!(card.power, Some(Power { value: watts(68), averaged: true }));
    assert_eq!((card.limit, card.default_limit), (Some(watts(290)), Some(watts(290))));
    assert_eq!(card.limit_range, Some(LimitRange { min: watts(261), max: watts(333) }));
    assert_eq!((card.temperature_c, card.hot_spot_c, card.fan_percent), (Some(53), Some(68), Some(0)));
    assert_eq!((card.vram_total, card.vram_used), (Some(25_753_026_560), Some(1_272_893_440)));
    assert_eq!((card.utilisation, card.energy, card.asleep), (Some(3), None, false));
}

#[test]
fn a_radeon_without_a_lowest_limit_takes_a_watt_and_never_zero() {
    let card = only(&mut Tree::of(&[RX_6900]).gpus());
    assert_eq!(card.limit_range, Some(LimitRange { min: watts(1), max: watts(332) }));
    assert_eq!(card.name, "AMD Radeon RX 6800/6800 XT / 6900 XT");
}

#[test]
fn a_processors_graphics_tell_the_instant_and_say_that_the_processor_is_in_it() {
    let tree = Tree::of(&[PHOENIX]);
    let card = only(&mut tree.gpus());
    assert_eq!(card.power, Some(Power { value: Milliwatts(3142), averaged: false }));
    assert_eq!((card.limit, card.limit_range), (None, None));
    assert_eq!(card.name, "AMD 1002:15bf");
    let sensor = tree.gpus().sensors().remove(0);
    assert_eq!(sensor.scope, Scope::Package);
    assert!(sensor.leaves_out.unwrap().contains("processor"));
}

#[test]
fn a_processors_graphics_beside_a_card_are_no_second_card() {
    let tree = Tree::of(&[PHOENIX, XTX]);
    let mut gpus = tree.gpus();
    assert_eq!(only(&mut gpus).id, "amdgpu-0000:03:00.0");
    assert!(gpus.findings().iter().any(|finding| finding.what.contains("left aside")));
    let beside_nvidia = Tree::of(&[PHOENIX, "bus/pci/drivers/nvidia/0000:01:00.0/vendor 0x10de"]);
    assert!(beside_nvidia.gpus().read().is_empty());
}

#[test]
fn an_arc_of_xe_counts_the_whole_card_and_tells_power_as_an_average() {
    let tree = Tree::of(&[B580]);
    let mut gpus = tree.gpus();
    let sensor = gpus.sensors().remove(0);
    assert_eq!(
        (sensor.id.as_str(), sensor.scope, sensor.leaves_out),
        ("xe-0000:04:00.0", Scope::Board, None)
    );
    let first = only(&mut gpus);
    assert_eq!((first.name.as_str(), first.power), ("Intel Arc B580", None));
    assert_eq!((first.temperature_c, first.hot_spot_c), (Some(54), Some(56)));
    assert_eq!((first.limit, first.default_limit), (Some(watts(190)), Some(watts(190))));
    assert_eq!(first.limit_range, Some(LimitRange { min: watts(1), max: watts(190) }));
    sleep(Duration::from_millis(100));
    tree.write(&format!("{B580_SENSORS}/energy1_input"), "435648211730");
    let second = only(&mut gpus);
    assert_eq!(second.energy.unwrap().0 - first.energy.unwrap().0, 12_000);
    let power = second.power.unwrap();
    let seconds = second.at.duration_since(first.at).as_secs_f64();
    assert!(power.averaged && (power.value.0 as f64 - 12_000.0 / seconds).abs() < 2.0, "{power:?}");
}

#[test]
fn an_arc_of_i915_counts_its_chip_only() {
    let tree = Tree::of(&[A380]);
    let sensor = tree.gpus().sensors().remove(0);
    assert_eq!((sensor.id.as_str(), sensor.name.as_str()), ("i915-0000:03:00.0", "Intel Arc A380"));
    assert!(sensor.scope == Scope::Package && sensor.leaves_out.is_some());
    let card = only(&mut tree.gpus());
    assert_eq!((card.limit, card.energy), (Some(watts(55)), Some(Millijoules(0))));
}

#[test]
fn a_limit_of_zero_is_a_limit_switched_off() {
    let tree = Tree::of(&[B580]);
    tree.write(&format!("{B580_SENSORS}/power1_max"), "0");
    assert_eq!(only(&mut tree.gpus()).limit, None);
}

#[test]
fn a_sleeping_card_is_asked_nothing() {
    let tree = Tree::of(&[XTX]);
    let mut gpus = tree.gpus();
    tree.write(&format!("{XTX_CARD}/power/runtime_status"), "suspended");
    let card = only(&mut gpus);
    assert!(card.asleep);
    assert_eq!((card.power, card.vram_used, card.limit_range), (None, None, None));
    assert!(gpus.findings().iter().any(|finding| finding.what.contains("sleeps")));
    tree.write(&format!("{XTX_CARD}/power/runtime_status"), "active");
    assert!(!only(&mut gpus).asleep);
}

#[test]
fn what_is_no_figure_is_none_and_hides_nothing_else() {
    let page = "<html><head><title>502 Bad Gateway</title></head></html>";
    for garbage in ["", "NaN", "0", "-1", "-68000000", page, "68000000000000", "99999999999999999999"] {
        let tree = Tree::of(&[XTX, B580]);
        for file in ["power1_average", "power1_cap", "temp1_input", "fan1_input"] {
            tree.write(&format!("{XTX_SENSORS}/{file}"), garbage);
        }
        tree.write(&format!("{B580_SENSORS}/energy1_input"), garbage);
        let readings: Vec<_> = tree.gpus().read().into_iter().map(Result::unwrap).collect();
        let (radeon, arc) = (&readings[0], &readings[1]);
        assert_eq!((radeon.power, radeon.limit), (None, None), "{garbage:?}");
        assert!(radeon.temperature_c.is_none_or(|it| it == 0), "{garbage:?}");
        assert_eq!((radeon.hot_spot_c, radeon.utilisation), (Some(68), Some(3)), "{garbage:?}");
        assert_eq!((arc.power, arc.temperature_c), (None, Some(54)), "{garbage:?}");
    }
}

#[test]
fn a_card_comes_and_goes_with_its_driver() {
    let tree = Tree::of(&[]);
    let mut gpus = tree.gpus();
    assert!(gpus.read().is_empty());
    for line in XTX.lines().filter(|line| !line.starts_with('#')) {
        let (path, content) = line.split_once(' ').unwrap();
        tree.write(path, content);
    }
    assert_eq!(only(&mut gpus).id, "amdgpu-0000:03:00.0");
    fs::remove_dir_all(tree.path(XTX_CARD)).unwrap();
    assert!(gpus.read().is_empty());
}

#[test]
fn memory_is_told_by_process_and_a_file_that_is_open_twice_counts_once() {
    let tree = Tree::of(&[XTX, B580]);
    let open = |pid: u32, file: u32, fdinfo: &str| {
        tree.write(&format!("proc/{pid}/fdinfo/{file}"), fdinfo);
        fs::create_dir_all(tree.path(&format!("proc/{pid}/fd"))).unwrap();
        symlink("/dev/dri/renderD128", tree.path(&format!("proc/{pid}/fd/{file}"))).unwrap();
    };
    let radeon = "pos:\t0\ndrm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t7\ndrm-memory-vram:\t2048 KiB\n\
                  drm-memory-gtt: \t9 MiB\ndrm-total-vram:\t8 MiB";
    let arc = "drm-driver:\txe\ndrm-pdev:\t0000:04:00.0\ndrm-client-id:\t7\ndrm-total-vram0:\t9 MiB\ndrm-resident-vram0:\t3 MiB";
    open(100, 5, radeon);
    open(100, 6, radeon);
    open(200, 3, arc);
    open(300, 3, "<html>");
    // ROCm's own driver knows of more than the open files do.
    tree.write("class/kfd/kfd/topology/nodes/1/gpu_id", "4711");
    tree.write("class/kfd/kfd/topology/nodes/1/properties", "simd_count 192\ndomain 0\nlocation_id 768");
    tree.write("class/kfd/kfd/proc/400/vram_4711", "5000000");
    let mut found: Vec<_> =
        tree.gpus().processes().into_iter().map(|it| (it.pid, it.gpu, it.vram.unwrap())).collect();
    found.sort();
    let radeon = || "amdgpu-0000:03:00.0".to_owned();
    let arc = "xe-0000:04:00.0".to_owned();
    assert_eq!(found, [(100, radeon(), 2 << 20), (200, arc, 3 << 20), (400, radeon(), 5_000_000)]);
}

#[test]
fn packages_and_the_platform_are_told_apart_and_nothing_twice() {
    let sensors = Tree::of(&[CORE_I7]).sensors().list();
    let told: Vec<_> = sensors.iter().map(|it| (it.id.as_str(), it.name.as_str(), it.scope)).collect();
    assert_eq!(
        told,
        [
            ("powercap:intel-rapl:0", "Processor 0", Scope::Package),
            ("powercap:intel-rapl:1", "Platform (psys)", Scope::Machine),
        ]
    );
}

#[test]
fn a_processors_counter_goes_round_without_losing_energy() {
    let tree = Tree::of(&[CORE_I7]);
    let mut sensors = tree.sensors();
    let id = "powercap:intel-rapl:0";
    assert_eq!(reading(&mut sensors, id).unwrap().energy, Some(Millijoules(0)));
    sleep(Duration::from_millis(60));
    tree.write("class/powercap/intel-rapl:0/energy_uj", "4971150");
    let after = reading(&mut sensors, id).unwrap();
    assert_eq!(after.energy, Some(Millijoules(5000)));
    assert!(after.power.unwrap().averaged);
    // Looking for sensors again keeps what was counted.
    sensors.list();
    assert_eq!(reading(&mut sensors, id).unwrap().energy, Some(Millijoules(5000)));
}

#[test]
fn a_counter_for_root_only_is_missing_with_the_step_to_take() {
    let tree = Tree::of(&[CORE_I7]);
    for zone in ["intel-rapl:0", "intel-rapl:1"] {
        let file = tree.path(&format!("class/powercap/{zone}/energy_uj"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::File::open(&file).is_ok() {
            // Root reads everything: nothing is missing to it.
            assert!(tree.sensors().missing().is_empty());
            return;
        }
    }
    let mut sensors = tree.sensors();
    assert!(sensors.list().is_empty());
    let missing = sensors.missing();
    assert!(
        missing[0].level == Level::Note && missing[0].action.as_ref().unwrap().contains("chmod g+r"),
        "{missing:?}"
    );
}

#[test]
fn a_jetson_tells_its_module_and_its_rails() {
    let tree = Tree::of(&[ORIN]);
    let mut sensors = tree.sensors();
    let told: Vec<_> = sensors.list().into_iter().map(|it| (it.id, it.scope)).collect();
    assert_eq!(
        told,
        [
            ("ina3221:VDD_IN".into(), Scope::Machine),
            ("ina3221:VDD_CPU_GPU_CV".into(), Scope::Rail),
            ("ina3221:VDD_SOC".into(), Scope::Rail),
        ]
    );
    // 19.160 V times 0.452 A
    let power = reading(&mut sensors, "ina3221:VDD_IN").unwrap().power;
    assert_eq!(power, Some(Power { value: Milliwatts(8660), averaged: false }));
    tree.write("class/hwmon/hwmon1/curr1_input", "NaN");
    assert_eq!(reading(&mut sensors, "ina3221:VDD_IN").unwrap().power, None);
}

#[test]
fn a_battery_tells_of_the_machine_while_it_discharges() {
    let tree = Tree::of(&[NOTEBOOK]);
    let mut sensors = tree.sensors();
    assert_eq!(sensors.list().into_iter().map(|it| it.id).collect::<Vec<_>>(), ["battery"]);
    // 11.4 V times 1.25 A
    let power = reading(&mut sensors, "battery").unwrap().power;
    assert_eq!(power, Some(Power { value: Milliwatts(14_250), averaged: true }));
    tree.write("class/power_supply/BAT0/power_now", "-9500000");
    sensors.list();
    assert_eq!(reading(&mut sensors, "battery").unwrap().power.unwrap().value, Milliwatts(9500));
    tree.write("class/power_supply/BAT0/status", "Charging");
    assert_eq!(reading(&mut sensors, "battery").unwrap().power, None);
}

#[test]
fn a_machine_without_sensors_is_a_normal_machine_and_says_so() {
    let mut sensors = Tree::of(&[]).sensors();
    assert!(sensors.list().is_empty() && sensors.read().is_empty());
    assert!(sensors.missing().iter().all(|finding| finding.level == Level::Note));
    assert!(sensors.missing().iter().any(|finding| finding.what.contains("powercap")));
}

#[test]
fn looking_at_four_cards_opens_no_file() {
    let names = ["0000:03:00.0", "0000:04:00.0", "0000:05:00.0", "0000:06:00.0"];
    let cards: Vec<_> = names.iter().map(|name| XTX.replace("0000:03:00.0", name)).collect();
    let tree = Tree::of(&cards.iter().map(String::as_str).collect::<Vec<_>>());
    let mut gpus = Gpus::new(&Places { retry: Duration::from_secs(3600), ..tree.places() });
    assert_eq!(gpus.read().len(), 4);
    let open = |folder: &Path| fs::read_dir(folder).unwrap().count();
    let before = open(Path::new("/proc/self/fd"));
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(gpus.read().iter().flatten().filter(|card| card.power.is_some()).count(), 4);
    }
    println!("four cards: {} µs a look", started.elapsed().as_micros() / 100);
    // Files that are opened for each look are seen no more once their folder is gone.
    fs::remove_dir_all(tree.path("bus")).unwrap();
    assert_eq!(gpus.read().iter().flatten().filter(|card| card.power.is_some()).count(), 4);
    assert_eq!(open(Path::new("/proc/self/fd")), before);
}
