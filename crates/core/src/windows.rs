//! Share windows: the hours in which the host allows sharing, in local time.
//!
//! A window begins and ends at moments, not at clock faces, so that a change to or from summer time neither opens a
//! window twice nor skips it: an hour that does not exist counts as the moment of the change, one that comes twice as
//! its first coming.

mod exceptions;
mod week;

use std::fmt;
use std::str::FromStr;

pub use exceptions::{Exceptions, ExceptionsError, Hours};
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp};
pub use week::Week;

use crate::Now;

/// Days to look ahead for a change: a weekly window may be lost to a change of the clocks once.
const HORIZON_DAYS: i32 = 15;

/// When sharing is allowed: always, never, or in weekly spans.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ShareWindows {
    /// `None` means always; none of them never.
    windows: Option<Vec<ShareWindow>>,
}

/// One weekly span: on the days it begins, from one time of day to another, over midnight where the end is not later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShareWindow {
    first: Weekday,
    last: Weekday,
    /// Minutes after midnight, 0 to 1,439.
    from: i16,
    /// Minutes after midnight, 1 to 1,440 (the end of the day).
    to: i16,
}

impl ShareWindows {
    /// No limit.
    pub const ALWAYS: Self = Self { windows: None };

    /// Whether sharing is allowed at this moment.
    #[must_use]
    pub fn is_open(&self, now: &Now) -> bool {
        self.windows.is_none() || self.open_until(now.wall, &self.spans(now.wall, &now.zone, 0)).is_some()
    }

    /// When that changes next; `None` where it never does.
    #[must_use]
    pub fn next_change(&self, now: &Now) -> Option<Timestamp> {
        self.windows.as_ref()?;
        // Most changes are near, and looking far ahead takes its time.
        self.change_within(now, 2).or_else(|| self.change_within(now, HORIZON_DAYS))
    }

    fn change_within(&self, now: &Now, days: i32) -> Option<Timestamp> {
        let spans = self.spans(now.wall, &now.zone, days);
        if let Some(mut end) = self.open_until(now.wall, &spans) {
            while let Some(later) = self.open_until(end, &spans) {
                end = later;
            }
            // Spans that begin later are not known, and may go on from there.
            let known = jiff::SignedDuration::from_hours(24 * i64::from(days) - 24);
            return (end < now.wall.saturating_add(known).unwrap_or(Timestamp::MAX)).then_some(end);
        }
        spans.iter().map(|span| span.0).filter(|start| *start > now.wall).min()
    }

    /// The end of the longest span that `at` falls into.
    #[expect(clippy::unused_self, reason = "reads as a question to the windows")]
    fn open_until(&self, at: Timestamp, spans: &[(Timestamp, Timestamp)]) -> Option<Timestamp> {
        spans.iter().filter(|(start, end)| *start <= at && at < *end).map(|(_, end)| *end).max()
    }

    /// Every span that begins from the day before `at` until so many `days` after it: its first moment, and the first
    /// after it.
    pub(crate) fn spans(&self, at: Timestamp, zone: &TimeZone, days: i32) -> Vec<(Timestamp, Timestamp)> {
        let today = at.to_zoned(zone.clone()).date();
        let mut spans = Vec::new();
        for ahead in -1..=days {
            let Ok(date) = today.checked_add(Span::new().days(ahead)) else { continue };
            for window in self.windows.iter().flatten().filter(|window| window.begins_on(date.weekday())) {
                let (from, to) = (window.from, window.to);
                let end_date = if to <= from { date.tomorrow().unwrap_or(date) } else { date };
                let span = moment(date, from, zone).zip(moment(end_date, to, zone));
                spans.extend(span.filter(|(start, end)| start < end));
            }
        }
        spans
    }
}

impl ShareWindow {
    fn begins_on(self, day: Weekday) -> bool {
        let from_first = |day: Weekday| {
            (i16::from(day.to_monday_zero_offset()) + 7 - i16::from(self.first.to_monday_zero_offset())) % 7
        };
        from_first(day) <= from_first(self.last)
    }
}

