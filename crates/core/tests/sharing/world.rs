//! What happens to a machine in a week.

use std::time::Duration;

use idlewatt_core::Now;
use idlewatt_core::device::{ForeignLoad, Temperature};
use idlewatt_core::machine::Supply;
use idlewatt_core::now::Deadline;
use idlewatt_core::policy::{HostPause, Inputs};
use idlewatt_core::presence::{App, PresenceReading};

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// Somebody touches the machine.
    Input,
    /// Nobody does any more.
    Quiet,
    /// The session ends.
    NobodyLoggedIn,
    /// The source of input is lost.
    Blind,
    Locked(bool),
    DisplaysOff(bool),
    Game(bool),
    FullScreen(bool),
    Call(bool),
    /// A program of the list: the one that pauses, the one that lowers the cap.
    Listed(bool, bool),
    RemoteLogins(u32),
    /// Other programs: load in percent, memory in bytes.
    Foreign(u8, u64),
    Supply(Option<u8>),
    Lid(bool),
    Metered(bool),
    MemoryShort(bool),
    Sleep(bool),
    Heat(i32),
    OwnUse(bool),
    Pause(Option<u64>),
    Resume,
    ShareNow(u64),
}

impl Event {
    pub(crate) fn happen(self, inputs: &mut Inputs, now: &Now) {
        let deadline = |seconds| Deadline::at(now.later(Duration::from_secs(seconds)).wall, now);
        let activity = &mut inputs.activity;
        match self {
            Self::Input => inputs.presence = PresenceReading::Active { since: now.monotonic },
            Self::Quiet => inputs.presence = PresenceReading::Idle { last_input: now.monotonic },
            Self::NobodyLoggedIn => inputs.presence = PresenceReading::Headless,
            Self::Blind => inputs.presence = PresenceReading::Blind,
            Self::Locked(on) => activity.locked = Some(on),
            Self::DisplaysOff(off) => activity.displays_off = Some(off),
            Self::Game(on) => activity.games = on.then(|| app("a game")).into_iter().collect(),
            Self::FullScreen(on) => activity.full_screen = on.then(|| app("a film")),
            Self::Call(on) => activity.call = on.then(|| app("a call")),
            Self::Listed(pauses, lowers) => {
                activity.listed = [(pauses, "blender"), (lowers, "obs")]
                    .into_iter()
                    .filter(|(on, _)| *on)
                    .map(|(_, name)| app(name))
                    .collect();
            }
            Self::RemoteLogins(people) => activity.remote_logins = people,
            Self::Foreign(percent, bytes) => {
                let load =
                    ForeignLoad { card: "GPU-0".into(), utilisation: Some(percent), vram: Some(bytes) };
                inputs.foreign = vec![load];
            }
            Self::Supply(None) => inputs.machine.supply = Some(Supply::Mains),
            Self::Supply(percent) => inputs.machine.supply = Some(Supply::Battery { percent }),
            Self::Lid(closed) => inputs.machine.lid_closed = Some(closed),
            Self::Metered(on) => inputs.machine.metered = Some(on),
            Self::MemoryShort(on) => inputs.machine.memory_short = Some(on),
            Self::Sleep(on) => inputs.machine.going_to_sleep = on,
            Self::Heat(reading) => inputs.temperatures = vec![celsius(reading)],
            Self::OwnUse(on) => inputs.own_use = on,
            Self::Pause(seconds) => {
                inputs.pause = Some(HostPause { until: seconds.map(deadline) });
                inputs.share_now_until = None;
            }
            Self::Resume => (inputs.pause, inputs.share_now_until) = (None, None),
            Self::ShareNow(seconds) => {
                (inputs.pause, inputs.share_now_until) = (None, Some(deadline(seconds)));
            }
        }
    }
}

fn celsius(celsius: i32) -> Temperature {
    Temperature { card: "GPU-0".into(), celsius }
}

/// A machine that shares unless something speaks against it.
pub(crate) fn ready() -> Inputs {
    Inputs {
        presence: PresenceReading::Headless,
        temperatures: vec![celsius(50)],
        shared: 1,
        ready: 1,
        joined: 1,
        connected: 1,
        ..Inputs::default()
    }
}

fn app(name: &str) -> App {
    App { name: name.to_owned() }
}
