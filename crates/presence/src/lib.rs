//! Whether a person uses this machine: one source, one file a platform.
//!
//! A source is told of input by the system and tells on at once; nothing here polls. Between two changes a
//! [`PresenceReading`] holds. What follows from it (how long to wait, what to stop) is the policy's, not this room's:
//! a source knows no settings and no network.

use std::time::Duration;

use idlewatt_core::presence::PresenceReading;
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod platform;
#[cfg(target_os = "windows")]
#[path = "windows.rs"]
mod platform;

#[cfg(target_os = "linux")]
use linux as platform;

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

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    readings: watch::Receiver<PresenceReading>,
    sight: watch::Receiver<Sight>,
    task: JoinHandle<()>,
}

impl Watch {
    /// The reading now, and every change of it.
    #[must_use]
    pub fn readings(&self) -> watch::Receiver<PresenceReading> {
        self.readings.clone()
    }

    /// What is watched now, and how.
    #[must_use]
    pub fn sight(&self) -> Sight {
        self.sight.borrow().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches for a person. The first reading is [`PresenceReading::Blind`] until the source has answered, a few
/// milliseconds later: sharing never begins on a guess. Must be called within a tokio runtime.
#[must_use]
pub fn watch(options: Options) -> Watch {
    let (told, sight) = watch::channel(Sight {
        reading: PresenceReading::Blind,
        source: "looking for a source".to_owned(),
        unseen: &[],
        action: None,
    });
    let (tell, readings) = watch::channel(PresenceReading::Blind);
    let task = tokio::spawn(platform::follow(options, Teller { tell, told }));
    Watch { readings, sight, task }
}

/// Where a source puts what it sees.
#[derive(Debug)]
struct Teller {
    tell: watch::Sender<PresenceReading>,
    told: watch::Sender<Sight>,
}

impl Teller {
    /// A new reading of the same source.
    fn reading(&self, reading: PresenceReading) {
        self.told.send_modify(|sight| sight.reading = reading);
        self.tell.send_if_modified(|last| {
            let changed = *last != reading;
            *last = reading;
            changed
        });
        tracing::debug!(?reading, "presence");
    }

    /// Another source, with its first reading.
    fn source(&self, sight: Sight) {
        tracing::info!(source = %sight.source, reading = ?sight.reading, "presence source");
        let reading = sight.reading;
        self.told.send_replace(sight);
        self.reading(reading);
    }
}
