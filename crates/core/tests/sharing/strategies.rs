//! Random places, rules and weeks.

use std::time::{Duration, Instant};

use idlewatt_core::Now;
use idlewatt_core::policy::{Battery, Settings};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

use crate::world::Event;

/// Weekly hours as they are written, and as they are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Days on which it begins, 0 for Monday.
    pub(crate) first: i8,
    pub(crate) last: i8,
    /// Minutes after midnight.
    pub(crate) from: i16,
    pub(crate) to: i16,
}

/// A stretch that is different, in minutes after the midnight of the day on which the trace begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exception {
    pub(crate) from: i32,
    pub(crate) to: i32,
    pub(crate) open: bool,
}

/// Settings, with hours that a test can look up by other means.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) windows: Vec<Window>,
    pub(crate) exceptions: Vec<Exception>,
    pub(crate) start: Now,
    pub(crate) rest: Settings,
}

impl Rules {
    pub(crate) fn settings(&self) -> Settings {
        const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let day = |day: i8| DAYS[usize::try_from(day).unwrap()];
        let clock = |minutes: i32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let windows = self.windows.iter().map(|it| {
            let (from, to) = (clock(it.from.into()), clock(it.to.into()));
            format!("{}-{} {from}-{to}", day(it.first), day(it.last))
        });
        let today = self.start.local().date();
        let moment = |minutes: i32| {
            let date = today.checked_add(jiff::Span::new().days(minutes.div_euclid(1440))).unwrap();
            format!("{date} {}", clock(minutes.rem_euclid(1440)))
        };
        let exceptions = self.exceptions.iter().map(|it| {
            let word = if it.open { "open" } else { "closed" };
            format!("{} - {} {word}", moment(it.from), moment(it.to))
        });
        let windows: Vec<String> = windows.collect();
        Settings {
            windows: if windows.is_empty() { "always".to_owned() } else { windows.join(", ") }
                .parse()
                .unwrap(),
            exceptions: exceptions.collect::<Vec<_>>().join("; ").parse().unwrap(),
            ..self.rest.clone()
        }
    }
}

/// Days around changes of the clocks, and others, in zones that change them in their own ways.
pub(crate) fn place_and_time() -> impl Strategy<Value = Now> {
    const PLACES: [(&str, &str); 8] = [
        ("Europe/Berlin", "2026-03-28T12:00:00Z"),
        ("Europe/Berlin", "2026-10-24T12:00:00Z"),
        ("America/New_York", "2026-03-07T17:00:00Z"),
        ("America/New_York", "2026-10-31T17:00:00Z"),
        // Half an hour.
        ("Australia/Lord_Howe", "2026-04-04T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T00:00:00Z"),
        ("Asia/Kolkata", "2026-07-01T00:00:00Z"),
        ("UTC", "2026-11-21T00:00:00Z"),
    ];
    (select(&PLACES[..]), 0_i64..24 * 3600).prop_map(|((zone, wall), seconds)| Now {
        monotonic: Instant::now() + Duration::from_secs(10_000_000),
        wall: wall.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds),
        zone: TimeZone::get(zone).unwrap(),
    })
}

pub(crate) fn rules(start: &Now) -> impl Strategy<Value = Rules> + use<> {
    // Often at the hours in which clocks change.
    let minute = || Union::new([(0_i16..1440).boxed(), (100_i16..200).boxed()]);
    let window = (0_i8..7, 0_i8..7, minute(), minute())
        .prop_filter_map("it has a length", |(first, last, from, to)| {
            (from != to).then_some(Window { first, last, from, to })
        });
    let exception = (-600_i32..5000, 1_i32..2000, any::<bool>()).prop_map(|(from, length, open)| Exception {
        from,
        to: from + length,
        open,
    });
    let hours = (proptest::collection::vec(window, 0..4), proptest::collection::vec(exception, 0..3));
    let start = start.clone();
    (hours, rest()).prop_map(move |((windows, exceptions), rest)| Rules {
        windows,
        exceptions,
        start: start.clone(),
        rest,
    })
}

