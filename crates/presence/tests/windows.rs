//! A real session of Windows, or of Wine: input that a program sends is a person's for all that anybody can tell.
#![cfg(windows)]
#![expect(unsafe_code, reason = "sending input has a C interface")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::mem::size_of;
use std::time::{Duration, Instant};

use idlewatt_core::presence::PresenceReading;
use idlewatt_presence::hotkey::{Listening, Standing, listen};
use idlewatt_presence::{Options, Watch, watch};
use tokio::time::timeout;
use windows::Win32::UI::Input::KeyboardAndMouse::{
    INPUT, INPUT_0, INPUT_KEYBOARD, INPUT_MOUSE, KEYBD_EVENT_FLAGS, KEYBDINPUT, KEYEVENTF_KEYUP,
    MOUSEEVENTF_MOVE, MOUSEINPUT, SendInput, VIRTUAL_KEY, VK_CONTROL, VK_F9, VK_F10, VK_MENU,
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
    send(INPUT { r#type: INPUT_MOUSE, Anonymous: INPUT_0 { mi: movement } });
}

fn send(input: INPUT) {
    // SAFETY: the input lives through the call and its size is told.
    let sent = unsafe { SendInput(&[input], i32::try_from(size_of::<INPUT>()).unwrap()) };
    assert_eq!(sent, 1);
}

/// Presses these keys together and lets them go.
fn press(keys: &[VIRTUAL_KEY]) {
    let send = |key: &VIRTUAL_KEY, flags: KEYBD_EVENT_FLAGS| {
        let stroke = KEYBDINPUT { wVk: *key, dwFlags: flags, ..KEYBDINPUT::default() };
        send(INPUT { r#type: INPUT_KEYBOARD, Anonymous: INPUT_0 { ki: stroke } });
    };
    keys.iter().for_each(|key| send(key, KEYBD_EVENT_FLAGS(0)));
    keys.iter().rev().for_each(|key| send(key, KEYEVENTF_KEYUP));
}

async fn stands(listening: &Listening, wanted: impl Fn(&Standing) -> bool) -> Standing {
    let mut standing = listening.standing();
    timeout(SOON, standing.wait_for(|it| wanted(it))).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn one_key_rings_and_only_for_whoever_had_it_first() {
    let listen = || listen("Ctrl+Alt+F9".parse().unwrap(), Options { quiet: QUIET });
    let first = listen();
    stands(&first, |it| it.heard).await;
    let second = listen();
    let refused = stands(&second, |it| it.action.is_some()).await;
    println!("{}", refused.says);
    assert!(!refused.heard && refused.says.contains("has Ctrl+Alt+F9"), "{refused:?}");
    for _ in 0..3 {
        press(&[VK_CONTROL, VK_MENU, VK_F9]);
        timeout(SOON, first.pressed()).await.unwrap();
    }
    press(&[VK_CONTROL, VK_MENU, VK_F10]);
    press(&[VK_CONTROL, VK_F9]);
    assert!(timeout(Duration::from_millis(500), first.pressed()).await.is_err(), "these are other keys");
    drop((first, second));
    // The window is closed by its own thread.
    timeout(SOON, async {
        loop {
            let third = listen();
            if stands(&third, |it| it.heard || it.action.is_some()).await.heard {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn input_is_seen_and_its_end_too() {
    let key = listen("Ctrl+Alt+F8".parse().unwrap(), Options { quiet: QUIET });
    stands(&key, |it| it.heard).await;
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
    assert_eq!(names, ["Steam", "full screen", "gamepads", "listed programs", "microphone", "session"]);
    let running = idlewatt_presence::programs(&Options { quiet: QUIET });
    assert!(running.iter().any(|it| own.starts_with(&it.name)));
}
