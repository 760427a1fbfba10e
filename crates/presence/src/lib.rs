//! Whether a person uses this machine, and for what that should stay undisturbed: input from one source, and beside it what
//! games, calls, full screens and sessions tell; one folder a platform.
//!
//! A source is told by the system wherever it can be, and tells on at once. What nobody tells is looked at: on Linux the
//! programs of the host's list, every five seconds; on Windows and macOS also clocks of input (2 s, 1 s), full screen and
//! what else their modules say. Between two changes what was told holds. What follows from it (how long to wait, what to
//! stop) is the policy's, not this room's: a source knows no settings and no network.
//!
//! No hooks, no injection, no reading of other programs' memory, and nothing that tells which keys were pressed: a game's
//! guard against cheats has nothing to find here.
//!
//! Beside it, one key combination of the host's choosing is heard ([`hotkey`]): it is found in the same sessions.
//!
//! A platform is one module with four functions: `input` and `activity`, which tell a [`Teller`] for as long as they are
//! polled, `hotkey`, which rings a bell likewise, and `programs`.

use std::time::{Duration, Instant};

use idlewatt_core::presence::{Activity, PresenceReading};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::teller::Teller;

pub mod hotkey;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(target_os = "windows", target_os = "macos"))]
mod running;
mod teller;
#[cfg(target_os = "windows")]
mod windows;

#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(target_os = "macos")]
use macos as platform;
#[cfg(target_os = "windows")]
use windows as platform;

#[cfg(target_os = "linux")]
pub use linux::Surroundings;

/// What to watch.
#[derive(Clone, Debug)]
pub struct Options {
    /// After this long without input a person counts as no longer active. It only bounds how often readings change
    /// while somebody types; the policy waits on from [`PresenceReading::Idle`]'s `last_input`. At least 100 ms.
    pub quiet: Duration,
    /// Where the session is found.
    #[cfg(target_os = "linux")]
    pub surroundings: Surroundings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(2),
            #[cfg(target_os = "linux")]
            surroundings: Surroundings::of_this_process(),
        }
    }
}

/// What is watched now, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The latest reading.
    pub reading: PresenceReading,
    /// The source in use, or why there is none: one sentence.
    pub source: String,
    /// What this source cannot see.
    pub unseen: &'static [&'static str],
    /// What the person can do to see more, where there is something.
    pub action: Option<String>,
}

/// One source of [`Activity`], for `doctor`. Its words name no game and no program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it tells of: `GameMode`, `microphone`.
    pub name: &'static str,
    /// Its latest reading, or why it tells nothing: one sentence.
    pub says: String,
    /// Whether it is being listened to.
    pub heard: bool,
}

/// A program that runs, to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// As [`Watch::look_for`] would name it.
    pub name: String,
    /// Whether it has a window or was started from a desktop's menu.
    pub likely: bool,
}

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    teller: Teller,
    listed: watch::Sender<Vec<String>>,
    tasks: [JoinHandle<()>; 2],
}

impl Watch {
    /// The reading now, and every change of it.
    #[must_use]
    pub fn readings(&self) -> watch::Receiver<PresenceReading> {
        self.teller.readings()
    }

    /// What goes on now beside input, and every change of it.
    #[must_use]
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.teller.activity()
    }

    /// Which source of input is watched now, and what it says.
    #[must_use]
    pub fn sight(&self) -> Sight {
        self.teller.sight()
    }

    /// The sources of [`Watch::activity`], by name.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        self.teller.sources()
    }

    /// Looks for these programs from now on: names (`blender`, `Cyberpunk2077.exe`) in any case, or whole paths. Whatever
    /// of them runs is [`Activity::listed`]. As long as there are any, running programs are looked through every 5 s: give none
    /// while it does not matter.
    pub fn look_for(&self, programs: &[String]) {
        self.listed.send_if_modified(|listed| {
            let differs = listed.as_slice() != programs;
            if differs {
                *listed = programs.to_vec();
            }
            differs
        });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Watches for a person. The first reading is [`PresenceReading::Blind`] until the source has answered, a few
/// milliseconds later: sharing never begins on a guess. Must be called within a tokio runtime.
#[must_use]
pub fn watch(options: Options) -> Watch {
    let teller = Teller::default();
    let (listed, wanted) = watch::channel(Vec::new());
    let tasks = [
        tokio::spawn(platform::input(options.clone(), teller.clone())),
        tokio::spawn(platform::activity(options, wanted, teller.clone())),
    ];
    Watch { teller, listed, tasks }
}

/// Programs of this account that run now, each name once, the likely ones first. Blocks for some milliseconds.
#[must_use]
pub fn programs(options: &Options) -> Vec<Program> {
    let mut found = platform::programs(options);
    found.sort_by(|a, b| {
        (!a.likely, a.name.to_lowercase(), &a.name).cmp(&(!b.likely, b.name.to_lowercase(), &b.name))
    });
    // The likely one of two namesakes comes first.
    let mut names = std::collections::BTreeSet::new();
    found.retain(|it| names.insert(it.name.clone()));
    found
}

/// What an idle time read now means.
fn reading(idle: Duration, quiet: Duration) -> PresenceReading {
    let last_input = before_now(idle);
    if idle < quiet {
        PresenceReading::Active { since: last_input }
    } else {
        PresenceReading::Idle { last_input }
    }
}

/// The moment `ago` before now; now itself on a machine younger than that.
fn before_now(ago: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(ago).unwrap_or(now)
}
