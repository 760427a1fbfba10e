//! Giving the GPU back, in two stages. *Stop*: shared requests end, the weights stay. *Free*: the model is unloaded, and it
//! is seen that its memory is really free ([`unloading`]).
//!
//! A pure state machine over the reasons that hold. An immediate reason cuts running requests at once; a soft one lets them
//! end until a deadline, and a harder one that comes meanwhile cuts them. Which reason is of which kind is
//! [`Claim`]'s; what a server is asked for, and on whose authority, is the engine's.

pub mod story;
pub mod unloading;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use idlewatt_protocol::PauseCode;

use crate::Wakeup;
use crate::policy::{Cause, Freeing, Urgency};

/// What the host set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `yield.drain`: a soft reason lets running requests end for this long; zero cuts them.
    pub drain: Duration,
    /// `yield.free_after`: the memory is freed once somebody was active for this long; zero frees it at the first input,
    /// `None` never does.
    pub free_after: Option<Duration>,
    /// `standby.after`: a model that nobody asked for this long is unloaded; `None` keeps it.
    pub standby: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(30),
            free_after: Some(Duration::from_secs(30)),
            standby: Some(Duration::from_secs(10 * 60)),
        }
    }
}

/// One reason to give the GPU back, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub code: PauseCode,
    /// How soon requests end.
    pub urgency: Urgency,
    /// When the memory goes.
    pub frees: Freeing,
    /// Whether it goes on now; a person who is here may be still.
    pub active: bool,
}

impl Claim {
    /// What a reason claims.
    #[must_use]
    pub const fn of(cause: &Cause) -> Self {
        let active = !matches!(cause, Cause::PersonHere { active: false, .. });
        Self { code: cause.code(), urgency: cause.urgency(), frees: cause.frees(), active }
    }
}

/// Shared requests that are connected to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Those that the reasons keep away: requests of the host's own devices may pass what keeps others away.
    pub unwanted: u32,
    /// All of them.
    pub all: u32,
}

/// What is to be done now, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sharing stopped; what runs may end until this moment.
    Drain {
        /// The deadline.
        until: Instant,
    },
    /// Close the connection of every unwanted request to its server.
    Cut,
    /// No unwanted request is connected any more: this yield's first stage is over.
    Stopped(Stopped),
    /// Free the memory that shared work loaded.
    Free {
        /// The reason that wants it.
        cause: PauseCode,
        /// When that reason was seen.
        seen: Instant,
    },
}

/// The first stage of a yield, once it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The most urgent reason.
    pub cause: PauseCode,
    /// When it was seen.
    pub seen: Instant,
    /// When requests were let end, where they were.
    pub drained: Option<Instant>,
    /// When running requests were cut, where any still ran.
    pub cut: Option<Instant>,
    /// Shared requests that were cut.
    pub requests: u32,
    /// When the last connection was closed.
    pub closed: Instant,
}

/// What the machine may do with memory for shared work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// A model may be loaded.
    #[default]
    MayLoad,
    /// Nobody asked for long: what was loaded is unloaded, and loaded again by whoever asks.
    Rests,
    /// What is loaded may stay, nothing may be added.
    MayStay,
    /// It was asked back: nothing of shared work stays loaded.
    Free,
}

/// The yield under way, if any.
#[derive(Clone, Debug, Default)]
pub struct Yielding {
    stage: Stage,
    /// Since when each reason holds.
    since: BTreeMap<PauseCode, Instant>,
    activity: Option<Activity>,
    /// The memory was asked back for what holds now.
    freed: bool,
    /// The host wants everything back, whatever else holds.
    demanded: Option<Instant>,
    /// It was given back although the host's own use went on, which goes on still.
    by_hand: bool,
    wake: Option<Wakeup>,
}

/// A node begins without sharing.
#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    Serving,
    Draining {
        cause: PauseCode,
        seen: Instant,
        until: Instant,
    },
    Cutting {
        cause: PauseCode,
        seen: Instant,
        drained: Option<Instant>,
        cut: Instant,
        requests: u32,
    },
    #[default]
    Stopped,
}

/// A stretch of input without a gap of [`Settings::free_after`].
#[derive(Clone, Copy, Debug)]
struct Activity {
    begun: Instant,
    last: Instant,
    goes_on: bool,
}

impl Yielding {
    /// Says what is to be done. To be asked on every change of the reasons or of `running`, and at [`wake`](Self::wake).
    pub fn step(
        &mut self,
        settings: &Settings,
        claims: &[Claim],
        running: Running,
        now: Instant,
    ) -> Vec<Effect> {
        self.wake = None;
        self.since.retain(|code, _| claims.iter().any(|it| it.code == *code));
        for claim in claims {
            self.since.entry(claim.code).or_insert(now);
        }
        let mut effects = Vec::new();
        self.stop(settings, claims, running.unwanted, now, &mut effects);
        self.free(settings, claims, running.all, now, &mut effects);
        effects
    }

    /// The host wants everything back now, the memory too, whatever it is used for. Holds for the next [`step`](Self::step)
    /// that has a reason.
    pub fn demand(&mut self, now: Instant) {
        self.demanded = Some(now);
    }

    /// When to be asked again even if nothing happens.
    #[must_use]
    pub fn wake(&self) -> Option<Wakeup> {
        self.wake
    }

