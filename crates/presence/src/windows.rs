//! Windows: the session's clock of input, which raw input wakes; locks and displays as the system tells of them; and, looked
//! at every five seconds because nobody tells of them, the window in front, the microphone, Steam and running programs.
//!
//! Raw input is registered only while nobody is here, and its data is never read: that a message came is all that is
//! wanted. There is no hook, nothing is injected, and no other process is opened with any right to its memory.

use std::time::{Duration, Instant};

use idlewatt_core::presence::{Activity, PresenceReading};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use self::ears::{Ears, Heard};
use crate::hotkey::{Bell, Hotkey};
use crate::running;
use crate::teller::Teller;
use crate::{Options, Program, Sight};

mod clock;
mod ears;
mod hotkey;
mod pads;
mod processes;
mod screen;
mod used;

/// While nobody is here the clock is looked at this often all the same: the system keeps raw input that is meant for a
/// program with more rights to itself.
const LOOKED: Duration = Duration::from_secs(2);

/// Two readings of the same input differ by a few ticks of the system's clock, 16 ms each.
const TICK: Duration = Duration::from_millis(100);

/// How often what nobody tells of is looked at. A program is started by hand, and that is heard at once.
const TURN: Duration = Duration::from_secs(5);

pub(crate) use processes::processes;

pub(crate) async fn input(options: Options, teller: Teller) {
    let quiet = options.quiet.max(Duration::from_millis(100));
    let Some(mut ears) = Ears::open() else {
        return blind(&teller, "Windows gives this program no window to hear input with").await;
    };
    if clock::is_service() {
        return blind(&teller, "services cannot see the input of the people at this machine").await;
    }
    let Some(first) = reading(quiet) else {
        return blind(&teller, "Windows does not say when this session last had input").await;
    };
    teller.source(Sight {
        reading: first,
        source: "this session's clock of input, woken by raw input".to_owned(),
        unseen: &["input of other people's sessions", "game controllers other than Xbox-like ones"],
        action: None,
    });
    let mut pads = pads::Pads::default();
    let mut connected = None;
    let mut before = first;
    loop {
        let Some(now) = reading(quiet) else {
            return blind(&teller, "Windows no longer says when this session had input").await;
        };
        let now = since_then(before, now);
        before = now;
        teller.reading(now);
        if let Some(touched) = pads.look(quiet) {
            teller.pads(touched);
        }
        if connected.replace(pads.connected()) != Some(pads.connected()) {
            let says = match pads.connected() {
                0 => "no Xbox-like one connected".to_owned(),
                n => format!("{n} connected"),
            };
            teller.says("gamepads", says, Activity::default());
        }
        if let PresenceReading::Active { since } = now {
            ears.hear_input(false);
            tokio::time::sleep_until((since + quiet).max(Instant::now() + TICK).into()).await;
            continue;
        }
        ears.hear_input(true);
        tokio::select! {
            heard = ears.heard() => if heard == Some(Heard::Input) {
                // The clock may be a moment behind the message.
                before = PresenceReading::Active { since: Instant::now() };
                teller.reading(before);
                ears.hear_input(false);
                tokio::time::sleep(quiet).await;
            },
            () = tokio::time::sleep(LOOKED) => {}
        }
    }
}

/// Input that came and went between two looks was input all the same.
fn since_then(before: PresenceReading, now: PresenceReading) -> PresenceReading {
    match (before, now) {
        (PresenceReading::Idle { last_input: known }, PresenceReading::Idle { last_input })
            if last_input > known + TICK =>
        {
            PresenceReading::Active { since: last_input }
        }
        (_, now) => now,
    }
}

pub(crate) async fn activity(_options: Options, listed: watch::Receiver<Vec<String>>, teller: Teller) {
    let mut ears = Ears::open();
    let mut session = Activity { locked: clock::is_locked(), ..Activity::default() };
    say_session(&teller, &session);
    let mut turn = interval(TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = next(&mut ears) => match heard {
                Some(Heard::Locked(locked)) => session.locked = Some(locked),
                Some(Heard::DisplaysOff(off)) => session.displays_off = Some(off),
                Some(Heard::Input | Heard::Key) => {}
                None => ears = None,
            },
            _ = turn.tick() => look(&listed, &teller).await,
        }
        say_session(&teller, &session);
    }
}

/// Rings when a key combination is pressed.
pub(crate) async fn hotkey(hotkey: Hotkey, _options: Options, bell: Bell) {
    hotkey::follow(hotkey, &bell).await;
}

pub(crate) fn programs(_options: &Options) -> Vec<Program> {
    running::programs()
}

async fn next(ears: &mut Option<Ears>) -> Option<Heard> {
    match ears {
        Some(ears) => ears.heard().await,
        None => std::future::pending().await,
    }
}

/// Looks at what nobody tells of. Each call is a few microseconds; only running programs, looked through while there is a
/// list, take longer.
async fn look(listed: &watch::Receiver<Vec<String>>, teller: &Teller) {
    let full_screen = screen::covering();
    let says = if full_screen.is_some() { "a program covers a screen" } else { "no program covers a screen" };
    teller.says("full screen", says, Activity { full_screen, ..Activity::default() });

    let call = used::microphone();
    let says = if call.is_some() { "in use" } else { "not in use" };
    teller.says("microphone", says, Activity { call, ..Activity::default() });

    match used::steam() {
        Some(games) => {
            let says = if games.is_empty() { "no game runs" } else { "a game runs" };
            teller.says("Steam", says, Activity { games, ..Activity::default() });
        }
        None => teller.unheard("Steam", "not installed"),
    }

    running::look(listed, teller).await;
}

fn say_session(teller: &Teller, session: &Activity) {
    let lock = match session.locked {
        Some(true) => "locked",
        Some(false) => "not locked",
        None => "nothing tells whether it is locked",
    };
    let displays = if session.displays_off == Some(true) { ", displays off" } else { "" };
    teller.says("session", format!("{lock}{displays}"), session.clone());
}

fn reading(quiet: Duration) -> Option<PresenceReading> {
    clock::since_input().map(|idle| crate::reading(idle, quiet))
}

async fn blind(teller: &Teller, why: &str) {
    teller.source(Sight {
        reading: PresenceReading::Blind,
        source: why.to_owned(),
        unseen: &["whether anybody is here"],
        action: Some("Run Idlewatt in the session that people sit at.".to_owned()),
    });
    std::future::pending().await
}
