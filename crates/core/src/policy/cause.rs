//! Every reason not to share, with its facts: how urgent it is, what it takes from the GPU, and what the host may put
//! aside.

use std::time::Duration;

use idlewatt_protocol::{Milliwatts, PauseCode};
use jiff::Timestamp;

use crate::governor::{Limit, Refusal, Unenforceable};
use crate::presence::App;
use crate::tariff::Money;

/// Why a node does not share, with the facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The host said so.
    PausedByHost,
    /// A person is here.
    PersonHere {
        /// Whether there is input now; otherwise it ended, but not long enough ago.
        active: bool,
        /// Time without input until sharing resumes.
        resumes_after: Duration,
    },
    /// People are logged in over the network, and the host counts them as being here.
    RemoteLogin {
        /// How many.
        people: u32,
    },
    /// A graphical session without a source that tells of input.
    CannotSeeInput,
    /// A game runs.
    Game {
        /// The first of them.
        app: App,
    },
    /// A program covers a whole screen.
    FullScreen {
        /// Which.
        app: App,
    },
    /// A program of the host's list runs.
    ListedApp {
        /// The first of them, as the list names it.
        app: App,
    },
    /// The microphone is in use.
    InCall {
        /// By which program.
        app: App,
    },
    /// Other programs use a card.
    GpuInUse {
        /// The card's id.
        card: String,
        /// How much of it.
        by: Foreign,
    },
    /// Programs wait for memory.
    MemoryShort,
    /// Not in these hours.
    OutsideWindow,
    /// Something that made the host pause ended a moment ago.
    Settling,
    /// The machine runs on battery.
    OnBattery {
        /// How full it is, where it tells, %.
        percent: Option<u8>,
        /// From where on the host shares on battery, %; `None` never.
        from: Option<u8>,
    },
    /// The lid is closed.
    LidClosed,
    /// The connection is paid by volume.
    Metered,
    /// Energy costs more than the host allows for sharing.
    Price {
        /// A kilowatt-hour now.
        price: Money,
        /// The most that the host pays.
        limit: Money,
    },
    /// The machine goes to sleep.
    Asleep,
    /// A card is too hot.
    TooHot {
        /// The hottest, °C.
        reading_c: i32,
        /// The host's limit, °C.
        limit_c: i32,
    },
    /// The governor can let nothing start.
    Power(PowerStop),
    /// The host uses a model server.
    OwnUse,
    /// Nothing to offer.
    NothingToShare {
        /// Whether the host shares a service, and it does not answer.
        unreachable: bool,
    },
    /// No network is joined.
    NoNetwork,
    /// The disk refuses to keep what is served.
    CannotKeep,
    /// The engine is stopping.
    Stopping,
}

/// How much of a card other programs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Its busy time.
    Load {
        /// Now, %.
        percent: u8,
        /// What counts as idle, %.
        limit: u8,
    },
    /// Its memory.
    Memory {
        /// Now, bytes.
        bytes: u64,
        /// What counts as idle, bytes.
        limit: u64,
    },
    /// Nothing any more, and not for long enough.
    Gone {
        /// For how long they must not have.
        resumes_after: Duration,
    },
}

/// How soon shared requests that run must end when a reason begins to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// They may be finished within `yield.drain`.
    Drain,
    /// Now: somebody waits for the machine.
    Now,
}

/// When the memory of a card is given back under a reason, soonest first. Only what shared work loaded ever is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freeing {
    /// With the requests.
    AtOnce,
    /// Once the reason has held for `yield.free_after`.
    AfterActivity,
    /// Once nothing was asked for `standby.after`.
    AfterStandby,
    /// The host uses it.
    Never,
}

/// What of the governor's refusals pauses sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerStop {
    /// A limit leaves nothing, and passes by itself.
    Limit(Limit),
    /// The host's own load leaves nothing.
    HostLoad {
        /// What the card draws without shared work.
        draws: Milliwatts,
        /// What it may draw.
        cap: Milliwatts,
    },
    /// Nothing that is shared fits under the cap as it is set.
    Unenforceable(Unenforceable),
    /// The cards that everything shared computes on are not to share.
    Off,
}

impl PowerStop {
    /// `None` for what passes within seconds.
    #[must_use]
    pub const fn of(refusal: Refusal) -> Option<Self> {
        match refusal {
            Refusal::Used => None,
            Refusal::Limited(limit) => Some(Self::Limit(limit)),
            Refusal::HostLoad { draws, cap } => Some(Self::HostLoad { draws, cap }),
            Refusal::CapUnenforceable(why) => Some(Self::Unenforceable(why)),
            Refusal::Off => Some(Self::Off),
        }
    }

    /// The code that screens and `status --json` show.
    #[must_use]
    pub const fn code(self) -> PauseCode {
        match self {
            Self::Limit(Limit::DailyEnergy { .. }) => PauseCode::DailyEnergy,
            Self::Limit(Limit::Temperature { .. } | Limit::HotSpot { .. }) => PauseCode::TooHot,
            Self::Limit(Limit::Fan { .. }) => PauseCode::TooLoud,
            Self::Limit(Limit::UserCap | Limit::MachineCap { .. } | Limit::Card) | Self::HostLoad { .. } => {
                PauseCode::HostLoad
            }
            Self::Unenforceable(_) => PauseCode::CapUnenforceable,
            Self::Off => PauseCode::NothingToShare,
        }
    }

