//! How much a node may say that no answer needs: states, offers, statements, pings. Bytes of answers are bounded by credit;
//! this bounds what costs the hub work instead.

use std::time::Instant;

use idlewatt_protocol::limits::{CHATTER_A_SECOND, CHATTER_AN_ANSWER, CHATTER_AT_ONCE};

use crate::session::Breach;

/// What a node may still say now.
#[derive(Clone, Debug)]
pub struct Chatter {
    left: u32,
    /// Up to when what passed was counted.
    at: Instant,
}

impl Chatter {
    /// Of a session that begins.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { left: CHATTER_AT_ONCE, at: now }
    }

    /// The node said so many things.
    ///
    /// # Errors
    /// When it says more than it may.
    pub fn heard(&mut self, now: Instant, things: usize) -> Result<(), Breach> {
        let passed = now.saturating_duration_since(self.at);
        let earned = passed.as_millis() * u128::from(CHATTER_A_SECOND) / 1000;
        if earned > 0 {
            self.earn(u32::try_from(earned).unwrap_or(CHATTER_AT_ONCE));
            self.at = now;
        }
        let left = u32::try_from(things).ok().and_then(|things| self.left.checked_sub(things));
        self.left = left.ok_or_else(|| {
            Breach(format!(
                "more than {CHATTER_AT_ONCE} messages at once, or {CHATTER_A_SECOND} a second for long, that no answer needed"
            ))
        })?;
        Ok(())
    }

    /// The node ended an answer, which takes some words.
    pub fn answered(&mut self) {
        self.earn(CHATTER_AN_ANSWER);
    }

    fn earn(&mut self, things: u32) {
        self.left = self.left.saturating_add(things).min(CHATTER_AT_ONCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_a_breach_and_a_lively_node_is_not() {
        let start = Instant::now();
        let mut flood = Chatter::new(start);
        let said = (0..).take_while(|_| flood.heard(start, 1).is_ok()).count();
        assert_eq!(said, CHATTER_AT_ONCE as usize);

        // 5,000 answers a second for a minute, each with its head, end, statement and two states.
        let mut lively = Chatter::new(start);
        for answer in 0..300_000_u32 {
            let now = start + Duration::from_micros(200) * answer;
            lively.heard(now, 5).unwrap();
            lively.answered();
        }

        let mut steady = Chatter::new(start);
        for tick in 0..100_000_u32 {
            steady.heard(start + Duration::from_secs(1) / CHATTER_A_SECOND * tick, 1).unwrap();
        }
    }
}
