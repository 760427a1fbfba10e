//! One-off exceptions from the weekly windows: holidays, a party, a night that is to be shared after all.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{Reader, ShareWindows, WindowsError, moment};
use crate::Now;

/// Stretches of time, each open or closed whatever the week says. Where two overlap, closed counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions(Vec<Exception>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    from: Minute,
    to: Minute,
    open: bool,
}

/// A local date, and minutes after its midnight, 0 to 1,440.
type Minute = (Date, i16);

/// The hours in which the host allows sharing: the week, and the exceptions from it.
#[derive(Clone, Copy, Debug)]
pub struct Hours<'a> {
    /// The week.
    pub windows: &'a ShareWindows,
    /// What is different.
    pub exceptions: &'a Exceptions,
}

impl Hours<'_> {
    /// Whether sharing is allowed at this moment.
    #[must_use]
    pub fn is_open(&self, now: &Now) -> bool {
        match self.exceptions.at(now.wall, &now.zone) {
            Some((open, _)) => open,
            None => self.windows.is_open(now),
        }
    }

    /// When that changes next; `None` where it never does.
    #[must_use]
    pub fn next_change(&self, now: &Now) -> Option<Timestamp> {
        let open = self.is_open(now);
        let mut at = now.clone();
        // Each step leaves a stretch of the week or of an exception behind.
        loop {
            at.wall = match self.exceptions.at(at.wall, &at.zone) {
                Some((_, until)) => until,
                None => {
                    let week = self.windows.next_change(&at);
                    let exception = self.exceptions.next(at.wall, &at.zone);
                    week.into_iter().chain(exception).min()?
                }
            };
            if self.is_open(&at) != open {
                return Some(at.wall);
            }
        }
    }
}

impl Exceptions {
    /// Whether an exception holds at this moment: what it says, and the first moment at which this may be different.
    fn at(&self, at: Timestamp, zone: &TimeZone) -> Option<(bool, Timestamp)> {
        let spans: Vec<_> = self.spans(zone).filter(|(_, end, _)| *end > at).collect();
        let open = spans.iter().filter(|(start, ..)| *start <= at).map(|(.., open)| *open).min()?;
        let edges = spans.iter().flat_map(|(start, end, _)| [*start, *end]);
        edges.filter(|edge| *edge > at).min().map(|until| (open, until))
    }

    /// When the next one begins.
    fn next(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.spans(zone).map(|(start, ..)| start).filter(|start| *start > at).min()
    }

    fn spans(&self, zone: &TimeZone) -> impl Iterator<Item = (Timestamp, Timestamp, bool)> {
        self.0.iter().filter_map(move |it| {
            let (start, end) = (moment(it.from.0, it.from.1, zone)?, moment(it.to.0, it.to.1, zone)?);
            (start < end).then_some((start, end, it.open))
        })
    }
}

/// Why a text is no exceptions. Positions count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "at character {position}: {problem} (write `2026-12-24 18:00 - 2026-12-26 12:00 closed; 2026-12-31 20:00-23:00 open`)"
)]
pub struct ExceptionsError {
    /// Where.
    pub position: usize,
    /// What is wrong there.
    pub problem: String,
}

impl From<WindowsError> for ExceptionsError {
    fn from(WindowsError { position, problem }: WindowsError) -> Self {
        Self { position, problem }
    }
}

impl FromStr for Exceptions {
    type Err = ExceptionsError;

    /// `2026-12-24 18:00 - 2026-12-26 12:00 closed; 2026-12-31 20:00 - 23:00 open`
    fn from_str(text: &str) -> Result<Self, ExceptionsError> {
        let mut exceptions = Vec::new();
        let mut position = 1;
        for entry in text.split(';') {
            if !entry.trim().is_empty() {
                exceptions.push(Reader { rest: entry, position }.exception()?);
            }
            position += entry.chars().count() + 1;
        }
        Ok(Self(exceptions))
    }
}

impl Reader<'_> {
    fn exception(mut self) -> Result<Exception, WindowsError> {
        let from = (self.date()?, self.time_or(0)?);
        self.skip_space();
        // `2026-12-24 closed` is the whole day.
        let to = if self.rest.starts_with(|c: char| c.is_alphabetic()) {
            (from.0, 1440)
        } else {
            self.expect('-', "between beginning and end")?;
            self.skip_space();
            let dated =
                self.rest.split(|c: char| c.is_whitespace()).next().is_some_and(|it| it.contains('-'));
            if dated { (self.date()?, self.time_or(1440)?) } else { (from.0, self.time()?) }
        };
        if to <= from {
            return Err(self.wrong("this ends before it begins, or as it begins"));
        }
        self.skip_space();
        let (position, word) = (self.position, self.take(char::is_alphabetic));
        let open = match word {
            "open" => true,
            "closed" => false,
            _ => {
                return Err(WindowsError { position, problem: "`open` or `closed` must be here".to_owned() });
            }
        };
        self.skip_space();
        if self.rest.is_empty() {
            return Ok(Exception { from, to, open });
        }
        Err(self.wrong("this is too much; exceptions are separated by semicolons"))
    }

    /// `2026-12-24`
    fn date(&mut self) -> Result<Date, WindowsError> {
        self.skip_space();
        let position = self.position;
        let word = self.take(|c| c.is_ascii_digit() || c == '-');
        let problem = || "a date must be here, such as 2026-12-24".to_owned();
        word.parse().map_err(|_| WindowsError { position, problem: problem() })
    }

    fn time_or(&mut self, missing: i16) -> Result<i16, WindowsError> {
        self.skip_space();
        if self.rest.starts_with(|c: char| c.is_ascii_digit()) { self.time() } else { Ok(missing) }
    }
}

