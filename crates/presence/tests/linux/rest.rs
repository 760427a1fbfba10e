//! What a watch costs while nothing happens.

use std::time::Duration;

use idlewatt_presence::{Surroundings, watch};

use crate::microphone::Sound;
use crate::rig::{Bus, Xvfb, idle, options, until, until_says};

/// How often the threads of this process have gone to sleep so far: each time something had woken them.
fn wakings() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let status = threads.map(|it| std::fs::read_to_string(it.path().join("status")).unwrap_or_default());
    let wakings = |status: String| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    };
    status.map(wakings).sum()
}

/// All sources at once, each with a server behind it that is there and quiet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_wakes_a_watch_while_nothing_happens() {
    let (display, bus, runtime) = (Xvfb::start(None), Bus::start(), tempfile::tempdir().unwrap());
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".steam/steam/logs")).unwrap();
    let surroundings = Surroundings {
        session_bus: Some(bus.address.clone()),
        system_bus: Some(bus.address.clone()),
        home: Some(home.path().to_owned()),
        runtime: Some(runtime.path().to_owned()),
        ..display.surroundings()
    };
    let _sound = Sound::pulseaudio(runtime);
    let watch = watch(options(surroundings));
    until_says(&watch, "microphone", "no program listens").await;
    until_says(&watch, "GameMode", "not running").await;
    until_says(&watch, "Steam", "no game").await;
    until(&watch, idle).await;
    // What was begun ends: threads that asked a question wait 10 s for the next one.
    tokio::time::sleep(Duration::from_secs(12)).await;

    let before = wakings();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let woken = wakings() - before;
    // The end of this test's own wait is one, and the timer's thread another. A timer of a second would be five more.
    let most = if std::env::var_os("IDLEWATT_STRICT").is_some() { 5 } else { 9 };
    assert!(woken <= most, "woken {woken} times in 5 s");
}
