//! What became of the hours in which a host allows sharing: how much of each day's was shared, slept, switched off, or lost
//! to which reason.
//!
//! Every millisecond of a day's hours is counted once, so the parts add up to the whole. What the node did is told by
//! [`Span`]s; between them it did not run.

use std::collections::BTreeMap;

use idlewatt_protocol::{PauseCode, UnixMillis};
use jiff::Timestamp;
use jiff::civil::Date;

use crate::Now;
use crate::windows::{Exceptions, Hours, ShareWindows};

mod why;

pub use why::span;

/// What the node did for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From this moment,
    pub since: UnixMillis,
    /// until this one.
    pub until: UnixMillis,
    /// What.
    pub doing: Doing,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It takes requests.
    Sharing,
    /// It would, and reaches no network.
    Offline,
    /// It does not, for this reason first of all; [`PauseCode::Asleep`] where the machine sleeps.
    Paused(PauseCode),
}

/// The hours in which sharing was allowed, from when on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// From this moment on.
    pub since: UnixMillis,
    /// The week.
    pub windows: ShareWindows,
    /// What is different.
    pub exceptions: Exceptions,
}

/// What became of the hours of one local day. All parts are milliseconds and add up to `window`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    /// Which.
    pub date: Date,
    /// How much of it lay in the hours; of a day that still goes on, how much did so far; of the first day that is
    /// known, from then on.
    pub window: u64,
    /// Of that, shared.
    pub shared: u64,
    /// Of that, ready, with no network reached.
    pub offline: u64,
    /// Of that, slept by the machine.
    pub slept: u64,
    /// Of that, switched off, or the node did not run.
    pub off: u64,
    /// Of that, paused, the longest first.
    pub paused: Vec<(PauseCode, u64)>,
    /// Whether it still goes on.
    pub goes_on: bool,
}

/// The last `days` days, today first; none of before the first of `allowed`, which are ordered by their beginnings.
/// `spans` are in the order in which they were written: where two overlap, because the clock was set back, the later one
/// holds.
#[must_use]
pub fn hours(days: u32, spans: &[Span], allowed: &[Allowed], now: &Now) -> Vec<Day> {
    let Some(first) = allowed.first().map(|it| it.since.0) else { return Vec::new() };
    let mut date = now.local().date();
    let mut found = Vec::new();
    for _ in 0..days {
        let (Some(begins), Some(ends)) =
            (start(date, now), date.tomorrow().ok().and_then(|it| start(it, now)))
        else {
            break;
        };
        if ends.as_millisecond() <= first {
            break;
        }
        let until = ends.min(now.wall);
        let open = open(begins, until, allowed, now);
        found.push(day(date, open, spans, until < ends));
        let Ok(before) = date.yesterday() else { break };
        date = before;
    }
    found
}

/// The first moment of a date where the host is.
fn start(date: Date, now: &Now) -> Option<Timestamp> {
    date.to_zoned(now.zone.clone()).ok().map(|it| it.timestamp())
}

/// A stretch in milliseconds since 1970: its first, and the first after it.
type Stretch = (i64, i64);

/// The stretches between two moments in which sharing was allowed.
fn open(from: Timestamp, until: Timestamp, allowed: &[Allowed], now: &Now) -> Vec<Stretch> {
    let mut found = Vec::new();
    for (index, rule) in allowed.iter().enumerate() {
        let moment = |it: &Allowed| Timestamp::from_millisecond(it.since.0).unwrap_or(Timestamp::MAX);
        let begins = moment(rule).max(from);
        let ends = allowed.get(index + 1).map_or(until, |next| moment(next).min(until));
        let hours = Hours { windows: &rule.windows, exceptions: &rule.exceptions };
        let mut at = Now { wall: begins, ..now.clone() };
        while at.wall < ends {
            let next = hours.next_change(&at).map_or(ends, |next| next.min(ends));
            if hours.is_open(&at) {
                found.push((at.wall.as_millisecond(), next.as_millisecond()));
            }
            at.wall = next;
        }
    }
    found
}

fn day(date: Date, open: Vec<Stretch>, spans: &[Span], goes_on: bool) -> Day {
    let window = open.iter().map(length).sum();
    let mut day = Day { date, window, shared: 0, offline: 0, slept: 0, off: 0, paused: Vec::new(), goes_on };
    let mut paused = BTreeMap::new();
    let mut unclaimed = open;
    // The later one holds, so it claims first.
    for span in spans.iter().rev() {
        let claimed = claim(&mut unclaimed, (span.since.0, span.until.0));
        match span.doing {
            Doing::Sharing => day.shared += claimed,
            Doing::Offline => day.offline += claimed,
            Doing::Paused(PauseCode::Asleep) => day.slept += claimed,
            Doing::Paused(_) if claimed == 0 => {}
            Doing::Paused(code) => *paused.entry(code).or_default() += claimed,
        }
    }
    day.off = unclaimed.iter().map(length).sum();
    day.paused.extend(paused);
    day.paused.sort_by_key(|(code, ms)| (std::cmp::Reverse(*ms), *code));
    day
}

/// Takes a stretch out of those that nobody has claimed, and says how much of them it was.
fn claim(unclaimed: &mut Vec<Stretch>, (since, until): Stretch) -> u64 {
    let mut claimed = 0;
    let mut left = Vec::with_capacity(unclaimed.len() + 1);
    for (begins, ends) in unclaimed.drain(..) {
        let (from, to) = (begins.max(since), ends.min(until));
        if from >= to {
            left.push((begins, ends));
            continue;
        }
        claimed += length(&(from, to));
        left.extend([(begins, from), (to, ends)].into_iter().filter(|(from, to)| from < to));
    }
    *unclaimed = left;
    claimed
}

fn length((from, to): &Stretch) -> u64 {
    u64::try_from(to - from).unwrap_or_default()
}

#[cfg(test)]
mod tests;
