//! Hours, looked up minute by minute on a calendar.

use idlewatt_core::Now;
use jiff::civil::DateTime;
use jiff::{Span, Timestamp, ToSpan};

use crate::strategies::Rules;

/// When sharing is allowed: stretches of moments.
pub(crate) struct Hours {
    /// `None` where it always is.
    week: Option<Vec<(Timestamp, Timestamp)>>,
    exceptions: Vec<(Timestamp, Timestamp, bool)>,
}

/// What clocks show at each minute.
struct Clock(Vec<(Timestamp, DateTime)>);

impl Clock {
    fn around(start: &Now, days: i64) -> Self {
        let begin = start.wall.as_second() / 60 * 60 - 3 * 86_400;
        let minutes = (0..(days + 3) * 1440).map(|minute| {
            let at = Timestamp::from_second(begin + minute * 60).unwrap();
            (at, at.to_zoned(start.zone.clone()).datetime())
        });
        Self(minutes.collect())
    }

    /// The first moment at which clocks show this or more.
    fn first(&self, shown: DateTime) -> Timestamp {
        self.0.iter().find(|(_, clock)| *clock >= shown).unwrap().0
    }
}

impl Hours {
    /// For the week from a start on.
    pub(crate) fn of(rules: &Rules, start: &Now) -> Self {
        let clock = Clock::around(start, 11);
        let today = start.local().date();
        let at = |days: i32, minutes: i32| {
            let midnight = today.checked_add(Span::new().days(days)).unwrap().at(0, 0, 0, 0);
            clock.first(midnight.checked_add(minutes.minutes()).unwrap())
        };
        let mut week = Vec::new();
        for days in -2..8 {
            let weekday =
                today.checked_add(Span::new().days(days)).unwrap().weekday().to_monday_zero_offset();
            for window in &rules.windows {
                if (weekday + 7 - window.first) % 7 <= (window.last + 7 - window.first) % 7 {
                    let over_midnight = if window.to <= window.from { 1440 } else { 0 };
                    week.push((at(days, window.from.into()), at(days, i32::from(window.to) + over_midnight)));
                }
            }
        }
        let exceptions = rules.exceptions.iter().map(|it| (at(0, it.from), at(0, it.to), it.open)).collect();
        Self { week: (!rules.windows.is_empty()).then_some(week), exceptions }
    }

    pub(crate) fn are_open(&self, now: &Now) -> bool {
        let holds = |from: &Timestamp, to: &Timestamp| *from <= now.wall && now.wall < *to;
        let said = |open: bool| self.exceptions.iter().any(|(from, to, is)| *is == open && holds(from, to));
        let week = || self.week.as_ref().is_none_or(|spans| spans.iter().any(|(from, to)| holds(from, to)));
        !said(false) && (said(true) || week())
    }
}
