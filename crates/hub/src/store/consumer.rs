//! Consumers as they are on the way of a request, in memory: whose key it is, what it may do, and when that ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use idlewatt_hub_core::allowance::{Allowance, Brake, Held, KeyLimits, Left, Meter, Moment, OverLimit};
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_protocol::{MicroCredits, UnixMillis};
use tokio_util::sync::CancellationToken;

use super::writer::now;

/// A consumer, as its API key names it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Whose key it is.
    pub account: AccountName,
    /// The account's pseudonym in receipts.
    pub pseudonym: Arc<str>,
    pub(super) key: Arc<KeyState>,
}

impl Consumer {
    /// What its key may do, now.
    #[must_use]
    pub fn limits(&self) -> Arc<KeyLimits> {
        Arc::clone(&self.key.allowed.counts().limits)
    }

    /// What is left of its key's minute.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        let counts = self.key.allowed.counts();
        counts.meter.allowance(&counts.limits, counts.origin.elapsed())
    }

    /// What its key may still use now.
    #[must_use]
    pub fn left(&self) -> Left {
        let counts = self.key.allowed.counts();
        counts.meter.left(&counts.limits, counts.now())
    }

    /// Ends when the key is revoked or its account suspended: what runs for it is broken off.
    pub async fn ended(&self) {
        self.key.ended.cancelled().await;
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.key.ended.is_cancelled()
    }
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Its account was suspended by the operator (403).
    Suspended,
    /// A limit of its key, or the brake on its account, holds (429).
    Over(OverLimit),
}

/// How an account behaves, and what its operator made of it.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    pub(super) brake: Brake,
    pub(super) is_suspended: bool,
}

/// One key.
#[derive(Debug)]
pub(super) struct KeyState {
    pub(super) allowed: Arc<Allowed>,
    /// It works until then.
    pub(super) expires: Option<UnixMillis>,
    pub(super) ended: CancellationToken,
}

impl KeyState {
    pub(super) fn new(allowed: Arc<Allowed>) -> Self {
        Self { allowed, expires: None, ended: CancellationToken::new() }
    }
}

/// What a key, and those that took its place, may do and did.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Its row.
    pub(super) id: i64,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    limits: Arc<KeyLimits>,
    meter: Meter,
    /// Of the monotonic clock.
    origin: Instant,
}

impl Counts {
    fn now(&self) -> Moment {
        Moment { since: self.origin.elapsed(), wall: now() }
    }
}

impl Allowed {
    pub(super) fn new(id: i64, limits: KeyLimits, meter: Meter) -> Arc<Self> {
        let counts = Counts { limits: Arc::new(limits), meter, origin: Instant::now() };
        Arc::new(Self { id, counts: Mutex::new(counts) })
    }

    pub(super) fn limit(&self, limits: KeyLimits) {
        self.counts().limits = Arc::new(limits);
    }

    pub(super) fn request(&self) -> Result<(), OverLimit> {
        let counts = &mut *self.counts();
        counts.meter.request(&counts.limits, counts.now())
    }

    pub(super) fn hold(&self, tokens: u32, spend: MicroCredits) -> Result<Held, OverLimit> {
        let counts = &mut *self.counts();
        let now = counts.now();
        counts.meter.hold(&counts.limits, now, tokens, spend)
    }

    pub(super) fn settle(&self, held: Held, at: UnixMillis, tokens: u32, cost: MicroCredits) {
        let counts = &mut *self.counts();
        let now = Moment { wall: at, ..counts.now() };
        counts.meter.settle(held, now, tokens, cost);
    }

    pub(super) fn give_back(&self, held: Held) {
        self.counts().meter.give_back(held);
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
