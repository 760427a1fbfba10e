//! The share policy over random weeks: what the rules forbid never happens, what is predicted comes true, sharing does not
//! flap, and a stricter setting never widens it.
//!
//! What is allowed is found here once more, by other means than the policy's: hours are looked up minute by minute on a
//! calendar, everything else is read off the inputs. `script/show policy-year` runs more weeks, and a year against the clock.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod calendar;
mod oracle;
mod strategies;
mod tightening;
mod world;
mod year;

use std::mem::discriminant;
use std::time::Duration;

use idlewatt_core::Now;
use idlewatt_core::policy::{Decision, Inputs, Policy, Reason, Settings, State};
use idlewatt_protocol::PauseCode;
use jiff::SignedDuration;
use proptest::prelude::*;

use calendar::Hours;
use strategies::{flapping, place_and_time, rules, trace};
use world::{Event, ready};

/// More weeks where the claim is shown than where tests are run.
fn weeks() -> ProptestConfig {
    let cases = if std::env::var_os("IDLEWATT_STRICT").is_some() { 512 } else { 8 };
    ProptestConfig { cases, failure_persistence: None, max_shrink_time: 10_000, ..ProptestConfig::default() }
}

/// Lives through a trace: the policy is asked after every event and whenever it wants to be. `look` sees each decision as
/// it is made, and again a moment before the next.
fn live(
    settings: &Settings,
    start: &Now,
    trace: &[(u64, Event)],
    mut look: impl FnMut(&Policy, &Decision, &Inputs, &Now) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let (mut policy, mut inputs, mut now) = (Policy::default(), ready(), start.clone());
    for (seconds, event) in trace {
        let event_at = now.later(Duration::from_secs(*seconds));
        while now.monotonic < event_at.monotonic {
            let decision = policy.decide(settings, &inputs, &now);
            look(&policy, &decision, &inputs, &now)?;
            let wake = decision.wake.map(|wake| wake.at);
            prop_assert!(wake.is_none_or(|wake| wake > now.monotonic), "a wake-up that is past would spin");
            let next = wake.map_or(event_at.monotonic, |wake| wake.min(event_at.monotonic));
            now = now.later(next - now.monotonic);
            let before = Now {
                monotonic: now.monotonic - Duration::from_millis(1),
                wall: now.wall - SignedDuration::from_millis(1),
                zone: now.zone.clone(),
            };
            look(&policy, &decision, &inputs, &before)?;
        }
        event.happen(&mut inputs, &now);
    }
    Ok(())
}

proptest! {
    #![proptest_config(weeks())]

    #[test]
    fn what_a_rule_forbids_never_happens(
        (start, rules, trace) in place_and_time().prop_flat_map(|start| {
            let rules = rules(&start);
            (Just(start), rules, trace())
        })
    ) {
        let settings = rules.settings();
        let hours = Hours::of(&rules, &start);
        live(&settings, &start, &trace, |_, decision, inputs, now| {
            let forbidden = oracle::forbids(&settings, inputs, &hours, now);
            prop_assert!(
                decision.state != State::Sharing || forbidden.is_none(),
                "shares at {} although {}", now.local(), forbidden.unwrap_or_default()
            );
            Ok(())
        })?;
    }

    #[test]
    fn sharing_is_resumed_at_most_once_in_a_hysteresis(
        start in place_and_time(), hysteresis in 1_u64..900, idle in 1_u64..900, trace in flapping()
    ) {
        let settings = Settings {
            resume_hysteresis: Duration::from_secs(hysteresis),
            remote_logins: false,
            idle_after: Duration::from_secs(idle),
            ..Settings::default()
        };
        let (mut shared, mut resumed) = (None, None);
        live(&settings, &start, &trace, |_, decision, _, now| {
            let shares = decision.state == State::Sharing;
            if shares
                && shared == Some(false)
                && let Some(before) = resumed.replace(now.monotonic)
            {
                let since = now.monotonic - before;
                prop_assert!(since >= settings.resume_hysteresis, "again after {since:?}");
            }
            shared = Some(shares);
            Ok(())
        })?;
    }

    #[test]
    fn what_is_predicted_comes_true(
        (start, rules, trace) in place_and_time().prop_flat_map(|start| {
            let rules = rules(&start);
            (Just(start), rules, trace())
        })
    ) {
        let settings = rules.settings();
        let mut asked = 0_u32;
        live(&settings, &start, &trace, |policy, decision, inputs, now| {
            asked += 1;
            // Each prediction is followed for days: some are enough.
            if asked % 97 == 1 {
                comes_true(policy, decision, &settings, inputs, now)?;
            }
            Ok(())
        })?;
    }
}

/// Lives on without any event, and compares: until when it pauses, until when each reason holds, and the whole outlook.
fn comes_true(
    policy: &Policy,
    decision: &Decision,
    settings: &Settings,
    inputs: &Inputs,
    now: &Now,
) -> Result<(), TestCaseError> {
    let ahead = SignedDuration::from_hours(30);
    let end = now.wall + ahead;
    let outlook = policy.outlook(settings, inputs, now, ahead, usize::MAX);
    let mut policy = policy.clone();
    let mut at = now.clone();
    let (mut resumed, mut ended) = (false, Vec::new());
    while at.wall < end {
        let seen = policy.decide(settings, inputs, &at);
        let told = outlook.iter().rev().find(|stretch| stretch.from <= at.wall).unwrap();
        prop_assert!(
            told.decision.state == seen.state && codes(&told.decision) == codes(&seen),
            "at {} it is {:?}, told was {:?}",
            at.local(),
            codes(&seen),
            codes(&told.decision)
        );
        let unix = at.unix();
        if let Some(until) = decision.until().filter(|_| !resumed) {
            let paused = seen.state == State::Paused;
            // What closes again later has still opened then. Moments are told to the millisecond: within it both are true.
            resumed = unix > until || unix == until && !paused;
            prop_assert_eq!(paused, !resumed, "at {}, told until {:?}", at.local(), until);
        }
        for reason in &decision.reasons {
            let code = reason.code();
            // A person who sits here and one who is logged in have one code.
            let same = |it: &Reason| discriminant(&it.cause) == discriminant(&reason.cause);
            let holds = seen.reasons.iter().any(same);
            // Settling is told only where nothing outlasts it.
            let Some(until) = reason.until.filter(|_| code != PauseCode::Settling) else { continue };
            if unix == until && holds {
                continue;
            }
            if unix < until {
                prop_assert!(holds, "{code:?} was told until {until:?}, and is over at {}", at.local());
            } else if !ended.contains(&code) {
                prop_assert!(!holds, "{code:?} was told until {until:?}, and holds at {}", at.local());
                ended.push(code);
            }
        }
        let Some(changes) = seen.changes_at else { break };
        at = at.later(changes.duration_since(at.wall).max(SignedDuration::from_millis(1)).unsigned_abs());
    }
    Ok(())
}

fn codes(decision: &Decision) -> Vec<PauseCode> {
    decision.reasons.iter().map(|reason| reason.code()).collect()
}
