//! A stricter setting never widens sharing.

use std::time::Duration;

use idlewatt_core::device::ThermalLimits;
use idlewatt_core::policy::{Battery, Policy, Settings, State};
use proptest::prelude::*;

use crate::strategies::{place_and_time, rest, trace};
use crate::weeks;
use crate::world::ready;

/// Each within the one before it.
const WINDOWS: [&str; 4] =
    ["always", "Mon-Fri 22:00-07:00, Sat-Sun 00:00-24:00", "Mon-Fri 22:00-07:00", "Mon-Fri 23:00-06:00"];

/// Of two settings, each limit the looser, and each the stricter.
fn apart(one: &Settings, other: &Settings, windows: (usize, usize)) -> (Settings, Settings) {
    let of = |strict: bool| {
        let longer = |a: Duration, b: Duration| if strict { a.max(b) } else { a.min(b) };
        let on = |a: bool, b: bool| if strict { a && b } else { a || b };
        let most = |a: Option<u64>, b: Option<u64>| match (a, b) {
            // No limit is the loosest.
            (None, it) | (it, None) => it.filter(|_| strict),
            (Some(a), Some(b)) => Some(if strict { a.min(b) } else { a.max(b) }),
        };
        let load = most(one.gpu_load.map(u64::from), other.gpu_load.map(u64::from));
        let price = most(
            one.max_price.map(|it| it.micros.unsigned_abs()),
            other.max_price.map(|it| it.micros.unsigned_abs()),
        );
        let known = one.max_price.or(other.max_price);
        let listed = |it: &Settings| it.apps.to_string() == "blender, obs=cap";
        let apps = if on(!listed(one), !listed(other)) { "blender=cap, obs=cap" } else { "blender, obs=cap" };
        let from = |it: Battery| match it {
            Battery::Never => 101,
            Battery::From(percent) => percent,
        };
        let (a, b) = (from(one.battery), from(other.battery));
        let battery = if strict { a.max(b) } else { a.min(b) };
        let windows = if strict { windows.0.max(windows.1) } else { windows.0.min(windows.1) };
        Settings {
            // Zero does not wait at all, and is the loosest as it is the shortest.
            idle_after: longer(one.idle_after, other.idle_after),
            resume_hysteresis: longer(one.resume_hysteresis, other.resume_hysteresis),
            windows: WINDOWS[windows].parse().unwrap(),
            while_active: on(one.while_active, other.while_active),
            locked_is_away: on(one.locked_is_away, other.locked_is_away),
            remote_logins: on(one.remote_logins, other.remote_logins),
            games: on(one.games, other.games),
            full_screen: on(one.full_screen, other.full_screen),
            calls: on(one.calls, other.calls),
            apps: apps.parse().unwrap(),
            gpu_load: load.and_then(|it| u8::try_from(it).ok()),
            gpu_memory: most(one.gpu_memory, other.gpu_memory),
            battery: if battery > 100 { Battery::Never } else { Battery::From(battery) },
            lid_closed: on(one.lid_closed, other.lid_closed),
            metered: on(one.metered, other.metered),
            memory_short: on(one.memory_short, other.memory_short),
            max_price: price
                .and_then(|micros| i64::try_from(micros).ok())
                .and_then(|micros| known.map(|it| idlewatt_core::tariff::Money { micros, ..it })),
            gpu_idle_after: longer(one.gpu_idle_after, other.gpu_idle_after),
            thermal: ThermalLimits::every(if strict {
                one.thermal.every.min(other.thermal.every)
            } else {
                one.thermal.every.max(other.thermal.every)
            }),
            ..one.clone()
        }
    };
    (of(false), of(true))
}

proptest! {
    #![proptest_config(weeks())]

    #[test]
    fn tightening_any_limit_never_widens_sharing(
        start in place_and_time(),
        one in rest(),
        other in rest(),
        windows in (0..WINDOWS.len(), 0..WINDOWS.len()),
        trace in trace(),
    ) {
        let (loose, tight) = apart(&one, &other, windows);
        let (mut by_loose, mut by_tight) = (Policy::default(), Policy::default());
        let (mut inputs, mut now) = (ready(), start);
        for (seconds, event) in trace {
            let mut left = Duration::from_secs(seconds);
            while !left.is_zero() {
                let (wide, narrow) = (by_loose.decide(&loose, &inputs, &now), by_tight.decide(&tight, &inputs, &now));
                prop_assert!(
                    narrow.state != State::Sharing || wide.state == State::Sharing,
                    "tight shares at {}, loose has {:?}", now.local(), wide.reasons
                );
                let wakes = [&wide, &narrow].into_iter().filter_map(|it| it.wake).map(|wake| wake.at - now.monotonic);
                let step = wakes.min().map_or(left, |wake| wake.min(left));
                now = now.later(step);
                left -= step;
            }
            event.happen(&mut inputs, &now);
        }
    }
}
