//! The share policy: may this node share now, and if not, why, since when and until when?
//!
//! A pure state machine. All reasons that hold are listed. A pause never waits; a resume after a person, heat or the
//! host's own use waits out the host's hysteresis; one that the host commands or a window brings does not. Who reaches which network, and the giving
//! back of the GPU when a decision turns, are the engine's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use idlewatt_protocol::{Milliwatts, PauseCode, UnixMillis};
use jiff::Timestamp;

use crate::governor::{Limit, Refusal, Unenforceable};
use crate::presence::PresenceReading;
use crate::windows::ShareWindows;
use crate::{Now, Wakeup};

/// A card that was too hot may share again this many °C below its limit.
pub const THERMAL_HYSTERESIS_C: i32 = 5;

/// Civil time may jump, and timers stand still while a machine sleeps: what waits for a wall clock looks again at
/// least this often.
const WALL_RECHECK: Duration = Duration::from_secs(60);

/// What the host set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `share.idle_after`: time without input before sharing; zero does not wait for idleness at all.
    pub idle_after: Duration,
    /// `share.resume_hysteresis`
    pub resume_hysteresis: Duration,
    /// `share.windows`
    pub windows: ShareWindows,
    /// `share.while_active`: share although a person is here.
    pub while_active: bool,
    /// `thermal.limit`, °C.
    pub thermal_limit_c: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle_after: Duration::from_secs(10 * 60),
            resume_hysteresis: Duration::from_secs(2 * 60),
            windows: ShareWindows::ALWAYS,
            while_active: false,
            thermal_limit_c: 78,
        }
    }
}

/// A pause that the host commanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPause {
    /// When it ends by itself; `None`: when the host resumes.
    pub until: Option<Timestamp>,
}

/// What is known now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Whether a person is here.
    pub presence: PresenceReading,
    /// The host's own pause.
    pub pause: Option<HostPause>,
    /// The hottest card, °C; `None` where no card tells.
    pub hottest_c: Option<i32>,
    /// Why the governor can let nothing that is shared start, where that does not pass within seconds.
    pub power: Option<PowerStop>,
    /// Whether the host's own requests use a model server right now.
    pub own_use: bool,
    /// Services that the host shares.
    pub shared: usize,
    /// Of these, probed and answering.
    pub ready: usize,
    /// Networks joined.
    pub joined: usize,
    /// Of these, connected.
    pub connected: usize,
    /// The disk refuses to keep what is served.
    pub cannot_keep: bool,
    /// The engine is stopping.
    pub stopping: bool,
}

/// Whether the node takes requests. Giving the GPU back right now is the engine's own, passing state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It does.
    Sharing,
    /// It does not, for at least one reason.
    Paused,
    /// It would, and reaches no network.
    Offline,
}

/// Why a node does not share, with the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// A graphical session without a source that tells of input.
    CannotSeeInput,
    /// Not in these hours.
    OutsideWindow,
    /// Heat, another limit of power, or the host's own use ended a moment ago.
    Settling,
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
    pub const fn code(self) -> PauseCode {
        match self {
            Self::PausedByHost => PauseCode::PausedByHost,
            Self::PersonHere { .. } => PauseCode::PersonHere,
            Self::CannotSeeInput => PauseCode::CannotSeeInput,
            Self::OutsideWindow => PauseCode::OutsideWindow,
            Self::Settling => PauseCode::Settling,
            Self::TooHot { .. } => PauseCode::TooHot,
            Self::Power(stop) => stop.code(),
            Self::OwnUse => PauseCode::OwnUse,
            Self::NothingToShare { .. } => PauseCode::NothingToShare,
            Self::NoNetwork => PauseCode::NoNetwork,
            Self::CannotKeep => PauseCode::CannotKeep,
            Self::Stopping => PauseCode::Stopping,
        }
    }
}

/// One reason not to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Which, with its facts.
    pub cause: Cause,
    /// Since when it holds.
    pub since: UnixMillis,
    /// When it ends, where known.
    pub until: Option<UnixMillis>,
}

impl Reason {
    /// Which.
    #[must_use]
    pub const fn code(&self) -> PauseCode {
        self.cause.code()
    }
}

/// The policy's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether to share.
    pub state: State,
    /// Since when.
    pub since: UnixMillis,
    /// Every reason not to, the first to end first; empty when sharing or offline.
    pub reasons: Vec<Reason>,
    /// When to ask again even if nothing happens.
    pub wake: Option<Wakeup>,
}

impl Decision {
    /// The reason that a network hears of and a screen leads with: the one that holds longest back.
    #[must_use]
    pub fn leading(&self) -> Option<&Reason> {
        self.reasons.last()
    }

    /// When sharing resumes by itself; `None` where that is not known.
    #[must_use]
    pub fn until(&self) -> Option<UnixMillis> {
        self.reasons.iter().map(|reason| reason.until).collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// What the policy remembers between two questions.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    since: BTreeMap<PauseCode, UnixMillis>,
    state: Option<(State, UnixMillis)>,
    hot: bool,
    /// When heat or the host's own use were last seen.
    unsettled: Option<Instant>,
}

impl Policy {
    /// Decides. To be asked on every change of an input or a setting, and at [`Decision::wake`].
    pub fn decide(&mut self, settings: &Settings, inputs: &Inputs, now: &Now) -> Decision {
        let mut reasons = Reasons { now, found: Vec::new(), wake: None };
        commands(inputs, &mut reasons);
        person(settings, inputs, &mut reasons);
        self.machine(settings, inputs, &mut reasons);
        hours(settings, &mut reasons);
        if inputs.ready == 0 {
            reasons.hold(Cause::NothingToShare { unreachable: inputs.shared > 0 });
        }
        if inputs.joined == 0 {
            reasons.hold(Cause::NoNetwork);
        }
        if inputs.cannot_keep {
            reasons.hold(Cause::CannotKeep);
        }
        let Reasons { found, wake, .. } = reasons;

        let state = match (found.is_empty(), inputs.connected) {
            (false, _) => State::Paused,
            (true, 0) => State::Offline,
            (true, _) => State::Sharing,
        };
        let since = match self.state {
            Some((before, since)) if before == state => since,
            _ => now.unix(),
        };
        self.state = Some((state, since));
        Decision { state, since, reasons: self.dated(found, now), wake }
    }

