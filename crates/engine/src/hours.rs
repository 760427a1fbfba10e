//! The diary: what the node does is noted when it changes, so that of each day's hours it can be said what became of them,
//! also after `kill -9`. Between two changes a moment is noted each minute.

use std::time::{Duration, Instant};

use idlewatt_control::{ControlError, DayHours, PausedFor, State};
use idlewatt_core::Now;
use idlewatt_core::hours::{Allowed, Day, Doing, Span, hours};
use idlewatt_core::policy::{self, Decision};
use idlewatt_protocol::{PauseCode, UnixMillis};
use idlewatt_store::{HoursRow, SpanRow};
use jiff::{SignedDuration, Timestamp};

use crate::clock;
use crate::desk::kept;
use crate::node::{Node, lock};

/// That nothing changed is noted this often.
pub(crate) const BEAT: Duration = Duration::from_secs(60);

/// Not noted for this long, the node did not run: it was stopped, or its machine frozen.
const STALL: Duration = Duration::from_secs(180);

/// A clock that differs by less from what was awaited was not set: clocks are steered all the time.
const SET: SignedDuration = SignedDuration::from_secs(2);

/// Sleep shorter than this is none.
const SLEPT: Duration = Duration::from_secs(1);

/// The page that is written on.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    page: Option<Page>,
    /// The hours that were noted last: windows and exceptions.
    hours: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    doing: Doing,
    seen: Moment,
    /// The last moment that was written.
    written: Instant,
}

/// A moment on all clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    monotonic: Instant,
    wall: Timestamp,
    /// How long the machine has slept since it started.
    slept: Duration,
}

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Begin(Span),
    Extend(UnixMillis),
}

impl Diary {
    /// One that goes on after these hours.
    pub(crate) fn after(hours: Option<&HoursRow>) -> Self {
        Self { page: None, hours: hours.map(|it| (it.windows.clone(), it.exceptions.clone())) }
    }

    fn note(&mut self, doing: Doing, now: Moment) -> Vec<Entry> {
        let begin = |since: Timestamp, doing| {
            let until = UnixMillis(now.wall.as_millisecond());
            Entry::Begin(Span { since: UnixMillis(since.as_millisecond()), until, doing })
        };
        let Some(page) = &mut self.page else {
            self.page = Some(Page { doing, seen: now, written: now.monotonic });
            return vec![begin(now.wall, doing)];
        };
        let before = std::mem::replace(&mut page.seen, now);
        let asleep = now.slept.saturating_sub(before.slept);
        let awake = awake(now.monotonic.saturating_duration_since(before.monotonic), asleep);
        let stalled = awake > STALL;
        let on = |from: Timestamp, by: Duration| {
            SignedDuration::try_from(by).ok().and_then(|by| from.checked_add(by).ok()).unwrap_or(from)
        };
        let awaited = on(on(before.wall, awake), asleep);
        let set = now.wall.duration_since(awaited).abs() > SET;
        if !stalled && !set && asleep < SLEPT && doing == page.doing {
            if now.monotonic.saturating_duration_since(page.written) < BEAT {
                return Vec::new();
            }
            page.written = now.monotonic;
            return vec![Entry::Extend(UnixMillis(now.wall.as_millisecond()))];
        }
        *page = Page { doing, seen: now, written: now.monotonic };
        let fell_asleep = SignedDuration::try_from(asleep).ok().and_then(|it| now.wall.checked_sub(it).ok());
        let (ended, slept) = match fell_asleep {
            _ if stalled => (before.wall, None),
            Some(fell) if asleep >= SLEPT => (if set { on(before.wall, awake) } else { fell }, Some(fell)),
            _ if set => (awaited, None),
            _ => (now.wall, None),
        };
        let mut entries = vec![Entry::Extend(UnixMillis(ended.as_millisecond()))];
        entries.extend(slept.map(|fell| begin(fell, Doing::Paused(PauseCode::Asleep))));
        entries.push(begin(now.wall, doing));
        entries
    }
}

/// How much of a stretch on the monotonic clock the machine was awake. The one that Rust reads goes on in sleep on Windows,
/// and stands still elsewhere.
fn awake(monotonic: Duration, asleep: Duration) -> Duration {
    if cfg!(windows) { monotonic.saturating_sub(asleep) } else { monotonic }
}

