//! A real Windows, or Wine: what is asked is answered, and the machine is kept awake for as long as wanted.
#![cfg(windows)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use idlewatt_machine::{KeepAwake, Options, slept, watch};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn windows_is_asked_and_answers() {
    let watch = watch(Options::of_this_process());
    watch.attend(true);
    let mut states = watch.states();
    timeout(SOON, states.wait_for(|it| it.memory_short.is_some())).await.unwrap().unwrap();
    for sight in watch.sights() {
        println!("{}: {:?}", sight.subject, sight.reading);
    }
    let mut subjects: Vec<&str> = watch.sights().iter().map(|it| it.subject).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["connection", "lid", "memory", "power supply", "sleep"]);
    assert_eq!(states.borrow().memory_short, Some(false));
    println!("slept {:?}", slept());
}

#[tokio::test]
async fn it_stays_awake_for_as_long_as_wanted() {
    let watch = watch(Options::of_this_process());
    let mut awake = watch.awake();
    watch.keep_awake(true);
    let held = timeout(SOON, awake.wait_for(|it| *it != KeepAwake::Released)).await.unwrap().unwrap().clone();
    assert_eq!(held, KeepAwake::Held);
    watch.keep_awake(false);
    timeout(SOON, awake.wait_for(|it| *it == KeepAwake::Released)).await.unwrap().unwrap();
}
