use std::time::Instant;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

const H: u64 = 3_600_000;
const MIN: u64 = 60_000;

/// 2026-11-21 is a Saturday.
fn at(local: &str) -> Now {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let wall = local.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone.clone()).unwrap().timestamp();
    Now { monotonic: Instant::now(), wall, zone }
}

fn ms(local: &str) -> UnixMillis {
    at(local).unix()
}

fn span(since: &str, until: &str, doing: Doing) -> Span {
    Span { since: ms(since), until: ms(until), doing }
}

fn allowed(since: &str, windows: &str) -> Allowed {
    Allowed { since: ms(since), windows: windows.parse().unwrap(), exceptions: Exceptions::default() }
}

fn parts(day: &Day) -> u64 {
    day.shared + day.offline + day.slept + day.off + day.paused.iter().map(|(_, ms)| ms).sum::<u64>()
}

#[test]
fn a_night_that_was_slept_through_is_told() {
    let spans = [
        span("2026-11-19T22:00", "2026-11-20T00:20", Doing::Sharing),
        span("2026-11-20T00:20", "2026-11-20T06:00", Doing::Paused(PauseCode::Asleep)),
        span("2026-11-20T06:00", "2026-11-20T07:00", Doing::Paused(PauseCode::PersonHere)),
        span("2026-11-20T07:00", "2026-11-20T23:00", Doing::Paused(PauseCode::OutsideWindow)),
    ];
    let days = hours(1, &spans, &[allowed("2026-11-19T22:00", "00:00-09:00")], &at("2026-11-20T12:00"));
    let [day] = days.as_slice() else { panic!("{days:?}") };
    assert_eq!((day.window, day.shared, day.slept, day.off), (9 * H, 20 * MIN, 5 * H + 40 * MIN, 0));
    assert_eq!(day.paused, [(PauseCode::OutsideWindow, 2 * H), (PauseCode::PersonHere, H)]);
    assert!(day.slept_too_much());
    assert_eq!(day.sentence().unwrap(), "Your PC slept 5 h 40 of your 9 h window so far.");
    let later = hours(2, &spans, &[allowed("2026-11-19T22:00", "00:00-09:00")], &at("2026-11-21T12:00"));
    assert_eq!(later[1].sentence().unwrap(), "Your PC slept 5 h 40 of your 9 h window.");
    // Nobody ran on Saturday.
    assert_eq!((later[0].window, later[0].off), (9 * H, 9 * H));
    assert_eq!(
        later[0].sentence().unwrap(),
        "Your PC was off, or Idlewatt did not run, for 9 h of your 9 h window so far."
    );
}

#[test]
fn what_was_shared_for_the_most_part_needs_no_reason() {
    let spans = [
        span("2026-11-20T00:00", "2026-11-20T05:00", Doing::Sharing),
        span("2026-11-20T05:00", "2026-11-20T09:00", Doing::Paused(PauseCode::Asleep)),
    ];
    let days = hours(1, &spans, &[allowed("2026-11-20T00:00", "00:00-09:00")], &at("2026-11-20T23:00"));
    assert_eq!((days[0].shared, days[0].slept, days[0].sentence()), (5 * H, 4 * H, None));
    assert!(!days[0].slept_too_much());
}

#[test]
fn a_stretch_of_which_nothing_is_known_did_not_run() {
    let spans = [
        span("2026-11-20T00:00", "2026-11-20T02:00", Doing::Sharing),
        span("2026-11-20T03:30", "2026-11-20T12:00", Doing::Sharing),
    ];
    let days = hours(9, &spans, &[allowed("2026-11-20T00:00", "always")], &at("2026-11-20T12:00"));
    assert_eq!(days.len(), 1, "nothing is known of before");
    assert_eq!((days[0].window, days[0].shared, days[0].off), (12 * H, 10 * H + 30 * MIN, 90 * MIN));
}

#[test]
fn the_first_day_counts_from_its_first_moment() {
    let spans = [span("2026-11-20T10:00", "2026-11-20T12:00", Doing::Sharing)];
    let days = hours(9, &spans, &[allowed("2026-11-20T10:00", "always")], &at("2026-11-20T12:00"));
    assert_eq!((days[0].window, days[0].shared), (2 * H, 2 * H));
}

