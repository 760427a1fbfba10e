//! What one API key may do: requests and tokens a minute, credits a day, which models, how far it reaches. A [`Meter`]
//! counts; the shell keeps one for each key and tells it the time.
//!
//! Tokens and credits are held at their worst case when a request is admitted, and corrected when it is over. So limits
//! hold strictly: in no 60 seconds does a key get more than its minute's requests or tokens, on no day (UTC) does it
//! spend more than its day's credits. One exception: the nodes of a continued answer count their parts on their own,
//! which may come to more tokens than were held for the whole. What is beyond them counts in the second in which it is
//! known: that minute may be passed by as much, and until it is over the key gets so much less.
//!
//! Not here: HTTP's headers (made from [`Allowance`]), and what the account can pay ([`crate::ledger`]).

mod brake;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

use idlewatt_protocol::units::MAX_SAFE_INTEGER;
use idlewatt_protocol::{MicroCredits, Scope, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::openai::ApiError;
use window::Window;

pub use brake::Brake;

/// Models that one key may name.
pub const MAX_MODELS: usize = 64;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The limits of a key. What is `None` is not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests in any 60 seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Prompt and completion tokens in any 60 seconds, by their worst case until they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u32>,
    /// Credits a day, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spend_per_day_ucr: Option<MicroCredits>,
    /// Models that it may ask for; a name without its quantisation admits each quantisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Whose nodes may answer it, at most; also what a request gets that does not say.
    pub scope: Scope,
}

/// Why limits cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A limit of nothing.
    #[error("a limit of 0 {0} would let nothing through: revoke the key instead, or leave the limit out")]
    Zero(&'static str),
    /// Negative, or past 2⁵³ − 1.
    #[error("{0:?} micro-credits a day is outside the ledger's range")]
    Range(MicroCredits),
    /// No model, too many, or a name that no model has.
    #[error("{0:?} is no list of models: name 1 to {MAX_MODELS}, each like `model` or `model:quantisation`")]
    Models(Vec<String>),
}

impl KeyLimits {
    /// Checks what an operator asked for.
    ///
    /// # Errors
    /// When a limit is zero, negative, out of range, or a model has no name.
    pub fn check(&self) -> Result<(), LimitError> {
        if self.requests_per_minute == Some(0) {
            return Err(LimitError::Zero("requests a minute"));
        }
        if self.tokens_per_minute == Some(0) {
            return Err(LimitError::Zero("tokens a minute"));
        }
        if let Some(spend) = self.spend_per_day_ucr {
            if spend == MicroCredits::ZERO {
                return Err(LimitError::Zero("credits a day"));
            }
            if !(0..=MAX_SAFE_INTEGER).contains(&spend.0) {
                return Err(LimitError::Range(spend));
            }
        }
        let is_name = |name: &String| {
            (1..=256).contains(&name.len())
                && !name.chars().any(|c| c.is_control() || c.is_whitespace() || "/\\".contains(c))
        };
        match &self.models {
            Some(models) if !(1..=MAX_MODELS).contains(&models.len()) || !models.iter().all(is_name) => {
                Err(LimitError::Models(models.iter().take(MAX_MODELS).cloned().collect()))
            }
            _ => Ok(()),
        }
    }

    /// Whether it may ask for this model. `llama:q4` does not admit `llama`, which any quantisation may answer.
    #[must_use]
    pub fn admits(&self, asked: &str) -> bool {
        self.models.as_ref().is_none_or(|models| {
            models.iter().any(|model| {
                asked
                    .strip_prefix(model.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
            })
        })
    }

    /// How far a request reaches that asked for `asked`: never further than the key.
    #[must_use]
    pub fn scope_of(&self, asked: Option<Scope>) -> Scope {
        asked.map_or(self.scope, |asked| asked.min(self.scope))
    }
}

/// One limit as it stands: what `x-ratelimit-{limit,remaining,reset}-…` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// In any 60 seconds.
    pub limit: u32,
    /// Of that, free now.
    pub remaining: u32,
    /// Until all of it is free.
    pub reset: Duration,
}