    /// Until when requests may still end by themselves, while they may.
    #[must_use]
    pub fn drains_until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Draining { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Whether shared requests are still being ended.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. } | Stage::Cutting { .. })
    }

    /// What may be done with memory for shared work; `may_load`: whether nothing but a loaded model is missing.
    #[must_use]
    pub fn memory(&self, may_load: bool) -> Memory {
        match (may_load, self.freed || self.by_hand) {
            (_, true) => Memory::Free,
            (true, false) => Memory::MayLoad,
            (false, false) => Memory::MayStay,
        }
    }

    fn stop(
        &mut self,
        settings: &Settings,
        claims: &[Claim],
        running: u32,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let urgent = claims.iter().max_by_key(|it| it.urgency);
        let at_once = urgent.filter(|it| it.urgency == Urgency::Now);
        // A reason that comes later may want what those before let go on.
        let new = claims.iter().any(|it| self.since.get(&it.code) == Some(&now));
        if new && running > 0 && matches!(self.stage, Stage::Cutting { .. }) {
            effects.push(Effect::Cut);
        }
        let begins = match self.stage {
            Stage::Serving => true,
            Stage::Stopped => new && running > 0,
            Stage::Draining { .. } | Stage::Cutting { .. } => false,
        };
        if let Some(claim) = urgent.filter(|_| begins) {
            let until = now + settings.drain;
            self.stage = match at_once {
                None if running > 0 && until > now => {
                    effects.push(Effect::Drain { until });
                    Stage::Draining { cause: claim.code, seen: now, until }
                }
                _ => {
                    effects.push(Effect::Cut);
                    let (cause, drained) = (claim.code, None);
                    Stage::Cutting { cause, seen: now, drained, cut: now, requests: running }
                }
            };
        }
        if let Stage::Draining { cause, seen, until } = self.stage {
            let drained = Some(seen);
            if claims.is_empty() {
                // What still ran was never touched: nothing was given back.
                self.stage = Stage::Serving;
            } else if let Some(claim) = at_once {
                effects.push(Effect::Cut);
                self.stage =
                    Stage::Cutting { cause: claim.code, seen: now, drained, cut: now, requests: running };
            } else if running == 0 || now >= until {
                if running > 0 {
                    effects.push(Effect::Cut);
                }
                self.stage = Stage::Cutting { cause, seen, drained, cut: now, requests: running };
            } else {
                self.wake_at(until, "the drain ends");
            }
        }
        if let Stage::Cutting { cause, seen, drained, cut, requests } = self.stage
            // Requests let in anew are none of this yield's.
            && (running == 0 || claims.is_empty())
        {
            let cut = (requests > 0).then_some(cut);
            effects.push(Effect::Stopped(Stopped { cause, seen, drained, cut, requests, closed: now }));
            self.stage = Stage::Stopped;
        }
        if matches!(self.stage, Stage::Stopped) && claims.is_empty() {
            self.stage = Stage::Serving;
        }
    }

    fn free(
        &mut self,
        settings: &Settings,
        claims: &[Claim],
        running: u32,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let after_activity = claims.iter().filter(|it| it.frees == Freeing::AfterActivity);
        let active = after_activity.map(|it| it.active).reduce(|one, other| one || other);
        self.note_activity(settings, active, now);
        // Whatever else holds: what the host uses is not taken away.
        let used = claims.iter().any(|it| it.frees == Freeing::Never);
        self.by_hand &= used;
        let Some(claim) = claims.iter().min_by_key(|it| it.frees) else {
            self.freed = false;
            return;
        };
        let demanded = self.demanded.filter(|_| running == 0);
        let due = demanded.is_some()
            || match (claim.frees, settings.free_after, self.activity) {
                _ if used => false,
                (Freeing::AtOnce, ..) => true,
                (Freeing::AfterActivity, Some(after), Some(activity)) => {
                    let until = activity.begun + after;
                    if activity.goes_on && until > now {
                        self.wake_at(until, "somebody has been active for long enough to free the memory");
                    }
                    activity.last >= until
                }
                _ => false,
            };
        if !due {
            self.freed = false;
        } else if running == 0 && (!self.freed || demanded.is_some()) {
            self.freed = true;
            self.by_hand = used && demanded.is_some();
            self.demanded = None;
            let by_hand = demanded.map(|seen| (PauseCode::PausedByHost, seen));
            let since = self.since.get(&claim.code).copied().unwrap_or(now);
            let (cause, seen) = by_hand.unwrap_or((claim.code, since));
            effects.push(Effect::Free { cause, seen });
        }
    }

    /// `active`: whether somebody is active now; `None` where no reason is of this kind.
    fn note_activity(&mut self, settings: &Settings, active: Option<bool>, now: Instant) {
        let (Some(active), Some(after)) = (active, settings.free_after) else {
            self.activity = None;
            return;
        };
        // Between two questions it went on as it was last seen.
        let before = self.activity.map(|it| if it.goes_on { Activity { last: now, ..it } } else { it });
        let before = before.filter(|it| now < it.last + after.max(GAP));
        self.activity = match (before, active) {
            (Some(activity), true) => Some(Activity { last: now, goes_on: true, ..activity }),
            (Some(activity), false) => Some(Activity { goes_on: false, ..activity }),
            (None, true) => Some(Activity { begun: now, last: now, goes_on: true }),
            (None, false) => None,
        };
    }

    fn wake_at(&mut self, at: Instant, why: &'static str) {
        if self.wake.is_none_or(|wake| at < wake.at) {
            self.wake = Some(Wakeup { at, why });
        }
    }
}

/// Input that pauses for less than this is one stretch of activity however soon the memory is to be freed.
const GAP: Duration = Duration::from_secs(10);
