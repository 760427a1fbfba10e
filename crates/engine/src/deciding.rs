//! The life of one decision: what is known goes to the policy; what it says becomes admission, yields, sessions and a
//! line on every screen.

use std::sync::Arc;
use std::time::Instant;

use idlewatt_control::Reason;
use idlewatt_core::now::Deadline;
use idlewatt_core::policy::{Cause, Decision, HostPause, Inputs, State};
use idlewatt_core::{Now, sentence};
use idlewatt_protocol::{PauseCode, UnixMillis};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::node::{Node, Standing, lock};

/// Where the database notes the host's pause.
pub(crate) const PAUSE: &str = "host.pause";

/// A pause that the host asked for, as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptPause {
    /// `None` until told.
    pub(crate) until: Option<Timestamp>,
}

impl KeptPause {
    /// As the policy hears of it, from now on.
    pub(crate) fn in_force(self, now: &Now) -> HostPause {
        HostPause { until: self.until.map(|wall| Deadline::at(wall, now)) }
    }
}

impl Node {
    /// Decides again whenever something changes or a moment comes. Ends when the node stops.
    pub(crate) async fn keep_deciding(self: Arc<Self>) {
        let mut presence = self.presence.readings();
        let mut activity = self.presence.activity();
        let mut own = self.slots.own();
        let mut machine = self.machine.states();
        loop {
            self.decide_once();
            let wake = self.standing.borrow().decision.wake;
            let later = async {
                match wake {
                    Some(wake) => {
                        tokio::time::sleep_until(wake.at.into()).await;
                        tracing::debug!(why = wake.why, "woken");
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.redecide.notified() => {}
                _ = presence.changed() => {}
                _ = activity.changed() => {}
                _ = own.changed() => {}
                _ = machine.changed() => {}
                () = later => {}
            }
        }
    }

    /// Decides now, because something changed, and acts on it before it returns: what was asked of a pause has happened
    /// then, but for requests that are still ending.
    pub(crate) fn decide(self: &Arc<Self>) {
        self.decide_once();
        // The deciding task waits for another moment now.
        self.redecide.notify_one();
    }

    fn decide_once(self: &Arc<Self>) {
        let seen = Instant::now();
        let mut policy = lock(&self.policy);
        let now = clock::now();
        let inputs = self.inputs();
        self.look_for_programs(inputs.shared > 0);
        let decision = policy.decide(&self.config().settings().policy, &inputs, &now);
        let before = self.standing.borrow().clone();
        let changed = !says_the_same(&before.decision, &decision);
        self.standing.send_if_modified(|it| {
            it.decision = decision.clone();
            changed
        });
        // Still under the lock: one decision is carried out before the next is made.
        self.give_back(&decision, seen, &now);
        if decision.state == State::Sharing && self.standing.borrow().session.is_none() {
            self.start_session(&now);
        }
        if changed {
            let standing = self.standing.borrow();
            let leading = standing.decision.leading().map(|it| it.code());
            tracing::info!(state = ?standing.decision.state, ?leading, "decided");
            drop(standing);
            self.offer_changed();
            if self.services.any_untried() && self.may_try() {
                self.look.notify_one();
            }
        }
        drop(policy);
        self.note_doing(&now);
    }

    pub(crate) fn inputs(&self) -> Inputs {
        let (shared, ready) = self.services.shared_and_ready();
        let (joined, connected) = self.networks.joined_and_connected();
        Inputs {
            presence: *self.presence.readings().borrow(),
            activity: self.presence.activity().borrow().clone(),
            pause: *self.pause.borrow(),
            share_now_until: *self.share_now_until.borrow(),
            machine: *self.machine.states().borrow(),
            foreign: self.others.told(),
            temperatures: self.cards.temperatures(self.config().settings()),
            power: self.governing.stops_sharing(),
            own_use: self.own_use_lasts(),
            shared,
            ready,
            joined,
            connected,
            cannot_keep: self.store.refusal().borrow().is_some(),
            stopping: self.stopping.is_cancelled(),
        }
    }

    /// Running programs are looked through for the host's list only while something is shared.
    fn look_for_programs(&self, wanted: bool) {
        let config = self.config();
        let names = config.settings().policy.apps.names().filter(|_| wanted);
        self.presence.look_for(&names.map(str::to_owned).collect::<Vec<_>>());
    }

    fn start_session(self: &Arc<Self>, now: &Now) {
        self.cards.start_session();
        let (session, kept) = self.store.start_session(now.unix());
        self.standing.send_modify(|it| it.session = Some(session));
        let node = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = kept.await {
                node.not_kept(&error);
            }
        });
    }
}

/// Whether nobody need hear of the difference. Moments are put together from two clocks, so the same one comes out a
/// little different each time.
fn says_the_same(before: &Decision, now: &Decision) -> bool {
    let close = |a: Option<UnixMillis>, b: Option<UnixMillis>| match (a, b) {
        (Some(a), Some(b)) => (a.0 - b.0).abs() < 1000,
        (a, b) => a == b,
    };
    // A reading that goes up and down is no news: screens see it when they next look.
    let same = |a: &Cause, b: &Cause| match (a, b) {
        (Cause::TooHot { .. }, Cause::TooHot { .. }) | (Cause::GpuInUse { .. }, Cause::GpuInUse { .. }) => {
            true
        }
        (a, b) => a == b,
    };
    before.state == now.state
        && before.lowered.is_some() == now.lowered.is_some()
        && close(before.share_now_until, now.share_now_until)
        && before.reasons.len() == now.reasons.len()
        && before
            .reasons
            .iter()
            .zip(&now.reasons)
            .all(|(a, b)| same(&a.cause, &b.cause) && close(a.until, b.until))
}

/// A reason as screens show it.
pub(crate) fn reason(reason: &idlewatt_core::policy::Reason, now: &Now) -> Reason {
    Reason {
        code: reason.code(),
        text: sentence::reason(reason, now),
        since: reason.since,
        until: reason.until,
    }
}

/// What a hub may learn: a class, and until when.
pub(crate) fn for_networks(standing: &Standing, free_slots: u32) -> idlewatt_protocol::message::State {
    let (accepting, own) = (standing.accepts(), standing.decision.admits(true));
    idlewatt_protocol::message::State {
        accepting,
        own: own && !accepting,
        free_slots: if own { free_slots } else { 0 },
        why: standing.decision.leading().map(|it| PauseCode::class(it.code())),
        until: standing.decision.until(),
    }
}