/// The moment at which the clocks in `zone` show `minutes` after midnight of `date`.
fn moment(date: Date, minutes: i16, zone: &TimeZone) -> Option<Timestamp> {
    let (date, minutes) = if minutes == 1440 { (date.tomorrow().ok()?, 0) } else { (date, minutes) };
    let time = Time::new(i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?, 0, 0).ok()?;
    let shown = zone.to_ambiguous_timestamp(date.to_datetime(time));
    if matches!(shown.offset(), AmbiguousOffset::Gap { .. }) {
        let before = shown.earlier().ok()?;
        return zone.following(before).next().map(|change| change.timestamp());
    }
    shown.earlier().ok()
}

/// Why a text is no share windows. Positions count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "at character {position}: {problem} (write `always`, `never`, or `Mon-Fri 22:00-07:00, Sat-Sun 00:00-24:00`)"
)]
pub struct WindowsError {
    /// Where.
    pub position: usize,
    /// What is wrong there.
    pub problem: String,
}

impl FromStr for ShareWindows {
    type Err = WindowsError;

    fn from_str(text: &str) -> Result<Self, WindowsError> {
        if text.trim().eq_ignore_ascii_case("always") {
            return Ok(Self::ALWAYS);
        }
        if text.trim().eq_ignore_ascii_case("never") {
            return Ok(Self { windows: Some(Vec::new()) });
        }
        Self::weekly(text, 1)
    }
}

impl ShareWindows {
    /// Reads weekly spans out of a longer text, in which they begin at this position.
    pub(crate) fn weekly(text: &str, mut position: usize) -> Result<Self, WindowsError> {
        let mut windows = Vec::new();
        for entry in text.split(',') {
            windows.push(Reader { rest: entry, position }.window()?);
            position += entry.chars().count() + 1;
        }
        Ok(Self { windows: Some(windows) })
    }
}

struct Reader<'a> {
    rest: &'a str,
    position: usize,
}

impl<'a> Reader<'a> {
    fn window(mut self) -> Result<ShareWindow, WindowsError> {
        self.skip_space();
        let (mut first, mut last) = (Weekday::Monday, Weekday::Sunday);
        if self.rest.starts_with(|c: char| c.is_alphabetic()) {
            first = self.day()?;
            last = first;
            if self.rest.trim_start().starts_with('-') {
                self.expect('-', "")?;
                last = self.day()?;
            }
            if self.rest.trim().is_empty() {
                return Ok(ShareWindow { first, last, from: 0, to: 1440 });
            }
        }
        let from = self.time()?;
        if from == 1440 {
            return Err(self.wrong("a window cannot begin at 24:00; write 00:00 of the next day"));
        }
        self.expect('-', "between two times")?;
        let to = self.time()?;
        self.skip_space();
        if !self.rest.is_empty() {
            return Err(self.wrong(&format!("{:?} is too much; windows are separated by commas", self.rest)));
        }
        if from == to {
            return Err(self.wrong("begins and ends at the same time; a whole day is 00:00-24:00"));
        }
        // 07:00-00:00 ends with the day.
        Ok(ShareWindow { first, last, from, to: if to == 0 { 1440 } else { to } })
    }

    fn day(&mut self) -> Result<Weekday, WindowsError> {
        self.skip_space();
        let (position, word) = (self.position, self.take(char::is_alphabetic));
        let names = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        let lower = word.to_lowercase();
        names
            .iter()
            .position(|name| lower.len() >= 3 && name.starts_with(&lower))
            .and_then(|day| i8::try_from(day).ok())
            .and_then(|day| Weekday::from_monday_zero_offset(day).ok())
            .ok_or_else(|| WindowsError { position, problem: format!("{word:?} is no day of the week") })
    }

