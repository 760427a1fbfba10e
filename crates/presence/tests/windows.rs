//! A real session of Windows, or of Wine: input that a program sends is a person's for all that anybody can tell.
#![cfg(windows)]
#![expect(unsafe_code, reason = "sending input has a C interface")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::mem::size_of;
use std::time::{Duration, Instant};

use idlewatt_core::presence::PresenceReading;
use idlewatt_presence::{Options, Watch, watch};
use tokio::time::timeout;
use windows::Win32::UI::Input::KeyboardAndMouse::{
    INPUT, INPUT_0, INPUT_MOUSE, MOUSEEVENTF_MOVE, MOUSEINPUT, SendInput,
};

/// Wine takes its time to start a desktop.
const SOON: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_secs(1);

async fn until(watch: &Watch, wanted: impl Fn(PresenceReading) -> bool) -> PresenceReading {
    let mut readings = watch.readings();
    *timeout(SOON, readings.wait_for(|it| wanted(*it))).await.unwrap().unwrap()
}

fn move_the_mouse() {
    let movement = MOUSEINPUT { dx: 7, dy: 3, dwFlags: MOUSEEVENTF_MOVE, ..MOUSEINPUT::default() };
    let input = INPUT { r#type: INPUT_MOUSE, Anonymous: INPUT_0 { mi: movement } };
    // SAFETY: the input lives through the call and its size is told.
    let sent = unsafe { SendInput(&[input], i32::try_from(size_of::<INPUT>()).unwrap()) };
    assert_eq!(sent, 1);
}

#[tokio::test]
async fn input_is_seen_and_its_end_too() {
    let watch = watch(Options { quiet: QUIET });
    until(&watch, |it| matches!(it, PresenceReading::Idle { .. })).await;
    println!("{:?}", watch.sight());
    for _ in 0..3 {
        // Long enough to be listening again.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        move_the_mouse();
        let PresenceReading::Active { since } =
            until(&watch, |it| matches!(it, PresenceReading::Active { .. })).await
        else {
            unreachable!()
        };
        println!("seen after {:?}", began.elapsed());
        assert!(since.elapsed() < Duration::from_secs(3));
        let PresenceReading::Idle { last_input } =
            until(&watch, |it| matches!(it, PresenceReading::Idle { .. })).await
        else {
            unreachable!()
        };
        assert!(last_input + Duration::from_millis(50) >= began && last_input.elapsed() >= QUIET);
    }
}

#[tokio::test]
async fn what_goes_on_beside_input_is_looked_at_and_said() {
    let watch = watch(Options { quiet: QUIET });
    let own = std::env::current_exe().unwrap();
    let own = own.file_name().unwrap().to_str().unwrap().to_owned();
    watch.look_for(&[own.to_uppercase(), "nobody.exe".to_owned()]);
    let mut activity = watch.activity();
    let seen = timeout(SOON, activity.wait_for(|it| !it.listed.is_empty())).await.unwrap().unwrap().clone();
    assert_eq!(seen.listed.len(), 1);
    assert!(seen.listed[0].name.eq_ignore_ascii_case(&own));
    for source in watch.sources() {
        println!("{}: {}", source.name, source.says);
    }
    assert_eq!(seen.full_screen, None, "a desktop is no program");
    let names: Vec<&str> = watch.sources().iter().map(|it| it.name).collect();
    assert_eq!(names, ["Steam", "full screen", "listed programs", "microphone", "session"]);
    let running = idlewatt_presence::programs(&Options { quiet: QUIET });
    assert!(running.iter().any(|it| own.starts_with(&it.name)));
}
