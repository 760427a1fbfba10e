//! A count over the last 60 seconds, in slots of one second.

use std::time::Duration;

use super::Remaining;

/// Any 60 seconds touch at most 61 whole ones.
const SLOTS: u64 = 61;

/// What was taken in the last 60 seconds. Costs nothing until something is taken.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// By second modulo [`SLOTS`]; empty until the first.
    slots: Vec<u32>,
    newest: u64,
}

impl Window {
    /// Takes `wanted` of `limit` now.
    ///
    /// # Errors
    /// When that much is not free: how long until it is; `None` when it never is.
    pub(super) fn take(&mut self, now: Duration, limit: u32, wanted: u32) -> Result<(), Option<Duration>> {
        if wanted > limit {
            return Err(None);
        }
        self.turn_to(now.as_secs());
        let mut over = (self.sum(self.newest) + u64::from(wanted)).saturating_sub(limit.into());
        if over == 0 {
            self.add(now, wanted);
            return Ok(());
        }
        for second in self.newest.saturating_sub(SLOTS - 1)..=self.newest {
            over = over.saturating_sub(self.at(second).into());
            if over == 0 {
                return Err(Some(until(second, now)));
            }
        }
        Err(None)
    }

    /// Counts what was taken, whether or not it was free.
    pub(super) fn add(&mut self, now: Duration, taken: u32) {
        self.turn_to(now.as_secs());
        if let Some(slot) = self.slot(self.newest) {
            *slot = slot.saturating_add(taken);
        }
    }

    /// Gives back what was taken in that second and not used.
    pub(super) fn give_back(&mut self, second: u64, surplus: u32) {
        if second <= self.newest
            && second + SLOTS > self.newest
            && let Some(slot) = self.slot(second)
        {
            *slot = slot.saturating_sub(surplus);
        }
    }

    pub(super) fn remaining(&self, now: Duration, limit: u32) -> Remaining {
        let now_second = now.as_secs().max(self.newest);
        let taken = u32::try_from(self.sum(now_second)).unwrap_or(u32::MAX);
        let last =
            (now_second.saturating_sub(SLOTS - 1)..=self.newest).rev().find(|second| self.at(*second) > 0);
        Remaining {
            limit,
            remaining: limit.saturating_sub(taken),
            reset: last.map_or(Duration::ZERO, |second| until(second, now)),
        }
    }

    /// The sum of the slots that still count at `second`, which is not before the newest.
    fn sum(&self, second: u64) -> u64 {
        let oldest = second.saturating_sub(SLOTS - 1);
        (oldest..=self.newest).map(|it| u64::from(self.at(it))).sum()
    }

    fn at(&self, second: u64) -> u32 {
        usize::try_from(second % SLOTS).ok().and_then(|slot| self.slots.get(slot)).copied().unwrap_or(0)
    }

    fn slot(&mut self, second: u64) -> Option<&mut u32> {
        usize::try_from(second % SLOTS).ok().and_then(|slot| self.slots.get_mut(slot))
    }

    fn turn_to(&mut self, second: u64) {
        if self.slots.is_empty() {
            (self.slots, self.newest) = (vec![0; usize::try_from(SLOTS).unwrap_or(0)], second);
        }
        for passed in (self.newest + 1..=second).take(usize::try_from(SLOTS).unwrap_or(0)) {
            // Whichever they are, after 61 seconds every slot was passed.
            if let Some(slot) = self.slot(passed) {
                *slot = 0;
            }
        }
        self.newest = self.newest.max(second);
    }
}

/// From `now` until what was taken in `second` counts no more.
fn until(second: u64, now: Duration) -> Duration {
    Duration::from_secs(second + SLOTS).saturating_sub(now)
}