/// What a key has left now. `None` where it has no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Of requests.
    pub requests: Option<Remaining>,
    /// Of tokens.
    pub tokens: Option<Remaining>,
}

/// What one more request may take at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Tokens of this minute.
    pub tokens: u32,
    /// Credits of this day.
    pub spend: MicroCredits,
}

/// Which limit is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Requests a minute.
    Requests {
        /// The limit.
        limit: u32,
    },
    /// Tokens a minute.
    Tokens {
        /// The limit.
        limit: u32,
        /// What the request may take.
        wanted: u64,
    },
    /// Credits a day.
    Spend {
        /// The limit.
        limit: MicroCredits,
        /// What is left of it today.
        left: MicroCredits,
        /// What the request may cost.
        wanted: MicroCredits,
    },
    /// Too many of the account's requests came to nothing.
    Brake,
}

/// A request that is refused now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// By what.
    pub limited: Limited,
    /// When it would be admitted; `None` when it never is as it stands.
    pub retry_after: Option<Duration>,
}

impl From<OverLimit> for ApiError {
    fn from(over: OverLimit) -> Self {
        let (code, message) = match over.limited {
            Limited::Requests { limit } => {
                ("rate_limit_exceeded", format!("This key may make {limit} requests a minute, and has. Wait, or ask the hub's operator for more."))
            }
            Limited::Tokens { limit, wanted } if over.retry_after.is_some() => (
                "rate_limit_exceeded",
                format!(
                    "This key may use {limit} tokens a minute, and this request may take up to {wanted} more than are left. \
                     Wait, or lower max_tokens."
                ),
            ),
            Limited::Tokens { limit, wanted } => (
                "request_over_limit",
                format!(
                    "This key may use {limit} tokens a minute, and this request alone may take up to {wanted}. Send less, or \
                     lower max_tokens."
                ),
            ),
            Limited::Spend { limit, left, wanted } => (
                "spend_limit_exceeded",
                format!(
                    "This key may spend {limit} credits a day. {left} are left until midnight UTC, and this request may cost \
                     up to {wanted}. Lower max_tokens, wait, or ask the hub's operator for more."
                ),
            ),
            Limited::Brake => (
                "slowed_down",
                "Many requests of this account came to nothing: wrong, refused or given up. It is slowed down for a while. \
                 Mend the client, then go on."
                    .to_owned(),
            ),
        };
        Self {
            status: 429,
            kind: "rate_limit_error",
            code,
            param: None,
            message,
            retry_after: over.retry_after,
        }
    }
}

/// The time, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic, since any origin that stays the same.
    pub since: Duration,
    /// The wall's.
    pub wall: UnixMillis,
}

/// What is held for one request. It must come back to the meter that gave it, once.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Held {
    second: u64,
    /// `None` where tokens were not limited: such are not counted.
    tokens: Option<u32>,
    spend: MicroCredits,
}

/// Counts what a key does.
#[derive(Debug, Default)]
pub struct Meter {
    requests: Window,
    tokens: Window,
    /// Days since 1970 of `spent`.
    day: i64,
    spent: MicroCredits,
    held: MicroCredits,
}

impl Meter {
    /// A meter that goes on from what was spent on the day (days since 1970, UTC) that is kept.
    #[must_use]
    pub fn going_on(day: i64, spent: MicroCredits) -> Self {
        Self { day, spent, ..Self::default() }
    }

    /// Counts a request, where one more is allowed.
    ///
    /// # Errors
    /// When the minute's requests are used up.
    pub fn request(&mut self, limits: &KeyLimits, now: Moment) -> Result<(), OverLimit> {
        let Some(limit) = limits.requests_per_minute else { return Ok(()) };
        let retry_after = self.requests.take(now.since, limit, 1);
        retry_after.map_err(|retry_after| OverLimit { limited: Limited::Requests { limit }, retry_after })
    }

