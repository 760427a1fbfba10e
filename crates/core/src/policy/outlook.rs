//! The policy run ahead: what it would say of the time to come, if nothing but time changed.
//!
//! It is the policy itself, asked at the moments at which it may change; no rule is written down twice.

use idlewatt_protocol::UnixMillis;
use jiff::{SignedDuration, Timestamp};

use super::{Decision, Inputs, Policy, Settings, State};
use crate::Now;

/// How far it is looked ahead for the end of a pause.
const RESUME_HORIZON: SignedDuration = SignedDuration::from_hours(400 * 24);

/// A pause is followed through at most this many moments at which it could have ended.
const RESUME_STEPS: usize = 64;

/// A stretch of time in which the policy says the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end: the beginning of the next, or of what was not looked at any more; `None` where nothing that is known ends
    /// it.
    pub until: Option<Timestamp>,
    /// What it says.
    pub decision: Decision,
}

impl Policy {
    /// What it would say from now on over so long a time, in at most so many stretches: without gaps, the one of now
    /// first, never none.
    #[must_use]
    pub fn outlook(
        &self,
        settings: &Settings,
        inputs: &Inputs,
        now: &Now,
        ahead: SignedDuration,
        most: usize,
    ) -> Vec<Stretch> {
        let end = now.wall.saturating_add(ahead).unwrap_or(Timestamp::MAX);
        let mut policy = self.clone();
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut at = Some(now.clone());
        while let Some(moment) = at.filter(|moment| moment.wall < end) {
            let decision = policy.decide_now(settings, inputs, &moment);
            at = next(&decision, &moment);
            let until = at.as_ref().map(|it| it.wall.min(end));
            if let Some(last) = stretches.last_mut().filter(|last| alike(&last.decision, &decision)) {
                last.until = until;
                continue;
            }
            if stretches.len() == most.max(1) {
                break;
            }
            stretches.push(Stretch { from: moment.wall, until, decision });
        }
        stretches
    }
}

/// When a pause ends by itself: at the end of its last reason, unless another has begun by then.
pub(super) fn resumes_at(
    policy: &Policy,
    decision: &Decision,
    settings: &Settings,
    inputs: &Inputs,
    now: &Now,
) -> Option<UnixMillis> {
    let horizon = now.wall.saturating_add(RESUME_HORIZON).unwrap_or(Timestamp::MAX);
    let (mut policy, mut decision, mut at) = (policy.clone(), decision.clone(), now.clone());
    for _ in 0..RESUME_STEPS {
        // Sharing ends nothing, and what has no known end is not waited for.
        let ends = decision.reasons.iter().map(|reason| reason.until).collect::<Option<Vec<_>>>()?;
        let Some(last) = ends.into_iter().max() else {
            return (at.wall > now.wall).then(|| at.unix());
        };
        // Until the last of them has ended nothing is shared, whatever else comes and goes.
        at = later(&at, Timestamp::from_millisecond(last.0).ok()?);
        if at.wall > horizon {
            return None;
        }
        decision = policy.decide_now(settings, inputs, &at);
    }
    None
}

/// The moment at which a decision may change by itself.
fn next(decision: &Decision, at: &Now) -> Option<Now> {
    Some(later(at, decision.changes_at?))
}

/// Both clocks run on; never not at all, or looking ahead would not end.
fn later(at: &Now, wall: Timestamp) -> Now {
    at.later(wall.duration_since(at.wall).max(SignedDuration::from_millis(1)).unsigned_abs())
}

fn alike(a: &Decision, b: &Decision) -> bool {
    let told =
        |it: &Decision| it.reasons.iter().map(|reason| (reason.code(), reason.until)).collect::<Vec<_>>();
    a.state == b.state && a.lowered == b.lowered && told(a) == told(b)
}

impl Stretch {
    /// Whether requests are taken in it, a connection given.
    #[must_use]
    pub fn shares(&self) -> bool {
        self.decision.state != State::Paused
    }
}