impl fmt::Display for Exceptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, it) in self.0.iter().enumerate() {
            let semicolon = if index == 0 { "" } else { "; " };
            let minute = |(date, minutes): Minute| format!("{date} {:02}:{:02}", minutes / 60, minutes % 60);
            let word = if it.open { "open" } else { "closed" };
            write!(f, "{semicolon}{} - {} {word}", minute(it.from), minute(it.to))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn berlin(local: &str) -> Now {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let wall =
            local.parse::<jiff::civil::DateTime>().unwrap().to_zoned(zone.clone()).unwrap().timestamp();
        Now { monotonic: Instant::now(), wall, zone }
    }

    /// Whether it is open then, and when that changes.
    fn at(windows: &str, exceptions: &str, local: &str) -> (bool, Option<String>) {
        let (windows, exceptions, now) =
            (windows.parse().unwrap(), exceptions.parse().unwrap(), berlin(local));
        let hours = Hours { windows: &windows, exceptions: &exceptions };
        let change = hours.next_change(&now).map(|it| it.to_zoned(now.zone.clone()));
        (hours.is_open(&now), change.map(|it| it.strftime("%m-%d %H:%M").to_string()))
    }

    fn until(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn an_exception_counts_instead_of_the_week() {
        let days = "2026-12-24 18:00 - 2026-12-26 12:00 closed; 2026-12-31 20:00-23:00 open";
        let nights = "22:00-07:00";
        assert_eq!(at("always", days, "2026-12-24T12:00"), (true, until("12-24 18:00")));
        assert_eq!(at("always", days, "2026-12-25T12:00"), (false, until("12-26 12:00")));
        assert_eq!(at("always", days, "2026-12-26T12:00"), (true, None));
        assert_eq!(at(nights, days, "2026-12-24T12:00"), (false, until("12-26 22:00")));
        // It opens for the exception and goes on into the night.
        assert_eq!(at(nights, days, "2026-12-31T12:00"), (false, until("12-31 20:00")));
        assert_eq!(at(nights, days, "2026-12-31T21:00"), (true, until("01-01 07:00")));
    }

    #[test]
    fn where_two_overlap_closed_counts() {
        let (open, closed) = ("2026-12-24 open", "2026-12-24 10:00-12:00 closed");
        for text in [format!("{open}; {closed}"), format!("{closed}; {open}")] {
            assert_eq!(at("22:00-23:00", &text, "2026-12-24T09:00"), (true, until("12-24 10:00")));
            assert_eq!(at("22:00-23:00", &text, "2026-12-24T11:00"), (false, until("12-24 12:00")));
            assert_eq!(at("22:00-23:00", &text, "2026-12-24T13:00"), (true, until("12-25 00:00")));
        }
    }

    #[test]
    fn exceptions_read_back_what_they_write() {
        for (text, written) in [
            ("", ""),
            ("2026-12-24 closed", "2026-12-24 00:00 - 2026-12-24 24:00 closed"),
            ("2026-12-24 - 2026-12-26 open;", "2026-12-24 00:00 - 2026-12-26 24:00 open"),
            ("2026-12-31 20:00 - 23:00 open", "2026-12-31 20:00 - 2026-12-31 23:00 open"),
        ] {
            let read: Exceptions = text.parse().unwrap();
            assert_eq!(read.to_string(), written);
            assert_eq!(written.parse::<Exceptions>().unwrap(), read);
        }
    }

    #[test]
    fn an_error_names_the_place_and_the_problem() {
        let errors: Vec<String> = [
            "Christmas closed",
            "2026-12-24",
            "2026-02-30 closed",
            "2026-12-24 18:00 - 17:00 closed",
            "2026-12-24 18:00 - 18:00 closed",
            "2026-12-24 18:00 - 2026-12-23 12:00 open",
            "2026-12-24 18:00 - 25:00 open",
            "2026-12-24 shut",
            "2026-12-24 closed; 2026-12-25 closed, 2026-12-26 closed",
        ]
        .iter()
        .map(|text| format!("{text:?} {}", text.parse::<Exceptions>().unwrap_err()))
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
