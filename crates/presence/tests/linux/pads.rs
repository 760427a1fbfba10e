//! Gamepads, as a folder that looks like the kernel's: each device is a pipe, which has no axes but speaks in events too.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use idlewatt_presence::{Surroundings, watch};

use crate::rig::{active, idle, options, until, until_says};

const XBOX: &str = "7cdb000000000000 0 0 0 0\n";
const KEYBOARD: &str = "402000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe\n";

struct Devices(tempfile::TempDir);

impl Devices {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("dev/input")).unwrap();
        Self(root)
    }

    fn plug_in(&self, name: &str, keys: &str) -> PathBuf {
        let about = self.0.path().join("sys/class/input").join(name).join("device/capabilities");
        std::fs::create_dir_all(&about).unwrap();
        std::fs::write(about.join("key"), keys).unwrap();
        let device = self.0.path().join("dev/input").join(name);
        let made = std::process::Command::new("mkfifo").arg(&device).status().unwrap();
        assert!(made.success());
        device
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings { root: self.0.path().to_owned(), ..Surroundings::default() }
    }
}

/// Events of a kernel on a 64-bit machine: time, type, code, value.
fn press(device: &mut File) {
    for (kind, code, value) in [(1_u16, 0x130_u16, 1_i32), (0, 0, 0), (1, 0x130, 0), (0, 0, 0)] {
        let mut event = vec![0; 2 * size_of::<usize>()];
        event.extend(kind.to_ne_bytes());
        event.extend(code.to_ne_bytes());
        event.extend(value.to_ne_bytes());
        device.write_all(&event).unwrap();
    }
}

fn tremble(device: &mut File) {
    for value in [130_i32, 127, 129] {
        let mut event = vec![0; 2 * size_of::<usize>()];
        event.extend(3_u16.to_ne_bytes());
        event.extend(0_u16.to_ne_bytes());
        event.extend(value.to_ne_bytes());
        device.write_all(&event).unwrap();
    }
}

/// Both ends, so that neither waits for the other.
fn open(device: &Path) -> File {
    File::options().read(true).write(true).open(device).unwrap()
}

#[tokio::test]
async fn a_hand_on_a_gamepad_is_a_person_and_one_that_rests_is_not() {
    let devices = Devices::new();
    let mut pad = open(&devices.plug_in("event7", XBOX));
    let watch = watch(options(devices.surroundings()));
    until_says(&watch, "gamepads", "1 connected").await;
    for _ in 0..3 {
        press(&mut pad);
        until(&watch, active).await;
        until(&watch, idle).await;
    }
    tremble(&mut pad);
    press(&mut open(&devices.plug_in("event8", XBOX)));
    until_says(&watch, "gamepads", "2 connected").await;
}

#[tokio::test]
async fn gamepads_come_and_go_and_keyboards_are_never_opened() {
    let devices = Devices::new();
    let keyboard = devices.plug_in("event0", KEYBOARD);
    let watch = watch(options(devices.surroundings()));
    until_says(&watch, "gamepads", "none connected").await;

    let device = devices.plug_in("event7", XBOX);
    let mut pad = open(&device);
    until_says(&watch, "gamepads", "1 connected").await;
    press(&mut pad);
    until(&watch, active).await;
    until(&watch, idle).await;
    std::fs::remove_file(&device).unwrap();
    drop(pad);
    until_says(&watch, "gamepads", "none connected").await;

    // Nobody reads the keyboard: a writer that will not wait finds no reader.
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let refused = rustix::fs::open(&keyboard, flags, rustix::fs::Mode::empty());
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::NXIO);
}