    fn time(&mut self) -> Result<i16, WindowsError> {
        self.skip_space();
        let position = self.position;
        let hours = self.take(|c| c.is_ascii_digit());
        let minutes = if self.rest.starts_with(':') {
            self.expect(':', "")?;
            self.take(|c| c.is_ascii_digit())
        } else {
            ""
        };
        let number = |text: &str| text.parse::<i16>().ok().filter(|_| (1..=2).contains(&text.len()));
        number(hours)
            .zip(number(minutes).filter(|minutes| *minutes < 60))
            .map(|(hours, minutes)| hours * 60 + minutes)
            .filter(|minutes| *minutes <= 1440)
            .ok_or_else(|| WindowsError {
                position,
                problem: "a time of day must be here, such as 22:00".into(),
            })
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.position += taken.chars().count();
        taken
    }

    fn expect(&mut self, wanted: char, place: &str) -> Result<(), WindowsError> {
        self.skip_space();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                self.position += 1;
                Ok(())
            }
            None => Err(self.wrong(&format!("a {wanted:?} is missing {place}"))),
        }
    }

    fn skip_space(&mut self) {
        self.take(char::is_whitespace);
    }

    fn wrong(&self, problem: &str) -> WindowsError {
        WindowsError { position: self.position, problem: problem.to_owned() }
    }
}

