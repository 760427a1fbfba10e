//! What is happening and why, in one sentence for people.

mod rules;

use std::time::Duration;

use idlewatt_protocol::{Millijoules, Milliwatts, UnixMillis};
use jiff::Timestamp;
use jiff::civil::Weekday;
pub use rules::{rules, stretch};

use crate::governor::{Limit, Unenforceable};
use crate::policy::{Cause, Decision, Foreign, PowerStop, Reason, State, THERMAL_HYSTERESIS_C};
use crate::{Now, duration};

/// What the sentence tells of beside the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// Requests being answered now.
    pub running: u32,
    /// Public names of the models that are ready.
    pub models: Vec<String>,
    /// Names of the networks joined, the connected ones where there are any.
    pub networks: Vec<String>,
    /// When the last request came.
    pub last_request: Option<UnixMillis>,
    /// Power of all cards now, where it is known.
    pub power: Option<Milliwatts>,
}

/// The whole state in one sentence: "Paused: you are here. Sharing resumes 10 min after you stop."
#[must_use]
pub fn state(decision: &Decision, scene: &Scene, now: &Now) -> String {
    let share_now = decision.share_now_until.map_or_else(String::new, |until| {
        format!(" You said to share now; your rules hold again from {}.", clock(until, now))
    });
    format!("{}{share_now}", of_state(decision, scene, now))
}

fn of_state(decision: &Decision, scene: &Scene, now: &Now) -> String {
    match decision.state {
        State::Paused => paused(&decision.reasons, now),
        State::Offline => {
            format!("Offline: no connection to {}. It is tried again by itself.", list(&scene.networks, "or"))
        }
        State::Sharing if scene.running > 0 => {
            let requests = if scene.running == 1 { "request" } else { "requests" };
            format!("Sharing: answering {} {requests}.{}", scene.running, watts(scene))
        }
        State::Sharing => {
            let (networks, models) = (list(&scene.networks, "or"), list(&scene.models, "or"));
            match scene.last_request {
                Some(at) => format!(
                    "Ready, no work: nobody in {networks} has asked for {models} since {}.{}",
                    clock(at, now),
                    watts(scene)
                ),
                None => format!(
                    "Ready, no work: nobody in {networks} has asked for {models} yet.{}",
                    watts(scene)
                ),
            }
        }
    }
}

