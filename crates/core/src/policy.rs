//! The share policy: may this node share now, and if not, why, since when and until when?
//!
//! A pure state machine. All reasons that hold are listed. A pause never waits; a resume after a person, a program of
//! theirs, heat, the battery or the host's own use waits out the host's hysteresis; one that the host commands, a window
//! or a price brings does not. Who reaches which network, and the giving back of the GPU when a decision turns, are the
//! engine's; how urgent that is, each [`Cause`] says.

mod cause;
mod outlook;
mod rules;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use idlewatt_protocol::{PauseCode, UnixMillis};
use jiff::Timestamp;

pub use cause::{Cause, Foreign, Freeing, PowerStop, Urgency};
pub use outlook::Stretch;
pub use settings::{AppRule, AppRules, AppRulesError, Battery, Settings, WhileItRuns};

use crate::device::{ForeignLoad, Temperature};
use crate::machine::MachineState;
use crate::now::Deadline;
use crate::presence::{Activity, PresenceReading};
use crate::{Now, Wakeup};
use rules::{Found, Reasons};

/// A card that was too hot may share again this many °C below its limit.
pub const THERMAL_HYSTERESIS_C: i32 = 5;

/// A battery that was too empty must be this much fuller, %, before it is shared on again.
pub const BATTERY_HYSTERESIS: u8 = 5;

/// A pause that the host commanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPause {
    /// When it ends by itself; `None`: when the host resumes.
    pub until: Option<Deadline>,
}

/// What is known now. The default knows nothing: a machine that cannot see whether somebody is here, and offers nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Whether a person is here.
    pub presence: PresenceReading,
    /// What else a person wants undisturbed.
    pub activity: Activity,
    /// What the machine runs on and under.
    pub machine: MachineState,
    /// What other programs use of the cards that share.
    pub foreign: Vec<ForeignLoad>,
    /// The host's own pause.
    pub pause: Option<HostPause>,
    /// The host said to share now, until then: reasons that [give way](Cause::gives_way) are put aside.
    pub share_now_until: Option<Deadline>,
    /// The cards that share, as far as they tell how hot they are.
    pub temperatures: Vec<Temperature>,
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

impl Default for Inputs {
    fn default() -> Self {
        Self {
            presence: PresenceReading::Blind,
            activity: Activity::default(),
            machine: MachineState::default(),
            foreign: Vec::new(),
            pause: None,
            share_now_until: None,
            temperatures: Vec::new(),
            power: None,
            own_use: false,
            shared: 0,
            ready: 0,
            joined: 0,
            connected: 0,
            cannot_keep: false,
            stopping: false,
        }
    }
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

/// One reason not to share.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Why what is answered is answered under the lower cap (`share.active_cap`); `None` where it is not.
    pub lowered: Option<Cause>,
    /// Until when the host's "share now" holds.
    pub share_now_until: Option<UnixMillis>,
    /// When this may change by itself, if the clocks run evenly.
    pub changes_at: Option<Timestamp>,
    /// When sharing goes on by itself, if nothing but time changes; `None` where that is not known.
    resumes_at: Option<UnixMillis>,
    /// When to ask again even if nothing happens.
    pub wake: Option<Wakeup>,
    own_devices: bool,
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
        self.resumes_at
    }

    /// Whether a request is taken; `own` is one of the host's own devices. Those pass what only keeps others away, where
    /// the host lets them.
    #[must_use]
    pub fn admits(&self, own: bool) -> bool {
        self.reasons.iter().all(|reason| own && self.own_devices && reason.cause.gives_way())
    }

    /// How soon shared requests must end; `None` where they need not.
    #[must_use]
    pub fn urgency(&self) -> Option<Urgency> {
        self.reasons.iter().map(|reason| reason.cause.urgency()).max()
    }

    /// When a card's memory is given back; `None` where sharing goes on. What the host uses is not taken away, whatever
    /// else holds.
    #[must_use]
    pub fn frees(&self) -> Option<Freeing> {
        if self.reasons.iter().any(|reason| reason.cause.frees() == Freeing::Never) {
            return Some(Freeing::Never);
        }
        self.reasons.iter().map(|reason| reason.cause.frees()).min()
    }
}

/// What the policy remembers between two questions.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    since: BTreeMap<PauseCode, UnixMillis>,
    state: Option<(State, UnixMillis)>,
    /// Cards that were too hot, and have not cooled far enough.
    hot: BTreeSet<String>,
    empty: bool,
    /// Since when the screen is locked or every display off, where that counts.
    left: Option<Instant>,
    /// The card that other programs used last, and when they last did.
    used: Option<(String, Instant)>,
    unsettled: Option<Unsettled>,
    share_now: Option<Deadline>,
}

/// Something whose end is waited for with hysteresis.
#[derive(Clone, Copy, Debug)]
struct Unsettled {
    /// When it last held.
    seen: Instant,
    /// When it ends, where that is known: nothing is to be waited for after that.
    ends: Option<Timestamp>,
}

