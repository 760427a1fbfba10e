//! The windows painted on a week, for people who would rather paint than write.

use super::{ShareWindow, ShareWindows};

/// Minutes of a day.
const DAY: usize = 1_440;
/// Minutes of a field of the grid.
const FIELD: usize = 30;

/// A week of half hours, as clocks show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Week {
    /// Monday first; in each day 48 half hours, `true` where sharing is allowed for all of it.
    pub days: Vec<Vec<bool>>,
    /// Whether this says all that the windows say: none begins or ends between two half hours.
    pub exact: bool,
}

impl ShareWindows {
    /// The windows as a week.
    #[must_use]
    pub fn week(&self) -> Week {
        let Some(windows) = &self.windows else {
            return Week { days: vec![vec![true; DAY / FIELD]; 7], exact: true };
        };
        let mut minutes = vec![false; 7 * DAY];
        for window in windows {
            for begins in window.begins() {
                for minute in begins..begins + window.minutes() {
                    // Sunday night runs on into Monday.
                    if let Some(minute) = minutes.get_mut(minute % (7 * DAY)) {
                        *minute = true;
                    }
                }
            }
        }
        let fields: Vec<&[bool]> = minutes.chunks(FIELD).collect();
        let whole = |field: &&[bool]| field.iter().all(|open| *open);
        let exact = fields.iter().all(|field| whole(field) || field.iter().all(|open| !open));
        let days = fields.chunks(DAY / FIELD).map(|day| day.iter().map(whole).collect()).collect();
        Week { days, exact }
    }
}

impl ShareWindow {
    /// The minutes of the week at which it begins, Monday's midnight being the first.
    fn begins(&self) -> impl Iterator<Item = usize> {
        let days = [
            jiff::civil::Weekday::Monday,
            jiff::civil::Weekday::Tuesday,
            jiff::civil::Weekday::Wednesday,
            jiff::civil::Weekday::Thursday,
            jiff::civil::Weekday::Friday,
            jiff::civil::Weekday::Saturday,
            jiff::civil::Weekday::Sunday,
        ];
        let from = usize::try_from(self.from).unwrap_or_default();
        let on = days.map(|day| self.begins_on(day));
        on.into_iter().enumerate().filter(|(_, on)| *on).map(move |(day, _)| day * DAY + from)
    }

    fn minutes(&self) -> usize {
        let (from, to) = (i32::from(self.from), i32::from(self.to));
        usize::try_from(if to > from { to - from } else { to + 1_440 - from }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn week(text: &str) -> Week {
        text.parse::<ShareWindows>().unwrap().week()
    }

    /// The open half hours of a day.
    fn open(week: &Week, day: usize) -> Vec<usize> {
        (0..48).filter(|field| week.days[day][*field]).collect()
    }

    #[test]
    fn a_week_shows_what_is_open_all_of_a_half_hour() {
        let all = week("always");
        assert!(all.exact && all.days.iter().flatten().all(|open| *open));
        assert_eq!((all.days.len(), all.days[0].len()), (7, 48));
        let nights = week("Sun 22:30-02:00");
        assert_eq!(
            (open(&nights, 6), open(&nights, 0), nights.exact),
            (vec![45, 46, 47], vec![0, 1, 2, 3], true)
        );
        let odd = week("Wed 10:15-11:30");
        assert_eq!((open(&odd, 2), odd.exact), (vec![21, 22], false));
        // Two that meet between half hours say as much as one.
        assert_eq!(week("Wed 10:00-10:15, Wed 10:15-11:00"), week("Wed 10:00-11:00"));
    }
}
