//! Each rule: what must hold for a reason, and when that may change by itself.

use std::time::{Duration, Instant};

use idlewatt_protocol::PauseCode;
use jiff::{SignedDuration, Timestamp};

use super::{
    BATTERY_HYSTERESIS, Battery, Cause, Foreign, HostPause, Inputs, PowerStop, Settings, WhileItRuns,
};
use crate::device::ForeignLoad;
use crate::machine::Supply;
use crate::presence::PresenceReading;
use crate::tariff::Prices;
use crate::windows::Hours;
use crate::{Now, Wakeup};

/// Civil time may jump, and timers stand still while a machine sleeps: what waits for a wall clock looks again at
/// least this often.
const WALL_RECHECK: Duration = Duration::from_secs(60);

/// A price that does not fall within a week does not fall.
const PRICE_HORIZON: SignedDuration = SignedDuration::from_hours(8 * 24);

/// A reason that holds.
pub(super) struct Found {
    pub(super) cause: Cause,
    pub(super) until: Option<Timestamp>,
}

/// What was found so far, and the next moment at which it may change by itself.
pub(super) struct Reasons<'a> {
    pub(super) now: &'a Now,
    pub(super) found: Vec<Found>,
    pub(super) wake: Option<Wakeup>,
    pub(super) changes_at: Option<Timestamp>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(now: &'a Now) -> Self {
        Self { now, found: Vec::new(), wake: None, changes_at: None }
    }

    pub(super) fn commands(&mut self, inputs: &Inputs) {
        if inputs.stopping {
            self.hold(Cause::Stopping);
        }
        match inputs.pause {
            Some(HostPause { until: None }) => self.hold(Cause::PausedByHost),
            Some(HostPause { until: Some(until) }) if !until.is_past(self.now) => {
                self.hold_until_wall(Cause::PausedByHost, until.wall(self.now), "the host's pause ends");
            }
            _ => {}
        }
    }

    /// Puts aside what gives way to "share now"; gives until when that holds.
    pub(super) fn share_now(&mut self, inputs: &Inputs) -> Option<Timestamp> {
        let until = inputs.share_now_until.filter(|until| !until.is_past(self.now))?.wall(self.now);
        self.found.retain(|found| !found.cause.gives_way());
        self.wake_at_wall(until, "share now ends");
        Some(until)
    }

    /// Gives the person, whether or not that is a reason. The hysteresis of a person runs from the last input, beside the
    /// idle time: the longer of the two holds.
    pub(super) fn person(
        &mut self,
        settings: &Settings,
        inputs: &Inputs,
        left: Option<Instant>,
    ) -> Option<Cause> {
        let people = inputs.activity.remote_logins;
        if people > 0 && !settings.remote_logins {
            self.hold(Cause::RemoteLogin { people });
        }
        if settings.idle_after.is_zero() {
            return None;
        }
        let resumes_after = settings.idle_after.max(settings.resume_hysteresis);
        let (cause, until) = match inputs.presence {
            PresenceReading::Headless => return None,
            PresenceReading::Blind => (Cause::CannotSeeInput, None),
            PresenceReading::Active { .. } => (Cause::PersonHere { active: true, resumes_after }, None),
            PresenceReading::Idle { last_input } => {
                let after_leaving = left.map(|left| left.max(last_input) + settings.resume_hysteresis);
                let until =
                    (last_input + resumes_after).min(after_leaving.unwrap_or(last_input + resumes_after));
                if until <= self.now.monotonic {
                    return None;
                }
                (Cause::PersonHere { active: false, resumes_after }, Some(until))
            }
        };
        match (settings.while_active, until) {
            (false, Some(until)) => self.hold_until(cause.clone(), until, "the idle time is reached"),
            (false, None) => self.hold(cause.clone()),
            (true, Some(until)) => self.wake(until, "the idle time is reached"),
            (true, None) => {}
        }
        Some(cause)
    }

    pub(super) fn hours(&mut self, settings: &Settings) {
        let hours = Hours { windows: &settings.windows, exceptions: &settings.exceptions };
        match (hours.is_open(self.now), hours.next_change(self.now)) {
            (true, Some(end)) => self.wake_at_wall(end, "a share window ends"),
            (false, Some(start)) => {
                self.hold_until_wall(Cause::OutsideWindow, start, "a share window begins");
            }
            (true, None) => {}
            (false, None) => self.hold(Cause::OutsideWindow),
        }
    }

    pub(super) fn price(&mut self, settings: &Settings) {
        let Some((limit, tariff)) = settings.max_price.zip(settings.tariff.as_ref()) else { return };
        let rate_at = |at| tariff.rate(at, &self.now.zone);
        let Some(rate) = rate_at(self.now.wall) else { return };
        if rate.price.micros <= limit.micros {
            self.wake_at_wall(rate.until, "the price of energy changes");
            return;
        }
        let horizon = self.now.wall.saturating_add(PRICE_HORIZON).unwrap_or(Timestamp::MAX);
        let mut next = Some(rate);
        let falls = loop {
            let Some(until) = next.map(|rate| rate.until).filter(|until| *until < horizon) else {
                break None;
            };
            next = rate_at(until);
            if next.is_some_and(|rate| rate.price.micros <= limit.micros) {
                break Some(until);
            }
        };
        let cause = Cause::Price { price: rate.price, limit };
        match falls {
            Some(falls) => self.hold_until_wall(cause, falls, "the price of energy falls"),
            None => self.hold(cause),
        }
        // The sentence names the price of now.
        self.wake_at_wall(rate.until, "the price of energy changes");
    }

    /// `heat`: the reading and the limit of a card that is too hot, °C.
    pub(super) fn heat(&mut self, heat: Option<(i32, i32)>, inputs: &Inputs) {
        if let Some((reading_c, limit_c)) = heat {
            self.hold(Cause::TooHot { reading_c, limit_c });
        }
        // The limit above has said it already.
        let told = |stop: &PowerStop| heat.is_some() && stop.code() == PauseCode::TooHot;
        let over = |stop: &PowerStop| stop.until().is_some_and(|until| until <= self.now.wall);
        let power = inputs.power.filter(|stop| !told(stop) && !over(stop));
        if let Some(stop) = power {
            match stop.until() {
                Some(until) => self.hold_until_wall(Cause::Power(stop), until, "a power limit passes"),
                None => self.hold(Cause::Power(stop)),
            }
        }
    }

    pub(super) fn machine(&mut self, settings: &Settings, inputs: &Inputs, empty: bool) {
        let machine = &inputs.machine;
        if let (true, Some(Supply::Battery { percent })) = (empty, machine.supply) {
            let from = match settings.battery {
                Battery::Never => None,
                Battery::From(from) => Some(from),
            };
            self.hold(Cause::OnBattery { percent, from });
        }
        if machine.lid_closed == Some(true) && !settings.lid_closed {
            self.hold(Cause::LidClosed);
        }
        if machine.metered == Some(true) && !settings.metered {
            self.hold(Cause::Metered);
        }
        if machine.memory_short == Some(true) && !settings.memory_short {
            self.hold(Cause::MemoryShort);
        }
        if machine.going_to_sleep {
            self.hold(Cause::Asleep);
        }
    }

    pub(super) fn programs(&mut self, settings: &Settings, inputs: &Inputs) {
        if inputs.own_use {
            self.hold(Cause::OwnUse);
        }
        let activity = &inputs.activity;
        if let Some(app) = activity.games.first().filter(|_| !settings.games) {
            self.hold(Cause::Game { app: app.clone() });
        }
        if let Some(app) = activity.full_screen.as_ref().filter(|_| !settings.full_screen) {
            self.hold(Cause::FullScreen { app: app.clone() });
        }
        if let Some(cause) = listed(settings, inputs, WhileItRuns::Pause) {
            self.hold(cause);
        }
        if let Some(app) = activity.call.as_ref().filter(|_| !settings.calls) {
            self.hold(Cause::InCall { app: app.clone() });
        }
    }

    /// What other programs use of the cards, or did `before`; gives which card, and when they last did.
    pub(super) fn other_programs(
        &mut self,
        settings: &Settings,
        inputs: &Inputs,
        before: Option<(String, Instant)>,
    ) -> Option<(String, Instant)> {
        if let Some((card, by)) = inputs.foreign.iter().find_map(|load| in_use(settings, load)) {
            self.hold(Cause::GpuInUse { card: card.clone(), by });
            return Some((card, self.now.monotonic));
        }
        let resumes_after = settings.gpu_idle_after;
        let (card, last) = before.filter(|_| settings.gpu_load.is_some() || settings.gpu_memory.is_some())?;
        let until = last + resumes_after;
        if until <= self.now.monotonic {
            return None;
        }
        // What the hysteresis waits for as long is told as that.
        if resumes_after > settings.resume_hysteresis {
            let by = Foreign::Gone { resumes_after };
            self.hold_until(
                Cause::GpuInUse { card: card.clone(), by },
                until,
                "the cards were idle for long enough",
            );
        }
        Some((card, last))
    }

    pub(super) fn lacks(&mut self, inputs: &Inputs) {
        if inputs.ready == 0 {
            self.hold(Cause::NothingToShare { unreachable: inputs.shared > 0 });
        }
        if inputs.joined == 0 {
            self.hold(Cause::NoNetwork);
        }
        if inputs.cannot_keep {
            self.hold(Cause::CannotKeep);
        }
    }

    /// Waits for the hysteresis of a reason that is over; where another outlasts it, only that is told.
    pub(super) fn settle_until(&mut self, until: Instant) {
        let wall = self.now.wall_at(until);
        if self.found.iter().all(|found| found.until.is_some_and(|ends| ends < wall)) {
            self.found.push(Found { cause: Cause::Settling, until: Some(wall) });
        }
        self.wake(until, "the resume hysteresis ends");
    }

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
        self.wake_at(self.now.instant_of(at).min(self.now.monotonic + WALL_RECHECK), at, why);
    }

    fn wake(&mut self, at: Instant, why: &'static str) {
        self.wake_at(at, self.now.wall_at(at), why);
    }

    fn wake_at(&mut self, at: Instant, changes: Timestamp, why: &'static str) {
        if self.wake.is_none_or(|wake| at < wake.at) {
            self.wake = Some(Wakeup { at, why });
        }
        self.changes_at = self.changes_at.into_iter().chain([changes]).min();
    }
}