impl Policy {
    /// Decides. To be asked on every change of an input or a setting, and at [`Decision::wake`].
    pub fn decide(&mut self, settings: &Settings, inputs: &Inputs, now: &Now) -> Decision {
        let mut decision = self.decide_now(settings, inputs, now);
        decision.resumes_at = outlook::resumes_at(self, &decision, settings, inputs, now);
        decision
    }

    fn decide_now(&mut self, settings: &Settings, inputs: &Inputs, now: &Now) -> Decision {
        let mut reasons = Reasons::new(now);
        reasons.commands(inputs);
        let heat = self.heat(settings, inputs);
        reasons.heat(heat, inputs);
        self.empty = rules::battery_too_empty(settings.battery, inputs.machine.supply, self.empty);
        reasons.machine(settings, inputs, self.empty);
        reasons.programs(settings, inputs);
        self.used = reasons.other_programs(settings, inputs, self.used.take());
        let left = settings.locked_is_away && inputs.activity.says_away();
        self.left = left.then(|| self.left.unwrap_or(now.monotonic));
        let person = reasons.person(settings, inputs, self.left);
        reasons.hours(settings);
        reasons.price(settings);
        reasons.lacks(inputs);
        let share_now = reasons.share_now(inputs);
        self.settle(settings, inputs, &mut reasons);
        let lowered = person
            .filter(|_| settings.while_active || share_now.is_some())
            .or_else(|| rules::listed(settings, inputs, WhileItRuns::LowerCap));
        let Reasons { found, wake, changes_at, .. } = reasons;

        let state = match (found.is_empty(), inputs.connected) {
            (false, _) => State::Paused,
            (true, 0) => State::Offline,
            (true, _) => State::Sharing,
        };
        let since = match self.state {
            // A clock that was set back must not make it begin later than now.
            Some((before, since)) if before == state => since.min(now.unix()),
            _ => now.unix(),
        };
        self.state = Some((state, since));
        Decision {
            state,
            since,
            reasons: self.dated(found, now),
            lowered,
            share_now_until: share_now.map(|it| UnixMillis(it.as_millisecond())),
            changes_at,
            resumes_at: None,
            wake,
            own_devices: settings.own_devices,
        }
    }

    /// The card that is furthest past its limit, with that, while one is too hot.
    fn heat(&mut self, settings: &Settings, inputs: &Inputs) -> Option<(i32, i32)> {
        let hot = inputs.temperatures.iter().filter_map(|it| {
            let limit = settings.thermal.of(&it.card);
            let slack = if self.hot.contains(&it.card) { THERMAL_HYSTERESIS_C - 1 } else { 0 };
            (it.celsius >= limit - slack).then_some((it, limit))
        });
        let hot: Vec<(&Temperature, i32)> = hot.collect();
        self.hot = hot.iter().map(|(it, _)| it.card.clone()).collect();
        let furthest = hot.into_iter().max_by_key(|(it, limit)| it.celsius - limit)?;
        Some((furthest.0.celsius, furthest.1))
    }

    /// Some reasons are only over once they have been over for the hysteresis.
    fn settle(&mut self, settings: &Settings, inputs: &Inputs, reasons: &mut Reasons<'_>) {
        if inputs.share_now_until.is_some() && self.share_now != inputs.share_now_until {
            // The host said so just now. What comes after that settles as ever.
            self.unsettled = None;
        }
        self.share_now = inputs.share_now_until;

        let now = reasons.now;
        let mut unsettling = reasons.found.iter().filter(|found| found.cause.settles()).peekable();
        if unsettling.peek().is_some() {
            let ends = unsettling.map(|found| found.until).collect::<Option<Vec<_>>>();
            self.unsettled =
                Some(Unsettled { seen: now.monotonic, ends: ends.and_then(|ends| ends.into_iter().max()) });
            return;
        }
        self.unsettled = self.unsettled.filter(|it| {
            let over = it.ends.is_some_and(|ends| ends <= now.wall);
            !over && it.seen + settings.resume_hysteresis > now.monotonic
        });
        if let Some(Unsettled { seen, .. }) = self.unsettled {
            reasons.settle_until(seen + settings.resume_hysteresis);
        }
    }

    /// Gives each reason the moment since which it holds, and sorts: the first to end first.
    fn dated(&mut self, found: Vec<Found>, now: &Now) -> Vec<Reason> {
        let unix = now.unix();
        self.since.retain(|code, _| found.iter().any(|found| found.cause.code() == *code));
        let mut reasons: Vec<Reason> = found
            .into_iter()
            .map(|Found { cause, until }| {
                let since = self.since.entry(cause.code()).or_insert(unix);
                *since = (*since).min(unix);
                Reason { since: *since, until: until.map(|until| UnixMillis(until.as_millisecond())), cause }
            })
            .collect();
        reasons.sort_by_key(|reason| (reason.until.is_none(), reason.until, reason.code()));
        reasons
    }
}
