//! Why a node does not share now. One set of reasons for the tray, the window, `idlewatt status` and the log.
//!
//! The codes stay on the host's machine. A hub learns only the [`Class`]: which game a person plays is nobody's
//! business.

use serde::{Deserialize, Serialize};

/// One reason to be paused. The facts that go with it (since when, which app) are the policy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum PauseCode {
    /// The host paused sharing, until told or until a time.
    PausedByHost,
    /// A person is at this machine, or was until a moment ago.
    PersonHere,
    /// A game runs.
    Game,
    /// A program covers a whole screen.
    FullScreen,
    /// A program of the host's list runs.
    ListedApp,
    /// The microphone is in use.
    InCall,
    /// Another program computes on the card, or holds its memory.
    GpuInUse,
    /// Programs wait for memory.
    MemoryShort,
    /// A graphical session is there but no source tells of input.
    CannotSeeInput,
    /// Outside every share window.
    OutsideWindow,
    /// Waiting out the hysteresis after another reason ended.
    Settling,
    /// The machine runs on battery.
    OnBattery,
    /// The lid is closed.
    LidClosed,
    /// The connection is paid by volume.
    Metered,
    /// Energy costs more than the host allows for sharing.
    Price,
    /// The machine goes to sleep.
    Asleep,
    /// A GPU is at its temperature limit.
    TooHot,
    /// A fan is at its limit in quiet hours.
    TooLoud,
    /// The day's energy is used.
    DailyEnergy,
    /// The host's own work leaves too little of the power cap.
    HostLoad,
    /// Nothing that is shared fits under the power cap.
    CapUnenforceable,
    /// The host's own requests use the model server.
    OwnUse,
    /// No service is shared, or none is ready.
    NothingToShare,
    /// No network is joined.
    NoNetwork,
    /// The disk keeps nothing of what is served.
    CannotKeep,
    /// The engine is stopping.
    Stopping,
}

impl PauseCode {
    /// What a hub may learn of this reason.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::PausedByHost
            | Self::PersonHere
            | Self::Game
            | Self::FullScreen
            | Self::ListedApp
            | Self::InCall
            | Self::GpuInUse
            | Self::MemoryShort
            | Self::CannotSeeInput
            | Self::Settling
            | Self::HostLoad
            | Self::OwnUse => Class::Busy,
            Self::OutsideWindow => Class::Schedule,
            Self::OnBattery
            | Self::LidClosed
            | Self::Metered
            | Self::Price
            | Self::TooHot
            | Self::TooLoud
            | Self::DailyEnergy
            | Self::CapUnenforceable => Class::Limit,
            Self::CannotKeep => Class::Error,
            Self::NothingToShare | Self::NoNetwork | Self::Asleep | Self::Stopping => Class::Offline,
        }
    }
}

/// What a network learns of why a node takes no work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The host needs the machine.
    Busy,
    /// Outside the host's hours.
    Schedule,
    /// A limit of the host's holds.
    Limit,
    /// Nothing is offered now.
    Offline,
    /// Something failed.
    Error,
}