    /// Holds the worst case of a request: `tokens` of the minute, `spend` of the day.
    ///
    /// # Errors
    /// When either is not left; nothing is held then.
    pub fn hold(
        &mut self,
        limits: &KeyLimits,
        now: Moment,
        tokens: u32,
        spend: MicroCredits,
    ) -> Result<Held, OverLimit> {
        self.turn_to(now.wall);
        let held = self.held.saturating_add(spend);
        if let Some(limit) = limits.spend_per_day_ucr {
            let left = MicroCredits(limit.0.saturating_sub(self.spent.0).saturating_sub(self.held.0).max(0));
            if spend > left {
                let limited = Limited::Spend { limit, left, wanted: spend };
                let retry_after = (spend <= limit).then(|| until_tomorrow(now.wall));
                return Err(OverLimit { limited, retry_after });
            }
        }
        let mut counted = None;
        if let Some(limit) = limits.tokens_per_minute {
            self.tokens.take(now.since, limit, tokens).map_err(|retry_after| OverLimit {
                limited: Limited::Tokens { limit, wanted: tokens.into() },
                retry_after,
            })?;
            counted = Some(tokens);
        }
        self.held = held;
        Ok(Held { second: now.since.as_secs(), tokens: counted, spend })
    }

    /// The request is over: it took so many tokens, and cost so much, at most what was held.
    pub fn settle(&mut self, held: Held, now: Moment, tokens: u32, cost: MicroCredits) {
        self.turn_to(now.wall);
        self.held = MicroCredits(self.held.0.saturating_sub(held.spend.0).max(0));
        self.spent = self.spent.saturating_add(cost);
        if let Some(most) = held.tokens {
            self.tokens.give_back(held.second, most.saturating_sub(tokens));
            self.tokens.add(now.since, tokens.saturating_sub(most));
        }
    }

    /// The request came to nothing.
    pub fn give_back(&mut self, held: Held) {
        let then = Moment {
            since: Duration::from_secs(held.second),
            wall: UnixMillis(self.day.saturating_mul(DAY_MS)),
        };
        self.settle(held, then, 0, MicroCredits::ZERO);
    }

    /// What one more request may take at most.
    #[must_use]
    pub fn left(&self, limits: &KeyLimits, now: Moment) -> Left {
        let spent = if day_of(now.wall) > self.day { MicroCredits::ZERO } else { self.spent };
        Left {
            tokens: limits
                .tokens_per_minute
                .map_or(u32::MAX, |it| self.tokens.remaining(now.since, it).remaining),
            spend: limits.spend_per_day_ucr.map_or(MicroCredits(i64::MAX), |it| {
                MicroCredits(it.0.saturating_sub(spent.0).saturating_sub(self.held.0).max(0))
            }),
        }
    }

    /// What is left now.
    #[must_use]
    pub fn allowance(&self, limits: &KeyLimits, now: Duration) -> Allowance {
        Allowance {
            requests: limits.requests_per_minute.map(|limit| self.requests.remaining(now, limit)),
            tokens: limits.tokens_per_minute.map(|limit| self.tokens.remaining(now, limit)),
        }
    }

    /// Days only go on: a clock that is set back gives nobody a second day's credits.
    fn turn_to(&mut self, now: UnixMillis) {
        let day = day_of(now);
        if day > self.day {
            (self.day, self.spent) = (day, MicroCredits::ZERO);
        }
    }
}

/// Days since 1970, UTC.
#[must_use]
pub fn day_of(at: UnixMillis) -> i64 {
    at.0.div_euclid(DAY_MS)
}

fn until_tomorrow(now: UnixMillis) -> Duration {
    Duration::from_millis((DAY_MS - now.0.rem_euclid(DAY_MS)).unsigned_abs())
}