impl fmt::Display for ShareWindows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(windows) = &self.windows else { return f.write_str("always") };
        if windows.is_empty() {
            return f.write_str("never");
        }
        for (index, window) in windows.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{window}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ShareWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let name = |day: Weekday| {
            usize::try_from(day.to_monday_zero_offset()).ok().and_then(|day| DAYS.get(day)).unwrap_or(&"")
        };
        f.write_str(name(self.first))?;
        if self.first != self.last {
            write!(f, "-{}", name(self.last))?;
        }
        let (from, to) = (self.from, self.to);
        write!(f, " {:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn berlin(local: &str) -> Now {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let wall = if local.ends_with('Z') {
            local.parse().unwrap()
        } else {
            local.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone.clone()).unwrap().timestamp()
        };
        Now { monotonic: Instant::now(), wall, zone }
    }

    fn windows(text: &str) -> ShareWindows {
        text.parse().unwrap()
    }

    fn next(text: &str, local: &str) -> Option<String> {
        let now = berlin(local);
        let change = windows(text).next_change(&now)?;
        Some(change.to_zoned(now.zone).strftime("%a %d %H:%M%:z").to_string())
    }

    // 2026-11-21 is a Saturday.

    #[test]
    fn nights_and_whole_days_open_and_close_when_they_say() {
        let text = "Mon-Fri 22:00-07:00, Sat-Sun 00:00-24:00";
        for (local, open) in [
            ("2026-11-20T21:59", false),
            ("2026-11-20T22:00", true),
            ("2026-11-21T03:00", true),
            ("2026-11-22T23:59", true),
            ("2026-11-23T00:00", false),
            ("2026-11-23T06:00", false),
            ("2026-11-24T06:59", true),
            ("2026-11-24T07:00", false),
        ] {
            assert_eq!(windows(text).is_open(&berlin(local)), open, "{local}");
        }
        assert_eq!(next(text, "2026-11-20T12:00").unwrap(), "Fri 20 22:00+01:00");
        // Friday night runs into the weekend, which ends on Sunday at midnight.
        assert_eq!(next(text, "2026-11-20T23:00").unwrap(), "Mon 23 00:00+01:00");
    }

    #[test]
    fn several_windows_a_day_are_each_open() {
        let text = "09:00-10:00, 12:00-13:30";
        assert_eq!(next(text, "2026-11-21T08:00").unwrap(), "Sat 21 09:00+01:00");
        assert_eq!(next(text, "2026-11-21T09:30").unwrap(), "Sat 21 10:00+01:00");
        assert_eq!(next(text, "2026-11-21T10:00").unwrap(), "Sat 21 12:00+01:00");
        assert_eq!(next(text, "2026-11-21T13:30").unwrap(), "Sun 22 09:00+01:00");
    }

    #[test]
    fn what_never_opens_never_changes() {
        let now = berlin("2026-11-21T12:00");
        assert!(!windows(" Never ").is_open(&now));
        assert_eq!(windows("never").next_change(&now), None);
        assert_eq!(windows("never").to_string(), "never");
        assert!("never, Mon".parse::<ShareWindows>().is_err());
    }

    #[test]
    fn what_is_always_open_never_changes() {
        assert_eq!(next("always", "2026-11-21T12:00"), None);
        assert_eq!(next("Mon-Sun 00:00-24:00", "2026-11-21T12:00"), None);
        assert_eq!(next("00:00-12:00, 12:00-24:00", "2026-11-21T12:00"), None);
        assert!(windows("Mon-Sun 00:00-24:00").is_open(&berlin("2026-11-21T12:00")));
    }

    #[test]
    fn days_may_run_over_the_end_of_the_week() {
        for (local, open) in
            [("2026-11-20T10:00", true), ("2026-11-23T10:00", true), ("2026-11-24T10:00", false)]
        {
            assert_eq!(windows("Fri-Mon 09:00-17:00").is_open(&berlin(local)), open, "{local}");
        }
    }

    /// On 2026-03-29 the clocks in Berlin go from 02:00 to 03:00.
    #[test]
    fn an_hour_that_does_not_exist_is_the_moment_of_the_change() {
        assert_eq!(next("01:00-02:30", "2026-03-29T01:30").unwrap(), "Sun 29 03:00+02:00");
        assert_eq!(next("02:30-06:00", "2026-03-29T01:30").unwrap(), "Sun 29 03:00+02:00");
        // A window that lies wholly in it does not come that night.
        assert_eq!(next("02:10-02:50", "2026-03-29T01:30").unwrap(), "Mon 30 02:10+02:00");
        let night = windows("22:00-07:00");
        assert!(night.is_open(&berlin("2026-03-29T03:30")));
        assert_eq!(next("22:00-07:00", "2026-03-28T23:00").unwrap(), "Sun 29 07:00+02:00");
    }

    /// On 2026-10-25 the clocks in Berlin go from 03:00 back to 02:00.
    #[test]
    fn an_hour_that_comes_twice_counts_from_its_first_coming() {
        let (first, second) = ("2026-10-25T00:15:00Z", "2026-10-25T01:15:00Z"); // both 02:15
        assert!(windows("01:00-02:30").is_open(&berlin(first)));
        assert!(!windows("01:00-02:30").is_open(&berlin(second)));
        assert!(windows("02:30-06:00").is_open(&berlin(second)));
        assert_eq!(next("01:00-02:30", first).unwrap(), "Sun 25 02:30+02:00");
        assert_eq!(next("02:30-06:00", second).unwrap(), "Sun 25 06:00+01:00");
        assert_eq!(next("00:00-02:30, 02:30-24:00", "2026-10-25T00:30"), None);
    }

    #[test]
    fn windows_read_back_what_they_write() {
        for (text, written) in [
            ("Always", "always"),
            ("mon-FRI 22:00-7:00,saturday 0:00-24:00", "Mon-Fri 22:00-07:00, Sat 00:00-24:00"),
            ("8:30-0:00", "Mon-Sun 08:30-24:00"),
            ("Sat - Sun, Wed", "Sat-Sun 00:00-24:00, Wed 00:00-24:00"),
        ] {
            let read = windows(text);
            assert_eq!(read.to_string(), written);
            assert_eq!(windows(written), read);
        }
    }

    #[test]
    fn an_error_names_the_place_and_the_problem() {
        let errors: Vec<String> = [
            "",
            "nights",
            "Mon 22:00",
            "Mon-Fry 22:00-07:00",
            "Mon 22:00-25:00",
            "Mon 22:00-07:60",
            "Mon 08:00-08:00",
            "Mon 24:00-07:00",
            "Mon-Fri 22:00-07:00; Sat 00:00-24:00",
            "Mon-Fri 22:00-07:00, ",
        ]
        .iter()
        .map(|text| format!("{text:?} {}", text.parse::<ShareWindows>().unwrap_err()))
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
