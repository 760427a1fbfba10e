//! The rules in force, each as one sentence.

use idlewatt_protocol::PauseCode;

use super::{gigabytes, list};
use crate::policy::{Battery, Settings, State, Stretch, WhileItRuns};
use crate::windows::ShareWindows;
use crate::{Now, duration};

/// The rules in force as sentences, the most telling first. `active_cap` is what is left of each cap while somebody is
/// here, %.
#[must_use]
pub fn rules(settings: &Settings, active_cap: u32, now: &Now) -> Vec<String> {
    let mut rules = vec![hours(settings)];
    if settings.exceptions != Default::default() {
        rules.push(format!("Exceptions: {}.", settings.exceptions));
    }
    if now.zone.is_unknown() {
        rules.push("This system does not tell its time zone: hours are in UTC.".to_owned());
    }
    rules.push(person(settings, active_cap));
    rules.extend(undisturbed(settings));
    let by = |then| settings.apps.names_of(then).map(str::to_owned).collect::<Vec<_>>();
    let (paused, lowered) = (by(WhileItRuns::Pause), by(WhileItRuns::LowerCap));
    if !paused.is_empty() {
        rules.push(format!("Stops while {} runs.", list(&paused, "or")));
    }
    if !lowered.is_empty() {
        rules.push(format!("Shares with {active_cap} % of each cap while {} runs.", list(&lowered, "or")));
    }
    rules.extend(in_use(settings));
    rules.extend(machine(settings));
    if let Some(limit) = settings.max_price {
        rules.push(match settings.tariff {
            Some(_) => format!("Stops while energy costs more than {limit}/kWh."),
            None => format!("Would stop while energy costs more than {limit}/kWh, but no price is set."),
        });
    }
    rules.extend(heat(settings));
    let waits = !settings.idle_after.is_zero() && !settings.while_active;
    if settings.own_devices && (waits || settings.windows != ShareWindows::ALWAYS) {
        rules.push("Your own devices may ask while you are here and outside these hours.".to_owned());
    }
    rules
}

/// One sentence on a stretch of the time ahead: "Shares.", "Paused: outside your hours until 22:00."
#[must_use]
pub fn stretch(stretch: &Stretch, now: &Now) -> String {
    let decision = &stretch.decision;
    match (decision.state, &decision.lowered) {
        (State::Paused, _) => super::paused(&decision.reasons, now),
        (_, Some(cause)) if cause.code() == PauseCode::ListedApp => {
            "Shares under the lower cap: a program of your list runs.".to_owned()
        }
        (_, Some(_)) => "Shares under the lower cap: you are here.".to_owned(),
        (State::Offline, None) => "Shares once a network is reached.".to_owned(),
        (State::Sharing, None) => "Shares.".to_owned(),
    }
}

fn hours(settings: &Settings) -> String {
    let windows = settings.windows.to_string();
    match windows.as_str() {
        "always" => "Shares at any hour.".to_owned(),
        "never" => "Shares in no week's hours.".to_owned(),
        _ => format!("Shares {windows}."),
    }
}

fn person(settings: &Settings, active_cap: u32) -> String {
    if settings.idle_after.is_zero() {
        return "Does not wait for you to be away.".to_owned();
    }
    if settings.while_active {
        return format!("Shares while you are here, with {active_cap} % of each cap.");
    }
    let idle = duration::words(settings.idle_after.max(settings.resume_hysteresis));
    let locked = if settings.locked_is_away && settings.idle_after > settings.resume_hysteresis {
        let settled = duration::words(settings.resume_hysteresis);
        format!(", or {settled} after you lock the screen or the displays go off")
    } else {
        String::new()
    };
    format!("Waits until you have been away for {idle}{locked}.")
}

fn undisturbed(settings: &Settings) -> Option<String> {
    let stops = [
        (!settings.games, "a game runs"),
        (!settings.full_screen, "a program covers the screen"),
        (!settings.calls, "the microphone is in use"),
        (!settings.remote_logins, "somebody is logged in over the network"),
    ];
    let stops: Vec<String> = stops.iter().filter(|(on, _)| *on).map(|(_, what)| (*what).to_owned()).collect();
    (!stops.is_empty()).then(|| format!("Stops while {}.", joined(&stops)))
}

fn in_use(settings: &Settings) -> Option<String> {
    let load = settings.gpu_load.map(|percent| format!("keep a GPU more than {percent} % busy"));
    let held =
        settings.gpu_memory.map(|bytes| format!("hold more than {} GB of its memory", gigabytes(bytes)));
    let parts: Vec<String> = load.into_iter().chain(held).collect();
    let waits = if settings.gpu_idle_after > settings.resume_hysteresis {
        format!(", and waits until none has for {}", duration::words(settings.gpu_idle_after))
    } else {
        String::new()
    };
    (!parts.is_empty()).then(|| format!("Stops while other programs {}{waits}.", joined(&parts)))
}

/// Each limit of a card's own after that of all others.
fn heat(settings: &Settings) -> Vec<String> {
    let every = format!("Stops when a GPU reaches {} °C.", settings.thermal.every);
    let each = settings.thermal.cards.iter();
    let each = each.map(|(card, celsius)| format!("Stops when {card} reaches {celsius} °C."));
    std::iter::once(every).chain(each).collect()
}

fn machine(settings: &Settings) -> Option<String> {
    let battery = match settings.battery {
        Battery::Never => Some("on battery".to_owned()),
        Battery::From(0) => None,
        Battery::From(percent) => Some(format!("on a battery below {percent} %")),
    };
    let lid = (!settings.lid_closed).then(|| "with the lid closed".to_owned());
    let metered = (!settings.metered).then(|| "over a metered connection".to_owned());
    let parts: Vec<String> = [battery, lid, metered].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("Does not share {}.", joined(&parts)))
}

/// "a", "a or b", "a, b or c": all of them.
fn joined(parts: &[String]) -> String {
    match parts {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => parts.concat(),
    }
}