/// Everything but hours.
pub(crate) fn rest() -> impl Strategy<Value = Settings> {
    let person = (select(&[0_u64, 1, 90, 600, 1500][..]), 0_u64..600, any::<(bool, bool, bool)>());
    let programs = (any::<(bool, bool, bool)>(), select(&["blender=cap, obs=cap", "blender, obs=cap"][..]));
    let memory = proptest::option::of(1_000_000_000_u64..6_000_000_000);
    let cards = (proptest::option::of(5_u8..60), memory, select(&[0_u64, 120, 1200][..]), 65_i32..88);
    let battery = Union::new([Just(Battery::Never).boxed(), (0_u8..=100).prop_map(Battery::From).boxed()]);
    let machine = (battery, any::<(bool, bool, bool)>(), price());
    (person, programs, cards, machine).prop_map(|(person, programs, cards, machine)| {
        let (idle, hysteresis, (while_active, locked_is_away, remote_logins)) = person;
        let ((games, full_screen, calls), apps) = programs;
        let (gpu_load, gpu_memory, gpu_idle, thermal_limit_c) = cards;
        let (battery, (lid_closed, metered, memory_short), max_price) = machine;
        Settings {
            idle_after: Duration::from_secs(idle),
            resume_hysteresis: Duration::from_secs(hysteresis),
            while_active,
            locked_is_away,
            remote_logins,
            games,
            full_screen,
            calls,
            apps: apps.parse().unwrap(),
            gpu_load,
            gpu_memory,
            gpu_idle_after: Duration::from_secs(gpu_idle),
            thermal: idlewatt_core::device::ThermalLimits::every(thermal_limit_c),
            battery,
            lid_closed,
            metered,
            memory_short,
            tariff: Some(
                "0.31 EUR/kWh; Mon-Fri 22:00-06:00 0.22; Sat-Sun 0.25; 02:00-03:00 0.10".parse().unwrap(),
            ),
            max_price: max_price.map(|price| idlewatt_core::tariff::Money::of_kilowatt_hour(price).unwrap()),
            ..Settings::default()
        }
    })
}

/// The dearest first.
pub(crate) const PRICES: [&str; 3] = ["0.40 EUR/kWh", "0.25 EUR/kWh", "0.15 EUR/kWh"];

fn price() -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::weighted(0.4, select(&PRICES[..]))
}

/// A few days in which much happens, seconds after each other.
pub(crate) fn trace() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let seconds = Union::new([(1_u64..10).boxed(), (10_u64..900).boxed(), (900_u64..15_000).boxed()]);
    proptest::collection::vec((seconds, event()), 1..40)
}

/// One or two things that come and go, seconds after each other; none of them by command of the host.
pub(crate) fn flapping() -> impl Strategy<Value = Vec<(u64, Event)>> {
    use Event::*;
    const KINDS: [fn(bool) -> Event; 15] = [
        |on| if on { Input } else { Quiet },
        |on| if on { Blind } else { NobodyLoggedIn },
        Locked,
        DisplaysOff,
        Game,
        FullScreen,
        Call,
        Lid,
        Metered,
        MemoryShort,
        OwnUse,
        |on| Listed(on, false),
        |on| RemoteLogins(on.into()),
        |on| Supply(on.then_some(50)),
        |on| Heat(if on { 90 } else { 50 }),
    ];
    let two = (0..KINDS.len(), 0..KINDS.len());
    let step = (1_u64..300, any::<(bool, bool)>());
    (two, proptest::collection::vec(step, 5..60)).prop_map(|((one, other), steps)| {
        let event = |(seconds, (which, on))| (seconds, KINDS[if which { one } else { other }](on));
        steps.into_iter().map(event).collect()
    })
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let flag = |make: fn(bool) -> Event| any::<bool>().prop_map(make).boxed();
    Union::new([
        Just(Input).boxed(),
        Just(Quiet).boxed(),
        Just(Quiet).boxed(),
        Just(NobodyLoggedIn).boxed(),
        Just(Blind).boxed(),
        flag(Locked),
        flag(DisplaysOff),
        flag(Game),
        flag(FullScreen),
        flag(Call),
        any::<(bool, bool)>().prop_map(|(pauses, lowers)| Listed(pauses, lowers)).boxed(),
        (0_u32..3).prop_map(RemoteLogins).boxed(),
        (0_u8..80, 0_u64..8_000_000_000).prop_map(|(load, memory)| Foreign(load, memory)).boxed(),
        proptest::option::of(0_u8..=100).prop_map(Supply).boxed(),
        flag(Lid),
        flag(Metered),
        flag(MemoryShort),
        flag(Sleep),
        (60_i32..90).prop_map(Heat).boxed(),
        flag(OwnUse),
        proptest::option::of(1_u64..5_000).prop_map(Pause).boxed(),
        Just(Resume).boxed(),
        (1_u64..20_000).prop_map(ShareNow).boxed(),
    ])
}
