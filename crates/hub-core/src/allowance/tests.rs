use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Moment {
    let ms = i64::try_from(seconds * 1000).unwrap();
    Moment { since: Duration::from_secs(seconds), wall: UnixMillis(20_000 * DAY_MS + ms) }
}

fn limits(requests: u32, tokens: u32, spend: i64) -> KeyLimits {
    KeyLimits {
        requests_per_minute: Some(requests),
        tokens_per_minute: Some(tokens),
        spend_per_day_ucr: Some(MicroCredits(spend)),
        ..KeyLimits::default()
    }
}

#[test]
fn a_minutes_requests_come_back_as_they_age() {
    let (mut meter, limits) = (Meter::default(), limits(2, 1, 1));
    meter.request(&limits, at(0)).unwrap();
    meter.request(&limits, at(30)).unwrap();
    let over = meter.request(&limits, at(31)).unwrap_err();
    assert_eq!(over.retry_after, Some(Duration::from_secs(30)));
    let left = meter.allowance(&limits, Duration::from_secs(31)).requests.unwrap();
    assert_eq!((left.limit, left.remaining, left.reset), (2, 0, Duration::from_secs(60)));
    assert!(meter.request(&limits, at(60)).is_err());
    meter.request(&limits, at(61)).unwrap();
    let left = meter.allowance(&limits, Duration::from_secs(500)).requests.unwrap();
    assert_eq!((left.remaining, left.reset), (2, Duration::ZERO));
}

#[test]
fn tokens_are_held_at_their_worst_and_corrected() {
    let (mut meter, limits) = (Meter::default(), limits(9, 100, 1_000));
    let held = meter.hold(&limits, at(0), 80, MicroCredits(80)).unwrap();
    let over = meter.hold(&limits, at(1), 30, MicroCredits(1)).unwrap_err();
    assert_eq!(
        (over.limited, over.retry_after),
        (Limited::Tokens { limit: 100, wanted: 30 }, Some(Duration::from_secs(60)))
    );
    meter.settle(held, at(2), 20, MicroCredits(20));
    let left = meter.allowance(&limits, Duration::from_secs(2)).tokens.unwrap();
    assert_eq!(left.remaining, 80);
    let over = meter.hold(&limits, at(2), 101, MicroCredits(1)).unwrap_err();
    assert_eq!(over.retry_after, None, "it never fits");
    let held = meter.hold(&limits, at(3), 80, MicroCredits(1)).unwrap();
    meter.give_back(held);
    assert_eq!(meter.allowance(&limits, Duration::from_secs(3)).tokens.unwrap().remaining, 80);
}

#[test]
fn tokens_beyond_what_was_held_count_from_when_they_are_known() {
    let (mut meter, limits) = (Meter::default(), limits(9, 100, 1_000));
    let held = meter.hold(&limits, at(0), 80, MicroCredits(1)).unwrap();
    meter.settle(held, at(30), 150, MicroCredits(1));
    let left = meter.allowance(&limits, Duration::from_secs(30)).tokens.unwrap();
    assert_eq!((left.remaining, left.reset), (0, Duration::from_secs(61)));
    let over = meter.hold(&limits, at(31), 30, MicroCredits(1)).unwrap_err();
    assert_eq!(over.retry_after, Some(Duration::from_secs(30)), "when what was held is out of the window");
    assert!(meter.hold(&limits, at(61), 31, MicroCredits(1)).is_err(), "70 were taken at 30");
    assert!(meter.hold(&limits, at(61), 30, MicroCredits(1)).is_ok());
    assert_eq!(meter.allowance(&limits, Duration::from_secs(91)).tokens.unwrap().remaining, 70);

    let held = meter.hold(&KeyLimits::default(), at(200), 5, MicroCredits(1)).unwrap();
    meter.settle(held, at(200), 50, MicroCredits(1));
    assert_eq!(meter.left(&limits, at(200)).tokens, 100, "without a limit nothing is counted");
}

