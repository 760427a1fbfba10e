//! What a card draws with one request, with two, and so on: where the cap lies between, fewer at once go on for ever, and
//! more would all be ended.

use super::account::{Micros, Power, SECOND};

/// A number of requests counts once it has held for this long; one that follows another within it is the same.
const STEADY: Micros = 1_500_000;
const BETWEEN: Micros = SECOND / 2;
/// Another request is tried where its part of the cap seems to be free, percent.
const TRIED_BELOW: i64 = 85;
/// Fewer requests that use less than this of the cap, percent, are worse than many for a while.
const WORTH: i64 = 70;

/// Learned powers by the number of requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Levels {
    by_count: Vec<Option<Power>>,
    count: usize,
    since: Micros,
    fewer_since: Option<Micros>,
}

impl Levels {
    /// So many requests run now, and the card drew this over the last second.
    pub(super) fn learn(&mut self, count: usize, lag: Micros, mean: impl Fn() -> Option<Power>, now: Micros) {
        let fewer = *self.fewer_since.get_or_insert(now);
        if count >= self.count {
            self.fewer_since = None;
        }
        if count > self.count || count < self.count && now - fewer >= BETWEEN {
            (self.count, self.since, self.fewer_since) = (count, now, None);
        }
        if count == 0 || count != self.count || now - self.since < lag + STEADY {
            return;
        }
        let Some(mean) = mean() else { return };
        if self.by_count.len() <= count {
            self.by_count.resize(count + 1, None);
        }
        if let Some(level) = self.by_count.get_mut(count) {
            // Prompts draw more than answers: what counts is the most, slowly forgotten.
            *level = Some(level.map_or(mean, |before| mean.max(before - before / 256)));
        }
    }

    /// Whether so many requests are known to stay below `steady`.
    pub(super) fn stays_below(&self, count: usize, steady: Power) -> bool {
        self.level(count).is_some_and(|level| level <= steady)
    }

    fn level(&self, count: usize) -> Option<Power> {
        self.by_count.get(count).copied().flatten()
    }

    /// The most requests at once that stay below `steady`, as far as is known and with another to be tried; `None`:
    /// even one is too much or too few use too little, so that many for a while are better.
    pub(super) fn lasting(&self, steady: Power) -> Option<usize> {
        let mut most = 0;
        while self.stays_below(most + 1, steady) {
            most += 1;
        }
        match (self.level(most), self.level(most + 1)) {
            (_, None) if most == 0 => Some(1),
            (None, _) => None,
            (Some(now), None) if now * 100 <= steady * TRIED_BELOW => Some(most + 1),
            (Some(now), Some(_)) if now * 100 < steady * WORTH => None,
            _ => Some(most),
        }
    }
}
