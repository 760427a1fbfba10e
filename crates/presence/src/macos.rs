//! macOS: the two clocks of input, of which the younger counts; the lock, the displays, the window in front, and running
//! programs, looked at every five seconds. Type-checked only: never run.
//!
//! `HIDIdleTime` misses input through Screen Sharing, and the event source's clock misses a session that was switched
//! away from: the smaller of both is true. Being told of input wants the right to watch all of it (Input Monitoring),
//! which a program that lends a GPU must not ask for; so both clocks are looked at once a second while nobody is here.

use std::time::{Duration, Instant};

use idlewatt_core::presence::{Activity, PresenceReading};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::hotkey::{Bell, Hotkey};
use crate::running;
use crate::teller::Teller;
use crate::{Options, Program, Sight};

mod clock;
mod hotkey;
mod processes;
mod screen;

/// While nobody is here.
const LOOKED: Duration = Duration::from_secs(1);

/// How often what nobody tells of is looked at. A program is started by hand, and that is seen within a second.
const TURN: Duration = Duration::from_secs(5);

pub(crate) use processes::processes;

pub(crate) async fn input(options: Options, teller: Teller) {
    let quiet = options.quiet.max(Duration::from_millis(100));
    let now = || crate::reading(clock::since_input(), quiet);
    teller.source(Sight {
        reading: now(),
        source: "the younger of the clocks of input devices and of this session's events".to_owned(),
        unseen: &["game controllers", "input of other people's sessions"],
        action: None,
    });
    loop {
        let reading = now();
        teller.reading(reading);
        let pause = match reading {
            PresenceReading::Active { since } => (since + quiet).saturating_duration_since(Instant::now()),
            _ => LOOKED,
        };
        tokio::time::sleep(pause.max(Duration::from_millis(100))).await;
    }
}

pub(crate) async fn activity(_options: Options, listed: watch::Receiver<Vec<String>>, teller: Teller) {
    let mut turn = interval(TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for source in ["microphone", "gamepads", "Steam"] {
        teller.unheard(source, "not looked at on macOS");
    }
    loop {
        turn.tick().await;
        let session = Activity {
            locked: screen::is_locked(),
            displays_off: Some(screen::displays_are_off()),
            ..Activity::default()
        };
        let says = if session.locked == Some(true) { "locked" } else { "not locked" };
        teller.says("session", says, session);
        let full_screen = screen::covering();
        let says =
            if full_screen.is_some() { "a program covers a screen" } else { "no program covers a screen" };
        teller.says("full screen", says, Activity { full_screen, ..Activity::default() });
        running::look(&listed, &teller).await;
    }
}

/// Rings when a key combination is pressed.
pub(crate) async fn hotkey(hotkey: Hotkey, _options: Options, bell: Bell) {
    hotkey::follow(hotkey, &bell).await;
}

pub(crate) fn programs(_options: &Options) -> Vec<Program> {
    running::programs()
}
