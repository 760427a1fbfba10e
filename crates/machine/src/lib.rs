//! What state the machine itself is in: what feeds it, its lid, what its connection costs, its memory, its sleep and its
//! clocks. And the one thing asked of it: to stay awake.
//!
//! The system tells of changes wherever it can. What can only be read is read every ten seconds, and only while
//! [attended](Watch::attend). What follows from a state is the policy's, not this room's: it knows no settings and no
//! network. What no source tells of is `None`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use idlewatt_core::machine::MachineState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "windows")]
mod windows;

#[cfg(target_os = "linux")]
use linux as platform;
#[cfg(target_os = "macos")]
use macos as platform;
#[cfg(target_os = "windows")]
use windows as platform;

/// What can only be read is read this often while somebody depends on it.
const READ: Duration = Duration::from_secs(10);

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// D-Bus address of the system bus, where Linux's daemons are; without one they are not asked.
    pub system_bus: Option<String>,
    /// Where Linux tells of devices.
    pub sysfs: PathBuf,
    /// Where Linux tells of processes and of pressure.
    pub proc: PathBuf,
}

impl Options {
    /// As the environment of this process says.
    #[must_use]
    pub fn of_this_process() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let usual = || Some("unix:path=/run/dbus/system_bus_socket".to_owned());
        Self {
            system_bus: text("DBUS_SYSTEM_BUS_ADDRESS").or_else(usual),
            sysfs: PathBuf::from("/sys"),
            proc: PathBuf::from("/proc"),
        }
    }
}

/// One thing that is watched, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What: `power supply`.
    pub subject: &'static str,
    /// Who tells, and what it tells now: one sentence without its full stop. `None`: nobody does.
    pub reading: Option<String>,
    /// What is not seen of it.
    pub unseen: Option<&'static str>,
}

/// Whether the machine is being kept awake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeepAwake {
    /// It may sleep.
    #[default]
    Released,
    /// It does not sleep by itself.
    Held,
    /// It was asked to stay awake, and the system would not.
    Refused {
        /// What the system says.
        why: String,
    },
}

/// A running watch; dropping it ends it, and lets the machine sleep.
#[derive(Debug)]
pub struct Watch {
    states: watch::Receiver<MachineState>,
    sights: watch::Receiver<Vec<Sight>>,
    jumps: watch::Receiver<u64>,
    awake: watch::Receiver<KeepAwake>,
    wishes: watch::Sender<Wishes>,
    brake: Brake,
    task: JoinHandle<()>,
}

impl Watch {
    /// The state now, and every change of it.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<MachineState> {
        self.states.clone()
    }

    /// What is watched, by whom, and what it says now.
    #[must_use]
    pub fn sights(&self) -> Vec<Sight> {
        self.sights.borrow().clone()
    }

    /// How often the machine woke from sleep or its clock was set so far: told each time.
    #[must_use]
    pub fn jumps(&self) -> watch::Receiver<u64> {
        self.jumps.clone()
    }

    /// Whether the machine is being kept awake, and every change of it.
    #[must_use]
    pub fn awake(&self) -> watch::Receiver<KeepAwake> {
        self.awake.clone()
    }

    /// Whether anybody depends on the states: what can only be read is read while somebody does.
    pub fn attend(&self, on: bool) {
        self.wish(|wishes| &mut wishes.attend, on);
    }

    /// Keeps the machine from falling asleep by itself, or lets it.
    pub fn keep_awake(&self, on: bool) {
        self.wish(|wishes| &mut wishes.awake, on);
    }

    /// Lets the machine fall asleep, once it is [`going_to_sleep`](MachineState::going_to_sleep) and everything is
    /// handed back. Without it the system waits a few seconds (`InhibitDelayMaxSec` of logind, 5 s unless set), then
    /// sleeps anyway.
    pub fn let_sleep(&self) {
        if self.states.borrow().going_to_sleep {
            self.brake.release();
        }
    }

    fn wish(&self, which: impl Fn(&mut Wishes) -> &mut bool, on: bool) {
        self.wishes.send_if_modified(|wishes| std::mem::replace(which(wishes), on) != on);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches the machine. Until the sources have answered, a few milliseconds later, nothing is known. Must be called
/// within a tokio runtime.
#[must_use]
pub fn watch(options: Options) -> Watch {
    let (tell, states) = watch::channel(MachineState::default());
    let (show, sights) = watch::channel(Vec::new());
    let (jump, jumps) = watch::channel(0);
    let (hold, awake) = watch::channel(KeepAwake::default());
    let (wishes, wished) = watch::channel(Wishes::default());
    let brake = Brake::default();
    let teller = Teller { tell, show, jump, hold, wished, brake: brake.clone() };
    let task = tokio::spawn(platform::follow(options, teller));
    Watch { states, sights, jumps, awake, wishes, brake, task }
}

/// How long the machine has slept since it started; zero where the platform does not tell.
#[must_use]
pub fn slept() -> Duration {
    platform::slept()
}

/// What the owner of a watch wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wishes {
    attend: bool,
    awake: bool,
}

