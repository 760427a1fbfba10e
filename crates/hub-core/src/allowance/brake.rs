//! The brake on an account whose requests come to nothing: a broken client, or somebody who tries what a hub takes.

use std::time::Duration;

use super::window::Window;
use super::{Limited, OverLimit};

/// So many requests in 60 seconds may come to nothing. An agent that retries a wrong request stays below it.
const WASTED_PER_MINUTE: u32 = 120;
/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// After this long without a pause the next one is a first one again.
const FORGIVEN: Duration = Duration::from_secs(3600);

/// Counts what came to nothing: a request that was wrong, over a limit, or given up before its first byte.
#[derive(Debug, Default)]
pub struct Brake {
    wasted: Window,
    pauses: u32,
    until: Duration,
}

impl Brake {
    /// Whether a request may come in now; `now` is monotonic, since any origin that stays the same.
    ///
    /// # Errors
    /// When the brake holds, and for how long.
    pub fn check(&self, now: Duration) -> Result<(), OverLimit> {
        match self.until.checked_sub(now) {
            Some(left) if !left.is_zero() => {
                Err(OverLimit { limited: Limited::Brake, retry_after: Some(left) })
            }
            _ => Ok(()),
        }
    }

    /// A request came to nothing.
    pub fn wasted(&mut self, now: Duration) {
        if self.check(now).is_err() || self.wasted.take(now, WASTED_PER_MINUTE, 1).is_ok() {
            return;
        }
        if now.saturating_sub(self.until) > FORGIVEN {
            self.pauses = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(6)).min(LONGEST_PAUSE);
        self.pauses += 1;
        self.until = now + pause;
        self.wasted = Window::default();
    }
}
