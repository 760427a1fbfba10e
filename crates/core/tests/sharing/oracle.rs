//! What the rules say of one moment, read off the inputs.

use idlewatt_core::Now;
use idlewatt_core::machine::Supply;
use idlewatt_core::policy::{Battery, Inputs, Settings};
use idlewatt_core::presence::PresenceReading;
use idlewatt_core::tariff::Prices as _;

use crate::calendar::Hours;

/// A reason for which nothing may be shared now.
pub(crate) fn forbids(
    settings: &Settings,
    inputs: &Inputs,
    hours: &Hours,
    now: &Now,
) -> Option<&'static str> {
    let share_now = inputs.share_now_until.is_some_and(|until| !until.is_past(now));
    if !share_now {
        if !hours.are_open(now) {
            return Some("it is outside the hours");
        }
        if inputs.activity.remote_logins > 0 && !settings.remote_logins {
            return Some("somebody is logged in over the network");
        }
        if !settings.while_active && !settings.idle_after.is_zero() && is_here(settings, inputs, now) {
            return Some("somebody is here");
        }
    }
    let activity = &inputs.activity;
    let machine = &inputs.machine;
    let load = |it: &idlewatt_core::device::ForeignLoad| {
        settings.gpu_load.is_some_and(|limit| it.utilisation > Some(limit))
            || settings.gpu_memory.is_some_and(|limit| it.vram > Some(limit))
    };
    let price = || settings.tariff.as_ref()?.rate(now.wall, &now.zone);
    let names = |name: &str| activity.listed.iter().any(|app| app.name == name);
    let checks = [
        (inputs.pause.is_some_and(|it| it.until.is_none_or(|until| !until.is_past(now))), "it is paused"),
        (!activity.games.is_empty() && !settings.games, "a game runs"),
        (activity.full_screen.is_some() && !settings.full_screen, "a film runs"),
        (activity.call.is_some() && !settings.calls, "a call goes on"),
        (names("blender") && settings.apps.to_string().contains("blender,"), "a listed program runs"),
        (inputs.foreign.iter().any(load), "others use the card"),
        (inputs.own_use, "the host uses the model"),
        (is_too_empty(settings.battery, machine.supply), "the battery is too empty"),
        (machine.lid_closed == Some(true) && !settings.lid_closed, "the lid is closed"),
        (machine.metered == Some(true) && !settings.metered, "the connection is metered"),
        (machine.memory_short == Some(true) && !settings.memory_short, "memory is short"),
        (machine.going_to_sleep, "the machine goes to sleep"),
        (
            inputs.temperatures.iter().any(|it| it.celsius >= settings.thermal.of(&it.card)),
            "a card is too hot",
        ),
        (
            settings.max_price.zip(price()).is_some_and(|(limit, rate)| rate.price.micros > limit.micros),
            "energy is too dear",
        ),
    ];
    checks.iter().find(|(forbids, _)| *forbids).map(|(_, why)| *why)
}

fn is_here(settings: &Settings, inputs: &Inputs, now: &Now) -> bool {
    let screen = &inputs.activity;
    let locked =
        settings.locked_is_away && (screen.locked == Some(true) || screen.displays_off == Some(true));
    match inputs.presence {
        PresenceReading::Headless => false,
        PresenceReading::Active { .. } | PresenceReading::Blind => true,
        PresenceReading::Idle { last_input } => {
            let waits = if locked {
                settings.resume_hysteresis.min(settings.idle_after)
            } else {
                settings.idle_after
            };
            now.monotonic - last_input < waits
        }
    }
}

fn is_too_empty(rule: Battery, supply: Option<Supply>) -> bool {
    match (supply, rule) {
        (Some(Supply::Battery { .. }), Battery::Never) => true,
        (Some(Supply::Battery { percent }), Battery::From(from)) => {
            percent.is_none_or(|percent| percent < from)
        }
        (Some(Supply::Mains) | None, _) => false,
    }
}
