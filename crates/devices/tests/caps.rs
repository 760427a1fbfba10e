//! A card's limit is set within its own range, its own one saved first, and given back whatever happens.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use idlewatt_devices::Places;
use idlewatt_devices::cap::{CapError, CapPlaces, Caps, Setter, Way};
use idlewatt_protocol::Milliwatts;
use idlewatt_simnvml::rig::Rig;
use serde_json::{Value, json};
use tempfile::TempDir;

const CARD: &str = "GPU-a";

/// A machine of its own: simulated NVIDIA cards, and a sysfs.
struct Machine {
    folder: TempDir,
    nvidia: Rig,
}

impl Machine {
    fn new(control: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nvidia = Rig::new(folder.path(), control).unwrap();
        Self { folder, nvidia }
    }

    /// One card at 350 W, made for 450 W, that takes 100 W to 600 W.
    fn with_card(more: &Value) -> Self {
        Self::new(&card(more))
    }

    fn places(&self) -> Places {
        Places { nvml: Some(self.nvidia.library()), sysfs: self.path("sys"), ..Places::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn record(&self) -> PathBuf {
        self.path("state/limits.json")
    }

    fn setter(&self) -> Setter {
        Setter::new(&self.places(), &self.path("state"))
    }

    fn limit(&self) -> u64 {
        self.nvidia.limit_mw(CARD).unwrap()
    }
}

fn card(more: &Value) -> Value {
    let mut card = json!({"uuid": CARD, "limit_w": 350, "default_limit_w": 450, "limit_range_w": [100, 600]});
    card.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut control = json!({"needs_right": false});
    // What concerns the driver and not the card.
    for key in ["needs_right", "driver_loads"] {
        if let Some(value) = card.as_object_mut().unwrap().remove(key) {
            control[key] = value;
        }
    }
    control["cards"] = json!([card]);
    control
}

fn watts(watts: i64) -> Milliwatts {
    Milliwatts(watts * 1000)
}

#[test]
fn a_limit_is_set_with_the_cards_own_one_saved_and_given_back() {
    let machine = Machine::with_card(&json!({}));
    let mut setter = machine.setter();
    assert_eq!(setter.set(CARD, watts(280)), Ok(watts(280)));
    assert_eq!((machine.limit(), setter.original(CARD)), (280_000, Some(watts(350))));
    assert!(fs::read_to_string(machine.record()).unwrap().contains("350000"));
    // A second one does not take the first for the card's own.
    assert_eq!(setter.set(CARD, watts(200)), Ok(watts(200)));
    assert_eq!(setter.restore(CARD), Ok(()));
    assert_eq!((machine.limit(), setter.original(CARD)), (350_000, None));
    assert!(!machine.record().exists());
}

#[test]
fn the_cards_own_limit_is_on_disk_before_another_is_set() {
    let mut two = card(&json!({}));
    two["cards"].as_array_mut().unwrap().push(json!({"uuid": "GPU-b"}));
    let machine = Machine::new(&two);
    let mut setter = machine.setter();
    // With one limit held the driver stays loaded.
    setter.set("GPU-b", watts(300)).unwrap();
    // It waits for its turn, so what is on disk now was there before it set anything.
    let turn = File::create(machine.path("simnvml.lock")).unwrap();
    turn.lock().unwrap();
    let setting = thread::spawn(move || setter.set(CARD, watts(200)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fs::read_to_string(machine.record()).is_ok_and(|record| record.contains(CARD)) {
        assert!(Instant::now() < deadline, "set before it was saved");
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(machine.limit(), 350_000);
    drop(turn);
    assert_eq!(setting.join().unwrap(), Ok(watts(200)));
    assert_eq!(machine.limit(), 200_000);
}

#[test]
fn what_a_killed_process_left_is_given_back_by_the_next() {
    let machine = Machine::with_card(&json!({}));
    machine.setter().set(CARD, watts(200)).unwrap();
    assert_eq!(machine.limit(), 200_000);
    assert_eq!(machine.setter().restore_all(), Ok(0));
    assert_eq!(machine.limit(), 350_000);
}

#[test]
fn only_what_the_card_itself_takes_is_set() {
    let machine = Machine::with_card(&json!({}));
    let mut setter = machine.setter();
    for asked in [watts(99), watts(601), watts(0), watts(-1), Milliwatts(i64::MAX), Milliwatts(i64::MIN)] {
        let refused = CapError::OutOfRange { asked_mw: asked, min_mw: watts(100), max_mw: watts(600) };
        assert_eq!(setter.set(CARD, asked), Err(refused));
    }
    assert_eq!(setter.set("GPU-b", watts(200)), Err(CapError::UnknownCard { gpu: "GPU-b".into() }));
    assert_eq!((machine.limit(), machine.record().exists()), (350_000, false));
    for asked in [watts(100), watts(600)] {
        assert_eq!(setter.set(CARD, asked), Ok(asked));
    }
}

#[test]
fn a_refused_limit_leaves_nothing_to_give_back() {
    let machine = Machine::with_card(&json!({"needs_right": true}));
    let mut setter = machine.setter();
    assert_eq!(setter.set(CARD, watts(200)), Err(CapError::NoPermission));
    assert_eq!((setter.holds(CARD), machine.record().exists()), (false, false));
}

#[test]
fn a_laptops_card_says_that_it_takes_no_limit() {
    let fault = json!({"faults": {"own_limit": "not_supported", "limit_range": "not_supported"}});
    let machine = Machine::with_card(&fault);
    assert_eq!(machine.setter().set(CARD, watts(200)), Err(CapError::NotSupported));
    let machine = Machine::with_card(&json!({"faults": {"set_limit": "not_supported"}}));
    assert_eq!(machine.setter().set(CARD, watts(200)), Err(CapError::NotSupported));
    assert!(!machine.record().exists());
}

#[test]
fn a_limit_that_a_new_driver_forgot_is_set_again() {
    let machine = Machine::with_card(&json!({}));
    let mut setter = machine.setter();
    setter.set(CARD, watts(200)).unwrap();
    machine.nvidia.steer(&card(&json!({"driver_loads": 1}))).unwrap();
    assert_eq!(setter.card(CARD).unwrap().limit_mw, Some(watts(450)));
    assert_eq!(setter.set(CARD, watts(200)), Ok(watts(200)));
    assert_eq!(machine.limit(), 200_000);
    setter.restore(CARD).unwrap();
    assert_eq!(machine.limit(), 350_000);
}

#[test]
fn a_lost_card_gets_its_own_limit_when_it_is_back() {
    let machine = Machine::with_card(&json!({}));
    let mut setter = machine.setter();
    setter.set(CARD, watts(200)).unwrap();
    machine.nvidia.steer(&card(&json!({"lost": true}))).unwrap();
    assert_eq!(setter.restore_all(), Ok(1));
    assert!(setter.holds(CARD) && machine.record().exists());
    machine.nvidia.steer(&card(&json!({}))).unwrap();
    assert_eq!(setter.restore_all(), Ok(0));
    assert_eq!(machine.limit(), 350_000);
}

#[test]
fn a_record_that_cannot_be_read_is_set_aside_and_raises_no_limit() {
    let machine = Machine::with_card(&json!({}));
    machine.setter().set(CARD, watts(200)).unwrap();
    for record in ["", "{", "[]", "{\"version\":1}", "\u{0}\u{0}"] {
        fs::write(machine.record(), record).unwrap();
        let mut setter = machine.setter();
        assert_eq!(setter.restore_all(), Ok(0));
        assert_eq!(machine.limit(), 200_000);
        let aside = machine.path("state/limits.unreadable.json");
        assert_eq!(fs::read_to_string(aside).unwrap(), record);
        assert_eq!(setter.set(CARD, watts(210)), Ok(watts(210)));
        setter.restore(CARD).unwrap();
    }
}

#[test]
fn a_record_of_a_newer_version_is_left_to_it() {
    let machine = Machine::with_card(&json!({}));
    machine.setter().set(CARD, watts(200)).unwrap();
    let newer = "{\"version\":2,\"limits\":\"as nobody knows yet\"}";
    fs::write(machine.record(), newer).unwrap();
    let mut setter = machine.setter();
    assert!(matches!(setter.restore_all(), Err(CapError::NotSaved { problem }) if problem.contains("newer")));
    assert!(matches!(setter.set(CARD, watts(180)), Err(CapError::NotSaved { .. })));
    assert_eq!((machine.limit(), fs::read_to_string(machine.record()).unwrap()), (200_000, newer.to_owned()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_record_from_before_the_system_was_started_is_forgotten() {
    let machine = Machine::with_card(&json!({}));
    machine.setter().set(CARD, watts(200)).unwrap();
    let record = fs::read_to_string(machine.record()).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(record.contains(boot.trim()));
    fs::write(machine.record(), record.replace(boot.trim(), "an earlier one")).unwrap();
    assert_eq!(machine.setter().restore_all(), Ok(0));
    assert_eq!(machine.limit(), 200_000);
}

#[test]
fn nothing_is_set_that_could_not_be_given_back() {
    let machine = Machine::with_card(&json!({}));
    fs::write(machine.path("state"), "a file where the folder should be").unwrap();
    let mut setter = machine.setter();
    assert!(matches!(setter.set(CARD, watts(200)), Err(CapError::NotSaved { .. })));
    assert_eq!(setter.card(CARD).unwrap().limit_mw, Some(watts(350)));
    // A folder that is right again needs no new start.
    fs::remove_file(machine.path("state")).unwrap();
    assert_eq!(setter.set(CARD, watts(200)), Ok(watts(200)));
}

#[test]
fn two_processes_do_not_take_each_others_limit_for_the_cards_own() {
    let machine = Machine::with_card(&json!({}));
    let mut first = machine.setter();
    first.set(CARD, watts(200)).unwrap();
    let mut second = machine.setter();
    assert!(matches!(second.set(CARD, watts(180)), Err(CapError::Taken { .. })));
    assert!(matches!(second.restore_all(), Err(CapError::Taken { .. })));
    drop(first);
    assert_eq!(second.restore_all(), Ok(0));
    assert_eq!(machine.limit(), 350_000);
}

#[test]
fn who_gave_every_limit_back_leaves_the_folder_to_the_next() {
    let machine = Machine::with_card(&json!({}));
    let (mut first, mut second) = (machine.setter(), machine.setter());
    for setter in [&mut first, &mut second] {
        setter.set(CARD, watts(200)).unwrap();
        setter.restore(CARD).unwrap();
    }
    first.set(CARD, watts(180)).unwrap();
    assert!(matches!(second.set(CARD, watts(160)), Err(CapError::Taken { .. })));
    drop(second);
    assert_eq!(first.restore_all(), Ok(0));
    assert_eq!(machine.limit(), 350_000);
}

#[test]
fn one_engine_governs_a_card_until_it_gives_it_back() {
    let machine = Machine::with_card(&json!({"needs_right": true}));
    let caps = |state: &str| {
        Caps::new(&CapPlaces { cards: machine.places(), helper: None, state: machine.path(state) })
    };
    let (mut mine, mut theirs) = (caps("mine"), caps("theirs"));
    mine.claim(CARD).unwrap();
    mine.claim(CARD).unwrap();
    let Err(CapError::Taken { by }) = theirs.claim(CARD) else { unreachable!("one card, two governors") };
    if cfg!(target_os = "linux") {
        assert!(by.contains(&std::process::id().to_string()), "{by}");
    }
    assert!(matches!(theirs.cards()[0].way, Err(CapError::Taken { .. })));
    mine.restore(CARD).unwrap();
    theirs.claim(CARD).unwrap();
    drop(theirs);
    mine.claim(CARD).unwrap();
}

#[cfg(unix)]
#[test]
fn who_has_the_right_sets_by_himself_and_who_has_not_says_so() {
    let machine = Machine::with_card(&json!({}));
    let places = CapPlaces { cards: machine.places(), helper: None, state: machine.path("state") };
    let mut caps = Caps::new(&places);
    if !rustix::process::geteuid().is_root() {
        assert_eq!(caps.cards()[0].way, Err(CapError::NoPermission));
        assert_eq!(caps.set(CARD, watts(200)), Err(CapError::NoPermission));
        return;
    }
    assert_eq!(caps.cards()[0].way, Ok(Way::Direct));
    assert_eq!(caps.set(CARD, watts(200)), Ok(watts(200)));
    assert_eq!(machine.limit(), 200_000);
    // As kill -9 does: nothing of it runs.
    std::mem::forget(caps);
    machine.nvidia.steer(&card(&json!({"needs_right": true}))).unwrap();
    let other = CapPlaces { state: machine.path("other"), ..places };
    assert!(matches!(Caps::new(&other).set(CARD, watts(180)), Err(CapError::Taken { .. })));
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;

    /// A card's folder as its driver makes it.
    struct Card {
        folder: PathBuf,
    }

    impl Card {
        fn new(machine: &Machine, driver: &str, files: &[(&str, &str)]) -> Self {
            let folder = machine.path("sys/bus/pci/drivers").join(driver).join("0000:03:00.0");
            let card = Self { folder };
            fs::create_dir_all(card.folder.join("hwmon/hwmon4")).unwrap();
            fs::create_dir_all(card.folder.join("power")).unwrap();
            files.iter().for_each(|(name, text)| card.write(name, text));
            card
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.join("hwmon/hwmon4").join(name), format!("{text}\n")).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.folder.join("hwmon/hwmon4").join(name)).unwrap().trim().to_owned()
        }
    }

    const AMD: &str = "amdgpu-0000:03:00.0";

    fn amd(machine: &Machine) -> Card {
        Card::new(
            machine,
            "amdgpu",
            &[
                ("power1_cap", "300000000"),
                ("power1_cap_default", "327000000"),
                ("power1_cap_min", "0"),
                ("power1_cap_max", "376000000"),
            ],
        )
    }

    fn no_nvidia() -> Machine {
        Machine::new(&json!({"cards": []}))
    }

    #[test]
    fn a_limit_is_whole_watts_and_never_more_than_was_asked_for() {
        let machine = no_nvidia();
        let card = amd(&machine);
        let mut setter = machine.setter();
        assert_eq!(setter.set(AMD, Milliwatts(250_700)), Ok(watts(250)));
        assert_eq!(card.read("power1_cap"), "250000000");
        // Set again, it is not written again.
        assert_eq!(setter.set(AMD, Milliwatts(250_700)), Ok(watts(250)));
        drop(setter);
        assert_eq!(machine.setter().restore_all(), Ok(0));
        assert_eq!(card.read("power1_cap"), "300000000");
    }

    #[test]
    fn the_lowest_limit_can_be_set_where_it_is_no_whole_watt() {
        let machine = no_nvidia();
        let card = amd(&machine);
        card.write("power1_cap_min", "97500000");
        assert_eq!(machine.setter().set(AMD, Milliwatts(97_500)), Ok(Milliwatts(97_500)));
    }

    #[test]
    fn zero_is_never_written_where_it_means_the_default() {
        let machine = no_nvidia();
        let card = amd(&machine);
        let mut setter = machine.setter();
        for asked in [Milliwatts(0), Milliwatts(999), watts(377)] {
            assert!(matches!(
                setter.set(AMD, asked),
                Err(CapError::OutOfRange { min_mw: Milliwatts(1000), .. })
            ));
        }
        assert_eq!(card.read("power1_cap"), "300000000");
    }

    #[test]
    fn an_intel_card_without_a_limit_has_none_again() {
        for driver in ["xe", "i915"] {
            let machine = no_nvidia();
            let card = Card::new(&machine, driver, &[("power1_max", "0"), ("power1_rated_max", "190000000")]);
            let id = format!("{driver}-0000:03:00.0");
            let mut setter = machine.setter();
            assert_eq!(setter.card(&id).unwrap().limit_mw, None);
            assert_eq!(setter.set(&id, Milliwatts(120_999)), Ok(watts(120)));
            assert_eq!(
                (card.read("power1_max").as_str(), setter.original(&id)),
                ("120000000", Some(watts(0)))
            );
            assert!(matches!(setter.set(&id, watts(191)), Err(CapError::OutOfRange { .. })));
            setter.restore(&id).unwrap();
            assert_eq!(card.read("power1_max"), "0");
        }
    }

    #[test]
    fn a_driver_that_tells_no_range_is_never_asked_for_more_than_the_card_had() {
        let machine = no_nvidia();
        let card = Card::new(&machine, "xe", &[("power2_max", "150000000")]);
        let id = "xe-0000:03:00.0";
        let mut setter = machine.setter();
        assert!(matches!(setter.set(id, watts(151)), Err(CapError::OutOfRange { .. })));
        assert_eq!(setter.set(id, watts(90)), Ok(watts(90)));
        // The range does not shrink with what was set.
        assert_eq!(setter.set(id, watts(140)), Ok(watts(140)));
        setter.restore(id).unwrap();
        assert_eq!(card.read("power2_max"), "150000000");
        card.write("power2_max", "0");
        assert_eq!(setter.set(id, watts(90)), Err(CapError::NotSupported));
    }

    #[test]
    fn a_sleeping_card_is_left_asleep() {
        let machine = no_nvidia();
        let card = amd(&machine);
        fs::write(card.folder.join("power/runtime_status"), "suspended\n").unwrap();
        let mut setter = machine.setter();
        let seen = setter.card(AMD).unwrap();
        assert_eq!((seen.asleep, seen.limit_mw, seen.range()), (true, None, None));
        assert_eq!(setter.set(AMD, watts(200)), Err(CapError::Asleep));
    }

    #[test]
    fn a_card_that_fell_asleep_still_gets_its_own_limit_back() {
        let machine = no_nvidia();
        let card = amd(&machine);
        let mut setter = machine.setter();
        setter.set(AMD, watts(200)).unwrap();
        fs::write(card.folder.join("power/runtime_status"), "suspended\n").unwrap();
        assert_eq!(setter.restore_all(), Ok(0));
        assert_eq!(card.read("power1_cap"), "300000000");
    }

    #[test]
    fn a_limit_that_may_not_be_written_is_no_permission() {
        let machine = no_nvidia();
        let card = amd(&machine);
        let file = card.folder.join("hwmon/hwmon4/power1_cap");
        // Root may write anything but this: a folder where the file was.
        if rustix::process::geteuid().is_root() {
            return;
        }
        let mut rights = fs::metadata(&file).unwrap().permissions();
        rights.set_readonly(true);
        fs::set_permissions(&file, rights).unwrap();
        assert_eq!(machine.setter().set(AMD, watts(200)), Err(CapError::NoPermission));
        assert!(!Path::new(&machine.record()).exists());
    }
}