fn doing(decision: &Decision) -> Doing {
    match (decision.state, decision.leading()) {
        (policy::State::Paused, Some(reason)) => Doing::Paused(reason.code()),
        (policy::State::Offline, _) => Doing::Offline,
        (policy::State::Sharing | policy::State::Paused, _) => Doing::Sharing,
    }
}

impl Node {
    /// Notes what the node does now. To be called on every decision, and each [`BEAT`] between.
    pub(crate) fn note_doing(&self, now: &Now) {
        let doing = doing(&self.standing.borrow().decision);
        let moment = Moment { monotonic: now.monotonic, wall: now.wall, slept: idlewatt_machine::slept() };
        // Written under the lock, so that entries lie in the order of their moments.
        let mut diary = lock(&self.diary);
        for entry in diary.note(doing, moment) {
            // A disk that refuses is told by its own way.
            drop(match entry {
                Entry::Begin(span) => self.store.begin_span(row(span)),
                Entry::Extend(until) => self.store.extend_span(until),
            });
        }
    }

    /// Notes the last moment.
    pub(crate) fn close_diary(&self) {
        self.note_doing(&clock::now());
        drop(self.store.extend_span(clock::now().unix()));
    }

    /// Notes in which hours sharing is allowed from now on, where that is new.
    pub(crate) fn note_hours(&self) {
        let config = self.config();
        let policy = &config.settings().policy;
        let hours = (policy.windows.to_string(), policy.exceptions.to_string());
        let mut diary = lock(&self.diary);
        if diary.hours.as_ref() != Some(&hours) {
            let (windows, exceptions) = hours.clone();
            drop(self.store.put_hours(HoursRow { since: clock::now().unix(), windows, exceptions }));
            diary.hours = Some(hours);
        }
    }

    /// What became of the hours of the last days, newest first.
    pub(crate) async fn hours(&self, days: u32, now: &Now) -> Result<Vec<DayHours>, ControlError> {
        self.note_doing(now);
        kept(self.store.extend_span(now.unix()).await)?;
        let oldest = now.unix().0 - i64::from(days) * 25 * 60 * 60 * 1000;
        let spans = kept(self.store.spans(UnixMillis(oldest)).await)?;
        let allowed = kept(self.store.allowed_hours().await)?;
        let spans: Vec<Span> = spans.into_iter().map(span).collect();
        let allowed: Vec<Allowed> = allowed.iter().filter_map(rule).collect();
        let kept_awake = self.config().settings().keep_awake;
        Ok(hours(days, &spans, &allowed, now).iter().map(|day| view(day, kept_awake)).collect())
    }
}

fn row(span: Span) -> SpanRow {
    let (state, code) = match span.doing {
        Doing::Sharing => (State::Sharing, None),
        Doing::Offline => (State::Offline, None),
        Doing::Paused(code) => (State::Paused, Some(code)),
    };
    SpanRow { since: span.since, until: span.until, state, code }
}

fn span(row: SpanRow) -> Span {
    let doing = match (row.state, row.code) {
        (State::Paused, Some(code)) => Doing::Paused(code),
        (State::Offline, _) => Doing::Offline,
        _ => Doing::Sharing,
    };
    Span { since: row.since, until: row.until, doing }
}

/// What an older version wrote in another form is left out.
fn rule(row: &HoursRow) -> Option<Allowed> {
    let (windows, exceptions) = (row.windows.parse().ok()?, row.exceptions.parse().ok()?);
    Some(Allowed { since: row.since, windows, exceptions })
}