    fn machine(&mut self, settings: &Settings, inputs: &Inputs, reasons: &mut Reasons<'_>) {
        let limit = settings.thermal_limit_c;
        let threshold = if self.hot { limit - THERMAL_HYSTERESIS_C + 1 } else { limit };
        self.hot = inputs.hottest_c.is_some_and(|reading| reading >= threshold);
        if let Some(reading_c) = inputs.hottest_c.filter(|_| self.hot) {
            reasons.hold(Cause::TooHot { reading_c, limit_c: limit });
        }
        // The limit above has said it already.
        let power = inputs.power.filter(|stop| !(self.hot && stop.code() == PauseCode::TooHot));
        if let Some(stop) = power {
            match stop.until() {
                Some(until) => reasons.hold_until_wall(Cause::Power(stop), until, "a power limit passes"),
                None => reasons.hold(Cause::Power(stop)),
            }
        }
        if inputs.own_use {
            reasons.hold(Cause::OwnUse);
        }
        if self.hot || inputs.own_use || power.is_some() {
            self.unsettled = Some(reasons.now.monotonic);
        } else if let Some(until) = self.unsettled.map(|last| last + settings.resume_hysteresis)
            && until > reasons.now.monotonic
        {
            reasons.hold_until(Cause::Settling, until, "the resume hysteresis ends");
        }
    }

    /// Gives each reason the moment since which it holds, and sorts: the first to end first.
    fn dated(&mut self, found: Vec<Found>, now: &Now) -> Vec<Reason> {
        let unix = now.unix();
        self.since.retain(|code, _| found.iter().any(|found| found.cause.code() == *code));
        let mut reasons: Vec<Reason> = found
            .into_iter()
            .map(|Found { cause, until }| Reason {
                cause,
                since: *self.since.entry(cause.code()).or_insert(unix),
                until: until.map(|until| UnixMillis(until.as_millisecond())),
            })
            .collect();
        reasons.sort_by_key(|reason| (reason.until.is_none(), reason.until, reason.code()));
        reasons
    }
}

fn commands(inputs: &Inputs, reasons: &mut Reasons<'_>) {
    if inputs.stopping {
        reasons.hold(Cause::Stopping);
    }
    match inputs.pause {
        Some(HostPause { until: None }) => reasons.hold(Cause::PausedByHost),
        Some(HostPause { until: Some(until) }) if until > reasons.now.wall => {
            reasons.hold_until_wall(Cause::PausedByHost, until, "the host's pause ends");
        }
        _ => {}
    }
}

/// The hysteresis of a person runs from the last input, beside the idle time: the longer of the two holds.
fn person(settings: &Settings, inputs: &Inputs, reasons: &mut Reasons<'_>) {
    if settings.while_active || settings.idle_after.is_zero() {
        return;
    }
    let resumes_after = settings.idle_after.max(settings.resume_hysteresis);
    match inputs.presence {
        PresenceReading::Headless => {}
        PresenceReading::Blind => reasons.hold(Cause::CannotSeeInput),
        PresenceReading::Active { .. } => reasons.hold(Cause::PersonHere { active: true, resumes_after }),
        PresenceReading::Idle { last_input } => {
            let until = last_input + resumes_after;
            if until > reasons.now.monotonic {
                let cause = Cause::PersonHere { active: false, resumes_after };
                reasons.hold_until(cause, until, "the idle time is reached");
            }
        }
    }
}

fn hours(settings: &Settings, reasons: &mut Reasons<'_>) {
    let change = settings.windows.next_change(reasons.now);
    match (settings.windows.is_open(reasons.now), change) {
        (true, Some(end)) => reasons.wake_at_wall(end, "a share window ends"),
        (false, Some(start)) => {
            reasons.hold_until_wall(Cause::OutsideWindow, start, "a share window begins");
        }
        (true, None) => {}
        (false, None) => reasons.hold(Cause::OutsideWindow),
    }
}

struct Found {
    cause: Cause,
    until: Option<Timestamp>,
}

/// What was found so far, and the next moment at which it may change by itself.
struct Reasons<'a> {
    now: &'a Now,
    found: Vec<Found>,
    wake: Option<Wakeup>,
}

impl Reasons<'_> {
    fn hold(&mut self, cause: Cause) {
        self.found.push(Found { cause, until: None });
    }

    fn hold_until(&mut self, cause: Cause, until: Instant, why: &'static str) {
        self.found.push(Found { cause, until: Some(self.now.wall_at(until)) });
        self.wake(until, why);
    }

    fn hold_until_wall(&mut self, cause: Cause, until: Timestamp, why: &'static str) {
        self.found.push(Found { cause, until: Some(until) });
        self.wake_at_wall(until, why);
    }

    fn wake_at_wall(&mut self, at: Timestamp, why: &'static str) {
        self.wake(self.now.instant_of(at).min(self.now.monotonic + WALL_RECHECK), why);
    }

    fn wake(&mut self, at: Instant, why: &'static str) {
        if self.wake.is_none_or(|wake| at < wake.at) {
            self.wake = Some(Wakeup { at, why });
        }
    }
}