    /// When it ends, where that is known.
    #[must_use]
    pub const fn until(self) -> Option<Timestamp> {
        match self {
            Self::Limit(Limit::DailyEnergy { until, .. }) => Some(until),
            Self::Limit(Limit::Fan { until, .. }) => until,
            _ => None,
        }
    }
}

impl Cause {
    /// The code that screens and `status --json` show.
    #[must_use]
    pub const fn code(&self) -> PauseCode {
        match self {
            Self::PausedByHost => PauseCode::PausedByHost,
            Self::PersonHere { .. } | Self::RemoteLogin { .. } => PauseCode::PersonHere,
            Self::CannotSeeInput => PauseCode::CannotSeeInput,
            Self::Game { .. } => PauseCode::Game,
            Self::FullScreen { .. } => PauseCode::FullScreen,
            Self::ListedApp { .. } => PauseCode::ListedApp,
            Self::InCall { .. } => PauseCode::InCall,
            Self::GpuInUse { .. } => PauseCode::GpuInUse,
            Self::MemoryShort => PauseCode::MemoryShort,
            Self::OutsideWindow => PauseCode::OutsideWindow,
            Self::Settling => PauseCode::Settling,
            Self::OnBattery { .. } => PauseCode::OnBattery,
            Self::LidClosed => PauseCode::LidClosed,
            Self::Metered => PauseCode::Metered,
            Self::Price { .. } => PauseCode::Price,
            Self::Asleep => PauseCode::Asleep,
            Self::TooHot { .. } => PauseCode::TooHot,
            Self::Power(stop) => stop.code(),
            Self::OwnUse => PauseCode::OwnUse,
            Self::NothingToShare { .. } => PauseCode::NothingToShare,
            Self::NoNetwork => PauseCode::NoNetwork,
            Self::CannotKeep => PauseCode::CannotKeep,
            Self::Stopping => PauseCode::Stopping,
        }
    }

    /// How soon shared requests must end. What the host set as a rule lets them finish; whoever uses the machine, and a
    /// machine that is about to be gone, waits for nobody.
    #[must_use]
    pub const fn urgency(&self) -> Urgency {
        match self {
            Self::OutsideWindow
            | Self::Settling
            | Self::OnBattery { .. }
            | Self::Metered
            | Self::Price { .. }
            | Self::TooHot { .. }
            | Self::Power(PowerStop::Limit(_)) => Urgency::Drain,
            Self::PausedByHost
            | Self::PersonHere { .. }
            | Self::RemoteLogin { .. }
            | Self::CannotSeeInput
            | Self::Game { .. }
            | Self::FullScreen { .. }
            | Self::ListedApp { .. }
            | Self::InCall { .. }
            | Self::GpuInUse { .. }
            | Self::MemoryShort
            | Self::LidClosed
            | Self::Asleep
            | Self::Power(PowerStop::HostLoad { .. } | PowerStop::Unenforceable(_) | PowerStop::Off)
            | Self::OwnUse
            | Self::NothingToShare { .. }
            | Self::NoNetwork
            | Self::CannotKeep
            | Self::Stopping => Urgency::Now,
        }
    }

    /// When it gives the card's memory back. A person who only moves the mouse does not cost a model its place.
    #[must_use]
    pub const fn frees(&self) -> Freeing {
        match self {
            Self::PausedByHost
            | Self::Game { .. }
            | Self::FullScreen { .. }
            | Self::ListedApp { .. }
            | Self::GpuInUse { .. }
            | Self::MemoryShort
            // A card that holds a model does not power down, and a machine that sleeps has to save what it holds.
            | Self::OnBattery { .. }
            | Self::LidClosed
            | Self::Asleep
            | Self::Power(PowerStop::Off)
            | Self::Stopping => Freeing::AtOnce,
            Self::PersonHere { .. }
            | Self::RemoteLogin { .. }
            | Self::InCall { .. }
            | Self::Power(PowerStop::HostLoad { .. }) => Freeing::AfterActivity,
            Self::CannotSeeInput
            | Self::OutsideWindow
            | Self::Settling
            | Self::Metered
            | Self::Price { .. }
            | Self::TooHot { .. }
            | Self::Power(PowerStop::Limit(_) | PowerStop::Unenforceable(_))
            | Self::NothingToShare { .. }
            | Self::NoNetwork
            | Self::CannotKeep => Freeing::AfterStandby,
            Self::OwnUse => Freeing::Never,
        }
    }

    /// Whether it is only over once it has been over for the hysteresis: what comes and goes as it likes. What the host
    /// commands, an hour or a price brings and ends, and what is missing, ends when it ends. A person whose idle time has
    /// passed has been waited for; one whose session ends before that has not.
    #[must_use]
    pub const fn settles(&self) -> bool {
        !matches!(
            self,
            Self::PausedByHost
                | Self::OutsideWindow
                | Self::Settling
                | Self::Price { .. }
                | Self::NothingToShare { .. }
                | Self::NoNetwork
                | Self::CannotKeep
                | Self::Power(PowerStop::Off)
                | Self::Stopping
        )
    }

    /// Whether it keeps only other people's requests away: the hours, and that somebody may sit here. The host's own
    /// devices pass it, and `share now` puts it aside.
    #[must_use]
    pub const fn gives_way(&self) -> bool {
        matches!(
            self,
            Self::PersonHere { .. } | Self::RemoteLogin { .. } | Self::CannotSeeInput | Self::OutsideWindow
        )
    }
}