/// The listed program for which the host says so.
pub(super) fn listed(settings: &Settings, inputs: &Inputs, then: WhileItRuns) -> Option<Cause> {
    let app = settings.apps.first(&inputs.activity.listed, then)?.clone();
    Some(Cause::ListedApp { app })
}

/// Whether a battery is too empty to share on; `before` is what was said of it last.
pub(super) fn battery_too_empty(rule: Battery, supply: Option<Supply>, before: bool) -> bool {
    match (supply, rule) {
        (None | Some(Supply::Mains), _) => false,
        (Some(Supply::Battery { .. }), Battery::Never) => true,
        (Some(Supply::Battery { percent }), Battery::From(from)) => {
            let enough = if before { from.saturating_add(BATTERY_HYSTERESIS) } else { from };
            // A full battery is enough, whatever was wished for.
            percent.is_none_or(|percent| percent < enough.min(100))
        }
    }
}

fn in_use(settings: &Settings, load: &ForeignLoad) -> Option<(String, Foreign)> {
    let busy = settings.gpu_load.zip(load.utilisation).filter(|(limit, percent)| percent > limit);
    let held = settings.gpu_memory.zip(load.vram).filter(|(limit, bytes)| bytes > limit);
    let by = busy
        .map(|(limit, percent)| Foreign::Load { percent, limit })
        .or(held.map(|(limit, bytes)| Foreign::Memory { bytes, limit }))?;
    Some((load.card.clone(), by))
}
