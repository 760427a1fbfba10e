//! When a second node is asked because the first does not begin, and how often that may be.
//!
//! A hedge makes a stranger's GPU work for nothing: whoever loses is paid nothing. So it waits for what is far outside of
//! what its node usually takes, and at most one request in [`ONE_IN`] gets one.

use std::time::Duration;

use super::{Choice, Router};

/// One request in so many may be hedged.
const ONE_IN: u32 = 20;
/// Hedges that can be saved up.
const SAVED: u32 = 10;

/// How many times the usual time is stuck.
const TIMES: u64 = 4;
/// Less than this is never stuck, and more than that always is.
const LEAST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(45);
/// A node that was never measured is given this long.
const UNKNOWN: Duration = Duration::from_secs(15);

/// What is left of the share of requests that may be hedged.
#[derive(Debug)]
pub(super) struct Allowance(u32);

impl Default for Allowance {
    fn default() -> Self {
        Self(SAVED * ONE_IN)
    }
}

impl Allowance {
    pub(super) fn earn(&mut self) {
        self.0 = (self.0 + 1).min(SAVED * ONE_IN);
    }

    fn spend(&mut self) -> bool {
        let left = self.0.checked_sub(ONE_IN);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

impl Router {
    /// How long the first token of a body of so many bytes may take on this node until it is stuck: four times what the node
    /// usually takes, in proportion where the body is longer than usual; 2 to 45 s. A cold model has its load time on top.
    #[must_use]
    pub fn stuck_after(&self, choice: &Choice, body_bytes: u64) -> Duration {
        let node = self.by_key.get(&choice.node).and_then(|at| self.node(*at));
        let measured = node.filter(|node| node.first_token_ms > 0).map(|node| {
            let usual = u64::from(node.asked_bytes.max(1));
            let ms = u64::from(node.first_token_ms).saturating_mul(body_bytes.max(usual)) / usual;
            Duration::from_millis(ms.saturating_mul(TIMES)).clamp(LEAST, MOST)
        });
        let load = if choice.offer.warm { 0 } else { choice.offer.load_ms.unwrap_or(0) };
        measured.unwrap_or(UNKNOWN) + Duration::from_millis(u64::from(load) * TIMES)
    }

    /// Whether one more request may be hedged now; if so, it counts.
    pub fn may_hedge(&mut self) -> bool {
        self.hedges.spend()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, key, router, wanted};
    use super::super::{Ask, Wanted};
    use super::*;

    #[test]
    fn one_request_in_twenty_is_hedged_in_the_long_run() {
        let mut allowance = Allowance::default();
        let mut hedged = 0;
        for _ in 0..10_000 {
            allowance.earn();
            hedged += u32::from(allowance.spend());
        }
        assert!((500..=500 + SAVED).contains(&hedged), "{hedged}");
    }

    #[test]
    fn stuck_is_measured_against_the_node_and_the_length_of_what_it_reads() {
        let me = account("me");
        let mut router = router(1);
        let wanted: Wanted = wanted("m");
        let ask = Ask { account: &me, wanted: &wanted, tried: &[] };
        let choice = router.choose(&ask, 0).unwrap();
        assert_eq!(choice.node, key(1));
        assert_eq!(router.stuck_after(&choice, 1), UNKNOWN);
        router.release(&choice, Some((Duration::from_secs(1), 1000)));
        assert_eq!(router.stuck_after(&choice, 10), Duration::from_secs(4));
        assert_eq!(router.stuck_after(&choice, 3000), Duration::from_secs(12));
        assert_eq!(router.stuck_after(&choice, u64::MAX), MOST);
        router.release(&choice, Some((Duration::from_millis(1), 1000)));
        assert!(router.stuck_after(&choice, 10) >= LEAST);
    }
}
