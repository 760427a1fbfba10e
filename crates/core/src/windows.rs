//! Share windows: the hours in which the host allows sharing, in local time.
//!
//! A window begins and ends at moments, not at clock faces, so that a change to or from summer time neither opens a
//! window twice nor skips it: an hour that does not exist counts as the moment of the change, one that comes twice as
//! its first coming.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp};

use crate::Now;

/// Days to look ahead for a change: a weekly window may be lost to a change of the clocks once.
const HORIZON_DAYS: i32 = 15;

/// When sharing is allowed: always, or in weekly spans.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ShareWindows {
    /// Empty means always.
    windows: Vec<ShareWindow>,
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
    pub const ALWAYS: Self = Self { windows: Vec::new() };

    /// Whether sharing is allowed at this moment.
    #[must_use]
    pub fn is_open(&self, now: &Now) -> bool {
        self.windows.is_empty() || self.open_until(now.wall, &self.around(now)).is_some()
    }

    /// When that changes next; `None` where it never does.
    #[must_use]
    pub fn next_change(&self, now: &Now) -> Option<Timestamp> {
        if self.windows.is_empty() {
            return None;
        }
        let spans = self.around(now);
        if let Some(mut end) = self.open_until(now.wall, &spans) {
            while let Some(later) = self.open_until(end, &spans) {
                end = later;
            }
            let horizon =
                now.wall.checked_add(jiff::SignedDuration::from_hours(24 * 8)).unwrap_or(Timestamp::MAX);
            return (end < horizon).then_some(end);
        }
        spans.iter().map(|span| span.0).filter(|start| *start > now.wall).min()
    }

    /// The end of the longest span that `at` falls into.
    #[expect(clippy::unused_self, reason = "reads as a question to the windows")]
    fn open_until(&self, at: Timestamp, spans: &[(Timestamp, Timestamp)]) -> Option<Timestamp> {
        spans.iter().filter(|(start, end)| *start <= at && at < *end).map(|(_, end)| *end).max()
    }

    /// Every span that begins from yesterday until the horizon.
    fn around(&self, now: &Now) -> Vec<(Timestamp, Timestamp)> {
        let today = now.local().date();
        let mut spans = Vec::new();
        for ahead in -1..=HORIZON_DAYS {
            let Ok(date) = today.checked_add(Span::new().days(ahead)) else { continue };
            for window in self.windows.iter().filter(|window| window.begins_on(date.weekday())) {
                let (from, to) = (window.from, window.to);
                let end_date = if to <= from { date.tomorrow().unwrap_or(date) } else { date };
                let span = moment(date, from, &now.zone).zip(moment(end_date, to, &now.zone));
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
#[error("at character {position}: {problem} (write `always`, or `Mon-Fri 22:00-07:00, Sat-Sun 00:00-24:00`)")]
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
        let mut windows = Vec::new();
        let mut position = 1;
        for entry in text.split(',') {
            windows.push(Reader { rest: entry, position }.window()?);
            position += entry.chars().count() + 1;
        }
        Ok(Self { windows })
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
                problem: "a time of day is missing, such as 22:00".into(),
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
        if self.windows.is_empty() {
            return f.write_str("always");
        }
        for (index, window) in self.windows.iter().enumerate() {
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