fn view(day: &Day, kept_awake: bool) -> DayHours {
    DayHours {
        day: day.date.to_string(),
        window_ms: day.window,
        shared_ms: day.shared,
        offline_ms: day.offline,
        slept_ms: day.slept,
        off_ms: day.off,
        paused: day.paused.iter().map(|&(code, ms)| PausedFor { code, ms }).collect(),
        sentence: day.sentence(),
        keep_awake_would_help: !kept_awake && day.slept_too_much(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HERE: Doing = Doing::Paused(PauseCode::PersonHere);
    const ASLEEP: Doing = Doing::Paused(PauseCode::Asleep);

    /// Clocks that a test moves.
    struct Clocks(Moment);

    impl Clocks {
        fn new() -> Self {
            let wall = Timestamp::from_second(1_800_000_000).unwrap();
            Self(Moment { monotonic: Instant::now(), wall, slept: Duration::ZERO })
        }

        fn runs(&mut self, by: Duration) {
            self.0.monotonic += by;
            self.0.wall += by;
        }

        fn sleeps(&mut self, by: Duration) {
            self.0.slept += by;
            self.0.wall += by;
        }

        fn second(&self) -> i64 {
            self.0.wall.as_second() - 1_800_000_000
        }
    }

    /// What stands in the diary: seconds since its beginning.
    fn written(entries: impl IntoIterator<Item = Entry>) -> Vec<(i64, i64, Doing)> {
        let seconds = |it: UnixMillis| it.0 / 1000 - 1_800_000_000;
        let mut spans: Vec<(i64, i64, Doing)> = Vec::new();
        for entry in entries {
            match entry {
                Entry::Begin(span) => spans.push((seconds(span.since), seconds(span.until), span.doing)),
                Entry::Extend(until) => spans.last_mut().unwrap().1 = seconds(until),
            }
        }
        spans
    }

    /// Notes each minute, as the node does.
    fn lives(diary: &mut Diary, clocks: &mut Clocks, doing: Doing, minutes: u32) -> Vec<Entry> {
        let mut entries = Vec::new();
        for _ in 0..minutes {
            clocks.runs(Duration::from_secs(60));
            entries.extend(diary.note(doing, clocks.0));
        }
        entries
    }

    #[test]
    fn only_changes_and_a_moment_each_minute_are_written() {
        let (mut diary, mut clocks) = (Diary::default(), Clocks::new());
        let mut entries = diary.note(Doing::Sharing, clocks.0);
        for _ in 0..600 {
            clocks.runs(Duration::from_millis(100));
            entries.extend(diary.note(Doing::Sharing, clocks.0));
        }
        assert_eq!(entries.len(), 2, "{entries:?}");
        clocks.runs(Duration::from_millis(100));
        entries.extend(diary.note(HERE, clocks.0));
        assert_eq!(written(entries), [(0, 60, Doing::Sharing), (60, 60, HERE)]);
    }

    #[test]
    fn a_sleep_that_nobody_announced_is_found_out_on_waking() {
        let (mut diary, mut clocks) = (Diary::default(), Clocks::new());
        let mut entries = diary.note(Doing::Sharing, clocks.0);
        entries.extend(lives(&mut diary, &mut clocks, Doing::Sharing, 10));
        clocks.runs(Duration::from_secs(20));
        clocks.sleeps(5 * HOUR);
        clocks.runs(Duration::from_secs(1));
        let woke = clocks.second();
        entries.extend(diary.note(Doing::Sharing, clocks.0));
        let spans = written(entries);
        // Awake for 20 s, and for the second after: to the last of them it is not known which came first.
        assert_eq!(spans, [(0, 621, Doing::Sharing), (621, woke, ASLEEP), (woke, woke, Doing::Sharing)]);
    }

    #[test]
    fn a_clock_that_is_set_leaves_no_day_behind() {
        for set in [86_400_i64, -86_400] {
            let (mut diary, mut clocks) = (Diary::default(), Clocks::new());
            let mut entries = diary.note(Doing::Sharing, clocks.0);
            entries.extend(lives(&mut diary, &mut clocks, Doing::Sharing, 2));
            clocks.runs(Duration::from_secs(30));
            clocks.0.wall += SignedDuration::from_secs(set);
            entries.extend(diary.note(Doing::Sharing, clocks.0));
            entries.extend(lives(&mut diary, &mut clocks, Doing::Sharing, 1));
            let from = 150 + set;
            assert_eq!(written(entries), [(0, 150, Doing::Sharing), (from, from + 60, Doing::Sharing)]);
        }
    }

    #[test]
    fn a_node_that_was_stopped_did_not_run() {
        let (mut diary, mut clocks) = (Diary::default(), Clocks::new());
        let mut entries = diary.note(Doing::Sharing, clocks.0);
        entries.extend(lives(&mut diary, &mut clocks, Doing::Sharing, 2));
        clocks.runs(HOUR);
        entries.extend(diary.note(Doing::Sharing, clocks.0));
        assert_eq!(written(entries), [(0, 120, Doing::Sharing), (3720, 3720, Doing::Sharing)]);
    }
}