/// On 2026-03-29 the clocks in Berlin go from 02:00 to 03:00, on 2026-10-25 from 03:00 back to 02:00.
#[test]
fn a_day_of_23_or_25_hours_has_as_many() {
    for (day, next, length) in [("2026-03-29", "2026-03-30", 23), ("2026-10-25", "2026-10-26", 25)] {
        let (begins, ends) = (format!("{day}T00:00"), format!("{next}T00:00"));
        let spans = [span(&begins, &ends, Doing::Sharing)];
        let days = hours(2, &spans, &[allowed(&begins, "always")], &at(&format!("{next}T08:00")));
        assert_eq!((days[1].window, days[1].shared), (length * H, length * H), "{day}");
        let days = hours(2, &spans, &[allowed(&begins, "01:00-06:00")], &at(&format!("{next}T08:00")));
        assert_eq!(days[1].window, (length - 19) * H, "{day}");
    }
}

#[test]
fn hours_that_the_host_changed_count_from_then_on() {
    let rules = [allowed("2026-11-20T00:00", "00:00-06:00"), allowed("2026-11-20T03:00", "20:00-22:00")];
    let spans = [span("2026-11-20T00:00", "2026-11-21T00:00", Doing::Sharing)];
    let days = hours(2, &spans, &rules, &at("2026-11-21T00:00"));
    assert_eq!(days[1].window, 5 * H);
}

#[test]
fn a_clock_that_was_set_back_counts_nothing_twice() {
    let spans = [
        span("2026-11-20T08:00", "2026-11-20T14:00", Doing::Paused(PauseCode::PersonHere)),
        span("2026-11-20T10:00", "2026-11-20T11:00", Doing::Sharing),
    ];
    let days = hours(1, &spans, &[allowed("2026-11-20T08:00", "always")], &at("2026-11-20T14:00"));
    assert_eq!((days[0].window, days[0].shared), (6 * H, H));
    assert_eq!(days[0].paused, [(PauseCode::PersonHere, 5 * H)]);
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        Just(Doing::Sharing),
        Just(Doing::Offline),
        Just(Doing::Paused(PauseCode::Asleep)),
        Just(Doing::Paused(PauseCode::PersonHere)),
        Just(Doing::Paused(PauseCode::Game)),
    ]
}

/// A clock that mostly goes on, and now and then is set.
fn lives() -> impl Strategy<Value = Vec<Span>> {
    let step = (0_i64..9 * 3_600_000, -90_000_000_i64..90_000_000, 0_u8..8, doing());
    proptest::collection::vec(step, 1..60).prop_map(|steps| {
        let mut clock = ms("2026-10-22T00:00").0;
        let mut spans = Vec::new();
        for (length, set, whether, doing) in steps {
            clock += if whether == 0 { set } else { 0 };
            spans.push(Span { since: UnixMillis(clock), until: UnixMillis(clock + length), doing });
            clock += length;
        }
        spans
    })
}

proptest! {
    #[test]
    fn a_days_hours_add_up_to_the_millisecond(
        spans in lives(),
        windows in prop_oneof![
            Just("always"),
            Just("22:00-07:00"),
            Just("Mon-Fri 02:30-02:45, Sat-Sun 00:00-24:00"),
            Just("00:00-12:00, 06:00-18:00"),
        ],
        zone in prop_oneof![Just("Europe/Berlin"), Just("America/New_York"), Just("Australia/Lord_Howe"), Just("UTC")],
        changed in 0_i64..12 * 86_400_000,
    ) {
        let begin = spans.iter().map(|it| it.since).min().unwrap();
        let end = spans.iter().map(|it| it.until.0).max().unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let wall = Timestamp::from_millisecond(end).unwrap();
        let now = Now { monotonic: Instant::now(), wall, zone };
        let rule = |since: i64, text: &str| Allowed {
            since: UnixMillis(since),
            windows: text.parse().unwrap(),
            exceptions: Exceptions::default(),
        };
        let rules = [rule(begin.0, windows), rule(begin.0 + changed, "12:00-13:00")];
        for day in hours(40, &spans, &rules, &now) {
            prop_assert_eq!(parts(&day), day.window, "{:?}", day);
            prop_assert!(day.window <= 25 * H);
        }
        let always = [rule(begin.0, "always")];
        let whole: u64 = hours(400, &spans, &always, &now).iter().map(|it| it.window).sum();
        prop_assert_eq!(whole, u64::try_from(end - begin.0).unwrap(), "all days together are all the time");
    }
}