/// What hinders the system to sleep, for as long as it is held.
#[derive(Clone, Debug, Default)]
struct Brake(Arc<Mutex<Option<platform::Inhibitor>>>);

impl Brake {
    fn hold(&self, inhibitor: Option<platform::Inhibitor>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = inhibitor;
    }

    fn release(&self) {
        self.hold(None);
    }
}

/// Where the sources put what they see.
#[derive(Debug)]
struct Teller {
    tell: watch::Sender<MachineState>,
    show: watch::Sender<Vec<Sight>>,
    jump: watch::Sender<u64>,
    hold: watch::Sender<KeepAwake>,
    wished: watch::Receiver<Wishes>,
    #[cfg_attr(target_os = "macos", expect(dead_code, reason = "macOS waits for nobody"))]
    brake: Brake,
}

impl Teller {
    /// Something of the state is known anew.
    fn state(&self, change: impl FnOnce(&mut MachineState)) {
        self.tell.send_if_modified(|state| {
            let before = *state;
            change(state);
            let changed = *state != before;
            if changed {
                tracing::debug!(?state, "machine");
            }
            changed
        });
    }

    /// Who tells of this subject now, and what.
    fn sight(&self, sight: Sight) {
        self.show.send_modify(|sights| match sights.iter_mut().find(|it| it.subject == sight.subject) {
            Some(known) => *known = sight,
            None => sights.push(sight),
        });
    }

    /// The machine woke, or its clock was set.
    fn jumped(&self) {
        tracing::info!("the machine woke, or its clock was set");
        self.jump.send_modify(|jumps| *jumps += 1);
    }

    fn held(&self, now: KeepAwake) {
        self.hold.send_if_modified(|awake| {
            let changed = *awake != now;
            if changed {
                tracing::info!(awake = ?now, "keep awake");
                *awake = now;
            }
            changed
        });
    }
}

/// Waits until what can only be read is to be read again: in a while, and only while somebody depends on it; at once
/// when somebody begins to.
async fn until_due(teller: &Teller) {
    let mut wished = teller.wished.clone();
    let attended = wished.borrow().attend;
    if attended && tokio::time::timeout(READ, attention(&mut wished, false)).await.is_err() {
        return;
    }
    attention(&mut wished, true).await;
}

async fn attention(wished: &mut watch::Receiver<Wishes>, wanted: bool) {
    if wished.wait_for(|wishes| wishes.attend == wanted).await.is_err() {
        // The owner is gone, and this with it.
        std::future::pending::<()>().await;
    }
}

/// Keeps the machine awake for as long as that is wished, by a thing that does so while it lives.
#[cfg(not(target_os = "linux"))]
async fn stay_awake<T>(
    teller: &Teller,
    hold: impl Fn() -> Result<T, &'static str>,
) -> std::convert::Infallible {
    let mut wished = teller.wished.clone();
    let mut held = None;
    loop {
        match (wished.borrow_and_update().awake, &held) {
            (true, None) => match hold() {
                Ok(holds) => {
                    held = Some(holds);
                    teller.held(KeepAwake::Held);
                }
                Err(why) => teller.held(KeepAwake::Refused { why: why.to_owned() }),
            },
            (false, _) => {
                held = None;
                teller.held(KeepAwake::Released);
            }
            (true, Some(_)) => {}
        }
        if wished.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
