//! What `/metrics` and the status page count: a few atomics.

mod exposition;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use idlewatt_protocol::{Millijoules, Usage};

use crate::hub::lock;

pub(crate) use exposition::exposition;

/// Seconds over which tokens a second are averaged.
const WINDOW: usize = 60;

/// Upper bounds of the first-token histogram, milliseconds.
const FIRST_TOKEN_MS: [u64; 10] = [10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 60_000];

/// Statuses of refusals that are counted apart; all others are counted together.
const REFUSALS: [u16; 12] = [400, 401, 402, 403, 404, 408, 413, 429, 500, 502, 503, 504];

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Requests that were admitted.
    pub(crate) requests: Counter,
    /// Requests answered with an error before any byte of an answer, by status.
    refused: [Counter; REFUSALS.len() + 1],
    /// Answers by how they ended.
    pub(crate) complete: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) broken: Counter,
    /// Requests that were tried on another node before their first byte.
    pub(crate) retries: Counter,
    /// Requests for which a second node was asked because the first token was overdue.
    pub(crate) hedges: Counter,
    /// Nodes that broke off after their first token, and nodes that were asked to go on.
    pub(crate) interrupted: Counter,
    pub(crate) continued: Counter,
    /// Receipts with and without the node's statement.
    pub(crate) signed: Counter,
    pub(crate) unsigned: Counter,
    /// Nodes cut off for breaking the protocol.
    pub(crate) breaches: Counter,
    /// Connections taken; those that are open, nodes' aside; and those refused because their address had too many.
    pub(crate) connections: Counter,
    pub(crate) connections_open: AtomicU64,
    pub(crate) connections_refused: Counter,
    tokens_in: Counter,
    tokens_out: Counter,
    /// Of answers with measured energy: millijoules, and completion tokens.
    measured_mj: Counter,
    measured_tokens: Counter,
    first_token: [Counter; FIRST_TOKEN_MS.len()],
    first_token_count: Counter,
    first_token_ms: Counter,
    recent: Mutex<Recent>,
}

impl Metrics {
    /// A request was answered with an error before any byte of an answer.
    pub(crate) fn refused(&self, status: u16) {
        let place = REFUSALS.iter().position(|it| *it == status).unwrap_or(REFUSALS.len());
        self.refused[place].add(1);
    }

    /// An answer began.
    pub(crate) fn first_token(&self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        for (bound, bucket) in FIRST_TOKEN_MS.iter().zip(&self.first_token) {
            if ms <= *bound {
                bucket.add(1);
            }
        }
        self.first_token_count.add(1);
        self.first_token_ms.add(ms);
    }

    /// One part of a request is to be settled, with or without its node's statement, and what that says was measured.
    pub(crate) fn settled(&self, usage: Usage, is_signed: bool, measured: Option<Millijoules>) {
        self.tokens_in.add(usage.prompt.into());
        self.tokens_out.add(usage.completion.into());
        if is_signed { &self.signed } else { &self.unsigned }.add(1);
        if let Some(energy) = measured.and_then(|energy| u64::try_from(energy.0).ok()) {
            self.measured_mj.add(energy);
            self.measured_tokens.add(usage.completion.into());
        }
        *lock(&self.recent).second(Instant::now()) += u64::from(usage.completion);
    }

    /// Completion tokens a second over the last minute.
    pub(crate) fn tokens_per_second(&self) -> f64 {
        let mut recent = lock(&self.recent);
        recent.second(Instant::now());
        ratio(recent.tokens.iter().sum(), WINDOW as u64).unwrap_or(0.0)
    }

    /// Joules a completion token, over the answers whose energy a node measured; `None` when none did.
    pub(crate) fn joules_per_token(&self) -> Option<f64> {
        ratio(self.measured_mj.get(), self.measured_tokens.get().saturating_mul(1000))
    }

    /// All tokens since the start: prompt, completion.
    pub(crate) fn tokens(&self) -> (u64, u64) {
        (self.tokens_in.get(), self.tokens_out.get())
    }
}

/// Completion tokens of each of the last [`WINDOW`] seconds, in a ring.
#[derive(Debug)]
struct Recent {
    since: Instant,
    /// The second that was written last, counted from `since`.
    last: u64,
    tokens: [u64; WINDOW],
}

impl Default for Recent {
    fn default() -> Self {
        Self { since: Instant::now(), last: 0, tokens: [0; WINDOW] }
    }
}

impl Recent {
    /// The place of this second; those that passed since the last one are emptied.
    fn second(&mut self, now: Instant) -> &mut u64 {
        let this = now.saturating_duration_since(self.since).as_secs().max(self.last);
        let passed = usize::try_from(this - self.last).unwrap_or(WINDOW).min(WINDOW);
        let at = |second: u64| usize::try_from(second % WINDOW as u64).unwrap_or(0);
        for i in 0..passed as u64 {
            self.tokens[at(this - i)] = 0;
        }
        self.last = this;
        &mut self.tokens[at(this)]
    }
}

#[expect(clippy::cast_precision_loss, reason = "display only")]
fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_forgotten_after_a_minute() {
        let mut recent = Recent::default();
        let start = recent.since;
        *recent.second(start) += 5;
        *recent.second(start + Duration::from_secs(59)) += 7;
        assert_eq!(recent.tokens.iter().sum::<u64>(), 12);
        recent.second(start + Duration::from_secs(60));
        assert_eq!(recent.tokens.iter().sum::<u64>(), 7);
        recent.second(start + Duration::from_secs(600));
        assert_eq!(recent.tokens.iter().sum::<u64>(), 0);
    }
}