#[test]
fn a_days_credits_are_new_at_midnight_and_not_when_the_clock_goes_back() {
    let (mut meter, limits) = (Meter::default(), limits(9, 1_000, 100));
    let held = meter.hold(&limits, at(0), 1, MicroCredits(90)).unwrap();
    let over = meter.hold(&limits, at(0), 1, MicroCredits(11)).unwrap_err();
    assert!(matches!(over.limited, Limited::Spend { left: MicroCredits(10), .. }));
    assert_eq!(over.retry_after, Some(Duration::from_secs(24 * 3600)));
    assert_eq!(meter.hold(&limits, at(0), 1, MicroCredits(101)).unwrap_err().retry_after, None);
    meter.settle(held, at(5), 1, MicroCredits(60));
    assert!(meter.hold(&limits, at(6), 1, MicroCredits(41)).is_err());
    let tomorrow = at(24 * 3600);
    let held = meter.hold(&limits, tomorrow, 1, MicroCredits(100)).unwrap();
    meter.settle(held, tomorrow, 1, MicroCredits(100));
    assert!(meter.hold(&limits, Moment { wall: at(0).wall, ..tomorrow }, 1, MicroCredits(1)).is_err());
}

#[test]
fn a_model_is_admitted_by_its_name_and_nothing_wider() {
    let limits = KeyLimits { models: Some(vec!["llama".into(), "qwen:q4".into()]), ..KeyLimits::default() };
    for good in ["llama", "llama:q4", "llama@sha256:ab", "qwen:q4", "qwen:q4@sha256:ab"] {
        assert!(limits.admits(good), "{good}");
    }
    for bad in ["qwen", "qwen:q8", "llama2", "llam", ""] {
        assert!(!limits.admits(bad), "{bad}");
    }
    assert!(KeyLimits::default().admits("anything"));
}

#[test]
fn a_request_never_reaches_further_than_its_key() {
    let of = |scope| KeyLimits { scope, ..KeyLimits::default() };
    assert_eq!(of(Scope::Circle).scope_of(None), Scope::Circle);
    assert_eq!(of(Scope::Circle).scope_of(Some(Scope::Public)), Scope::Circle);
    assert_eq!(of(Scope::Public).scope_of(Some(Scope::Own)), Scope::Own);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    assert_eq!(limits(1, 1, 1).check(), Ok(()));
    for bad in [limits(0, 1, 1), limits(1, 0, 1), limits(1, 1, 0), limits(1, 1, -1), limits(1, 1, i64::MAX)] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
    for models in
        [vec![], vec![String::new()], vec!["a b".into()], vec!["a\u{7}".into()], vec!["a".into(); 65]]
    {
        let bad = KeyLimits { models: Some(models), ..KeyLimits::default() };
        assert!(bad.check().is_err(), "{bad:?}");
    }
}

#[test]
fn the_brake_holds_longer_each_time_and_forgives() {
    let mut brake = Brake::default();
    let secs = Duration::from_secs;
    let waste = |brake: &mut Brake, now, times| (0..times).for_each(|_| brake.wasted(secs(now)));
    waste(&mut brake, 0, 120);
    assert!(brake.check(secs(0)).is_ok());
    waste(&mut brake, 0, 1);
    assert_eq!(brake.check(secs(1)).unwrap_err().retry_after, Some(secs(9)));
    assert!(brake.check(secs(10)).is_ok());
    waste(&mut brake, 10, 121);
    assert_eq!(brake.check(secs(10)).unwrap_err().retry_after, Some(secs(20)));
    let mut now = 30;
    for _ in 0..10 {
        waste(&mut brake, now, 121);
        now += brake.check(secs(now)).unwrap_err().retry_after.unwrap().as_secs();
    }
    waste(&mut brake, now, 121);
    assert_eq!(brake.check(secs(now)).unwrap_err().retry_after, Some(secs(600)));
    now += 600 + 3601;
    waste(&mut brake, now, 121);
    assert_eq!(brake.check(secs(now)).unwrap_err().retry_after, Some(secs(10)));
}