/// One reason in a list: "Outside your hours until 22:00."
#[must_use]
pub fn reason(reason: &Reason, now: &Now) -> String {
    let clause = clause(reason, now);
    let mut letters = clause.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

fn paused(reasons: &[Reason], now: &Now) -> String {
    if reasons.iter().any(|reason| reason.cause == Cause::Stopping) {
        return "Stopping: requests are handed back.".to_owned();
    }
    let clauses: Vec<String> = reasons.iter().map(|reason| clause(reason, now)).collect();
    let outlook = match reasons {
        [only] => outlook(only),
        _ => String::new(),
    };
    format!("Paused: {}.{outlook}", list(&clauses, "and"))
}

/// The reason as part of a sentence.
fn clause(reason: &Reason, now: &Now) -> String {
    let until = reason.until.map(|until| clock(until, now));
    let until = |before: &str| until.as_ref().map_or_else(String::new, |until| format!("{before}{until}"));
    match &reason.cause {
        Cause::PausedByHost => format!("you paused sharing{}", until(" until ")),
        Cause::PersonHere { active: true, .. } => "you are here".to_owned(),
        Cause::PersonHere { active: false, .. } => {
            format!("you were here a moment ago{}", until("; sharing waits until "))
        }
        Cause::RemoteLogin { people: 1 } => "somebody is logged in over the network".to_owned(),
        Cause::RemoteLogin { people } => format!("{people} people are logged in over the network"),
        Cause::CannotSeeInput => "there is a screen here, and no way to see whether you use it".to_owned(),
        Cause::Game { app } => format!("a game runs ({})", app.name),
        Cause::FullScreen { app } => format!("a program covers the screen ({})", app.name),
        Cause::ListedApp { app } => format!("a program of your list runs ({})", app.name),
        Cause::InCall { app } => format!("the microphone is in use ({})", app.name),
        Cause::GpuInUse { by: Foreign::Load { percent, limit }, .. } => {
            format!("other programs keep a GPU {percent} % busy (up to {limit} % counts as idle)")
        }
        Cause::GpuInUse { by: Foreign::Memory { bytes, limit }, .. } => {
            let (held, limit) = (gigabytes(*bytes), gigabytes(*limit));
            format!("other programs hold {held} GB of a GPU's memory (up to {limit} GB counts as idle)")
        }
        Cause::GpuInUse { by: Foreign::Gone { .. }, .. } => {
            format!("other programs used a GPU a moment ago{}", until("; sharing waits until "))
        }
        Cause::MemoryShort => "programs wait for memory".to_owned(),
        Cause::OnBattery { from: None, .. } => "on battery".to_owned(),
        Cause::OnBattery { percent: None, from: Some(_) } => {
            "on battery, and nothing tells how full it is".to_owned()
        }
        Cause::OnBattery { percent: Some(percent), from: Some(from) } => {
            format!("the battery is at {percent} % (you share from {from} %)")
        }
        Cause::LidClosed => "the lid is closed".to_owned(),
        Cause::Metered => "the connection is metered".to_owned(),
        Cause::Price { price, limit } => {
            format!("energy costs {price}/kWh (your limit is {limit}/kWh){}", until(" until "))
        }
        Cause::Asleep => "the machine goes to sleep".to_owned(),
        Cause::OutsideWindow => format!("outside your hours{}", until(" until ")),
        Cause::Settling => format!("making sure that the machine stays free{}", until(" until ")),
        Cause::TooHot { reading_c, limit_c } => {
            format!("a GPU is at {reading_c} °C (your limit is {limit_c} °C)")
        }
        Cause::Power(stop) => power(*stop, &until),
        Cause::OwnUse => "you are using the model yourself".to_owned(),
        Cause::NothingToShare { unreachable: false } => "no model is shared".to_owned(),
        Cause::NothingToShare { unreachable: true } => "no shared model answers".to_owned(),
        Cause::NoNetwork => "no network is joined".to_owned(),
        Cause::CannotKeep => "the disk does not keep what is served".to_owned(),
        Cause::Stopping => "stopping".to_owned(),
    }
}

/// Which limit holds a card: "Your cap.", "Held at 64 W: a GPU is at 77 °C (your limit is 78 °C)."
#[must_use]
pub fn limit(limit: Limit, cap: Milliwatts, now: &Now) -> String {
    let until = |at: Option<Timestamp>| {
        at.map_or_else(String::new, |at| format!(" until {}", clock(UnixMillis(at.as_millisecond()), now)))
    };
    match limit {
        Limit::UserCap => "Your cap.".to_owned(),
        Limit::Card => "The card's own limit.".to_owned(),
        Limit::MachineCap { cap } => {
            format!("Its part of the {} W that all GPUs together may draw.", whole_watts(cap))
        }
        Limit::Temperature { reading_c, limit_c } => format!(
            "Held at {} W: the GPU is at {reading_c} °C (your limit is {limit_c} °C).",
            whole_watts(cap)
        ),
        Limit::HotSpot { reading_c, limit_c } => format!(
            "Held at {} W: its hottest spot is at {reading_c} °C (your limit is {limit_c} °C).",
            whole_watts(cap)
        ),
        Limit::Fan { reading, limit, until: at } => format!(
            "Held at {} W: its fan runs at {reading} % (your limit is {limit} %{}).",
            whole_watts(cap),
            until(at)
        ),
        Limit::DailyEnergy { used, limit, until: at } => format!(
            "Held at {} W: {} of today's {} kWh are used{}.",
            whole_watts(cap),
            kilowatt_hours(used),
            kilowatt_hours(limit),
            until(Some(at))
        ),
    }
}

fn power(stop: PowerStop, until: &impl Fn(&str) -> String) -> String {
    match stop {
        PowerStop::Limit(Limit::Temperature { reading_c, limit_c }) => {
            format!("a GPU is at {reading_c} °C (your limit is {limit_c} °C)")
        }
        PowerStop::Limit(Limit::HotSpot { reading_c, limit_c }) => {
            format!("a GPU's hottest spot is at {reading_c} °C (your limit is {limit_c} °C)")
        }
        PowerStop::Limit(Limit::Fan { reading, limit, .. }) => {
            format!("a fan runs at {reading} % (your limit is {limit} %){}", until(" until "))
        }
        PowerStop::Limit(Limit::DailyEnergy { limit, .. }) => {
            format!("today's {} kWh are used{}", kilowatt_hours(limit), until(" until "))
        }
        PowerStop::Limit(Limit::UserCap | Limit::MachineCap { .. } | Limit::Card) => {
            "the power cap leaves nothing now".to_owned()
        }
        PowerStop::HostLoad { draws, cap } => format!(
            "{} W are drawn without any shared work, of the {} W that your cap allows",
            whole_watts(draws),
            whole_watts(cap)
        ),
        PowerStop::Off => "every model that is shared computes on a GPU that you switched off".to_owned(),
        PowerStop::Unenforceable(Unenforceable::NothingMeasures) => {
            "a GPU tells neither its power nor its limit, so no cap can be held".to_owned()
        }
        PowerStop::Unenforceable(Unenforceable::SmallestSlice { .. }) => {
            "nothing that is shared fits under your power cap".to_owned()
        }
    }
}

/// What ends it, where it is the only reason.
fn outlook(reason: &Reason) -> String {
    match &reason.cause {
        Cause::PersonHere { active: true, resumes_after } => {
            format!(" Sharing resumes {} after you stop.", duration::words(*resumes_after))
        }
        Cause::PausedByHost if reason.until.is_none() => " It stays so until you resume.".to_owned(),
        Cause::CannotSeeInput => " `idlewatt doctor` says what is missing.".to_owned(),
        Cause::TooHot { limit_c, .. } => {
            format!(" Sharing resumes at {} °C.", limit_c - THERMAL_HYSTERESIS_C)
        }
        Cause::Game { .. } | Cause::FullScreen { .. } | Cause::ListedApp { .. } => {
            " Sharing resumes when you are done with it.".to_owned()
        }
        Cause::InCall { .. } => " Sharing resumes after the call.".to_owned(),
        Cause::OnBattery { .. } => " Sharing resumes on mains.".to_owned(),
        Cause::Power(PowerStop::HostLoad { .. }) => " Sharing resumes when they fall.".to_owned(),
        Cause::OwnUse => " Sharing resumes when you are done.".to_owned(),
        Cause::Power(PowerStop::Unenforceable(_)) => {
            " Raise the cap, or see Power for who could hold it.".to_owned()
        }
        Cause::NothingToShare { unreachable: false } => {
            " Choose one under Models, or with `idlewatt share`.".to_owned()
        }
        Cause::NothingToShare { unreachable: true } => {
            " Start its model server; it is found by itself.".to_owned()
        }
        Cause::NoNetwork => " Join one with an invite, or run your own with `idlewatt hub`.".to_owned(),
        _ => String::new(),
    }
}

fn watts(scene: &Scene) -> String {
    scene.power.map_or_else(String::new, |power| format!(" Now {} W.", whole_watts(power)))
}

/// To the nearest.
#[must_use]
pub fn whole_watts(power: Milliwatts) -> i64 {
    (power.0 + 500).div_euclid(1000)
}

/// Decimal, to a tenth.
fn gigabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000_000) / 100_000_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `2.5`, `0.05`, `12`.
#[must_use]
pub fn kilowatt_hours(energy: Millijoules) -> String {
    let text = format!("{:.2}", energy.to_main_unit() / 3_600_000.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// "a", "a or b", "a, b or c"; four and more are counted.
fn list(names: &[String], word: &str) -> String {
    match names {
        [] => "any".to_owned(),
        [only] => only.clone(),
        [first @ .., last] if names.len() <= 3 => format!("{} {word} {last}", first.join(", ")),
        [first, second, ..] => format!("{first}, {second} {word} {} more", names.len() - 2),
    }
}

/// A moment as people say it: "22:00", "tomorrow 06:00", "Tue 19:40", "2026-12-01 08:00".
#[must_use]
pub fn clock(at: UnixMillis, now: &Now) -> String {
    let Ok(at) = Timestamp::from_millisecond(at.0) else { return "an unknown time".to_owned() };
    // What is ahead is rounded up to the minute: "until 22:00" must not be over at 21:59:30.
    let ahead = if at > now.wall { Duration::from_secs(59) } else { Duration::ZERO };
    let at = at.checked_add(ahead).unwrap_or(at).to_zoned(now.zone.clone());
    let today = now.local().date();
    let days = today.until(at.date()).map_or(i32::MAX, |span| span.get_days());
    let time = at.strftime("%H:%M");
    match days {
        0 => time.to_string(),
        1 => format!("tomorrow {time}"),
        -1 => format!("yesterday {time}"),
        -6..=6 => format!("{} {time}", day_name(at.weekday())),
        _ => format!("{} {time}", at.date()),
    }
}

const fn day_name(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Mon",
        Weekday::Tuesday => "Tue",
        Weekday::Wednesday => "Wed",
        Weekday::Thursday => "Thu",
        Weekday::Friday => "Fri",
        Weekday::Saturday => "Sat",
        Weekday::Sunday => "Sun",
    }
}
