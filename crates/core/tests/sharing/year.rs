//! A year of one machine, against the clock.

use std::time::{Duration, Instant};

use idlewatt_core::Now;
use idlewatt_core::policy::{Battery, Policy, Settings, State};
use idlewatt_core::tariff::Money;
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::calendar::Hours;
use crate::oracle;
use crate::strategies::{Rules, Window, event};
use crate::world::ready;

/// What happens in a day.
const EVENTS_A_DAY: u64 = 24;

/// A year must be simulated within this, so that whole farms can be.
const YEAR: Duration = Duration::from_secs(5);

#[test]
fn a_year_of_days_keeps_every_rule_and_takes_seconds() {
    let mut runner = TestRunner::deterministic();
    let event = event();
    let start = Now {
        monotonic: Instant::now(),
        wall: "2026-01-01T00:00:00Z".parse().unwrap(),
        zone: TimeZone::get("Europe/Berlin").unwrap(),
    };
    let windows = vec![
        Window { first: 0, last: 4, from: 22 * 60, to: 7 * 60 },
        Window { first: 5, last: 6, from: 0, to: 24 * 60 - 1 },
        Window { first: 2, last: 2, from: 12 * 60, to: 13 * 60 + 30 },
    ];
    let rest = Settings {
        tariff: Some("0.31 EUR/kWh; Mon-Fri 22:00-06:00 0.22; Sat-Sun 0.25".parse().unwrap()),
        max_price: Money::of_kilowatt_hour("0.26 EUR/kWh"),
        battery: Battery::From(60),
        apps: "blender, obs=cap".parse().unwrap(),
        ..Settings::default()
    };
    let rules = Rules { windows, exceptions: Vec::new(), start: start.clone(), rest };
    let settings = rules.settings();
    let (mut policy, mut now) = (Policy::default(), start.clone());
    let (mut asked, mut shared, mut spent) = (0_u32, Duration::ZERO, Duration::ZERO);
    for day in 0..365_u64 {
        // The calendar is the test's, not the policy's.
        let hours = Hours::of(&rules, &now);
        // A new day begins in peace.
        let mut inputs = ready();
        let end = start.later(Duration::from_secs((day + 1) * 86_400));
        let gap = Duration::from_secs(86_400 / EVENTS_A_DAY);
        let mut next_event = now.later(gap);
        while now.monotonic < end.monotonic {
            let begun = Instant::now();
            let decision = policy.decide(&settings, &inputs, &now);
            spent += begun.elapsed();
            asked += 1;
            let shares = decision.state == State::Sharing;
            let forbidden = oracle::forbids(&settings, &inputs, &hours, &now);
            assert!(!shares || forbidden.is_none(), "shares at {} although {forbidden:?}", now.local());
            let changes = decision.changes_at.map(|at| now.instant_of(at)).filter(|at| *at > now.monotonic);
            let next = changes.map_or(next_event.monotonic, |at| at.min(next_event.monotonic));
            if shares {
                shared += next - now.monotonic;
            }
            now = now.later(next - now.monotonic);
            if now.monotonic >= next_event.monotonic {
                event.new_tree(&mut runner).unwrap().current().happen(&mut inputs, &now);
                next_event = now.later(gap);
            }
        }
    }
    let hours = SignedDuration::try_from(shared).unwrap().as_hours();
    println!("a year: {asked} decisions in {:.2} s, {hours} h shared", spent.as_secs_f64());
    assert!(hours > 0, "a year in which nothing is shared shows nothing");
    if std::env::var_os("IDLEWATT_STRICT").is_some() {
        assert!(spent <= YEAR, "a year takes {spent:?}");
    }
}