#[test]
fn who_waits_as_told_is_let_in() {
    let (mut meter, limits) = (Meter::default(), limits(3, 1_000, 1_000));
    let mut now = Duration::ZERO;
    for _ in 0..50 {
        let moment = Moment { since: now, wall: UnixMillis(0) };
        match meter.request(&limits, moment) {
            Ok(()) => now += Duration::from_millis(1300),
            Err(over) => {
                now += over.retry_after.unwrap();
                meter.request(&limits, Moment { since: now, wall: UnixMillis(0) }).unwrap();
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass { ms: u64 },
    Back { hours: i64 },
    Request,
    Hold { tokens: u32, spend: i64 },
    Settle { which: usize, tokens: u32, cost: i64 },
    GiveBack { which: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..40_000).prop_map(|ms| Step::Pass { ms }),
        1 => (20u64..30).prop_map(|hours| Step::Pass { ms: hours * 3_600_000 }),
        1 => (0i64..48).prop_map(|hours| Step::Back { hours }),
        6 => Just(Step::Request),
        6 => (0u32..60, 0i64..60).prop_map(|(tokens, spend)| Step::Hold { tokens, spend }),
        4 => (0usize..8, 0u32..60, 0i64..60).prop_map(|(which, tokens, cost)| Step::Settle { which, tokens, cost }),
        1 => (0usize..8).prop_map(|which| Step::GiveBack { which }),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    /// In no 60 seconds more than the minute's requests and tokens, on no day more than the day's credits: whatever is
    /// asked, settled or given back, and whatever the wall clock does.
    #[test]
    fn no_limit_is_ever_passed(steps in steps(), requests in 1u32..6, tokens in 1u32..100, spend in 1i64..100) {
        let (mut meter, limits) = (Meter::default(), limits(requests, tokens, spend));
        let (mut since, mut back) = (0u64, 0i64);
        let mut asked: Vec<u64> = Vec::new();
        let mut used: Vec<(u64, u32)> = Vec::new();
        let mut open: Vec<(Held, usize, u32, i64)> = Vec::new();
        let mut by_day: BTreeMap<i64, i64> = BTreeMap::new();
        for step in steps {
            let wall = 20_000 * DAY_MS + i64::try_from(since).unwrap() - back;
            let now = Moment { since: Duration::from_millis(since), wall: UnixMillis(wall) };
            match step {
                Step::Pass { ms } => since += ms,
                Step::Back { hours } => back += hours * 3_600_000,
                Step::Request if meter.request(&limits, now).is_ok() => asked.push(since),
                Step::Hold { tokens, spend } => if let Ok(held) = meter.hold(&limits, now, tokens, MicroCredits(spend)) {
                    used.push((since, tokens));
                    open.push((held, used.len() - 1, tokens, spend));
                }
                Step::Settle { which, tokens, cost } if !open.is_empty() => {
                    let which = which % open.len();
                    let (held, index, most, spend) = open.swap_remove(which);
                    let (tokens, cost) = (tokens.min(most), cost.min(spend));
                    meter.settle(held, now, tokens, MicroCredits(cost));
                    used[index].1 = tokens;
                    *by_day.entry(meter.day).or_default() += cost;
                }
                Step::GiveBack { which } if !open.is_empty() => {
                    let which = which % open.len();
                    let (held, index, ..) = open.swap_remove(which);
                    meter.give_back(held);
                    used[index].1 = 0;
                }
                _ => {}
            }
            let within = |from: u64, moment: u64| moment >= from && moment < from + 60_000;
            for from in &asked {
                prop_assert!(asked.iter().filter(|moment| within(*from, **moment)).count() <= requests as usize);
            }
            for (from, _) in &used {
                let sum: u64 = used.iter().filter(|(moment, _)| within(*from, *moment)).map(|(_, n)| u64::from(*n)).sum();
                prop_assert!(sum <= u64::from(tokens));
            }
            prop_assert!(by_day.values().all(|sum| *sum <= spend));
        }
    }
}
