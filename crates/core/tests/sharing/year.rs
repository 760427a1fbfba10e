//! A year of one machine, against the clock.

use std::time::{Duration, Instant};

use idlewatt_core::Now;
use idlewatt_core::policy::{Policy, State};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::calendar::Hours;
use crate::oracle;
use crate::strategies::{Rules, Window, event, rest};
use crate::world::ready;

/// What happens in a day, most of it in the evening as of a person who works.
const EVENTS_A_DAY: u64 = 48;

/// A year must be simulated within this, so that whole farms can be.
const YEAR: Duration = Duration::from_secs(5);

#[test]
fn a_year_of_days_keeps_every_rule_and_takes_seconds() {
    let mut runner = TestRunner::deterministic();
    let mut draw = |strategy: &dyn Fn(&mut TestRunner) -> crate::world::Event| strategy(&mut runner);
    let event = event();
    let start = Now {
        monotonic: Instant::now(),
        wall: "2026-01-01T00:00:00Z".parse().unwrap(),
        zone: TimeZone::get("Europe/Berlin").unwrap(),
    };
    let mut settings_runner = TestRunner::deterministic();
    let rest = rest().new_tree(&mut settings_runner).unwrap().current();
    let windows = vec![
        Window { first: 0, last: 4, from: 22 * 60, to: 7 * 60 },
        Window { first: 5, last: 6, from: 0, to: 24 * 60 - 1 },
        Window { first: 2, last: 2, from: 12 * 60, to: 13 * 60 + 30 },
    ];
    let rules = Rules { windows, exceptions: Vec::new(), start: start.clone(), rest };
    let settings = idlewatt_core::policy::Settings {
        // As the host would set it: only hours, price and person speak every day.
        idle_after: Duration::from_secs(600),
        ..rules.settings()
    };
    let (mut policy, mut inputs, mut now) = (Policy::default(), ready(), start.clone());
    let (mut asked, mut shared, mut spent) = (0_u32, Duration::ZERO, Duration::ZERO);
    for day in 0..365_u64 {
        // The calendar is the test's, not the policy's.
        let hours = Hours::of(&rules, &now);
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
                draw(&|runner| event.new_tree(runner).unwrap().current()).happen(&mut inputs, &now);
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
