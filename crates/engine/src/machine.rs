//! The machine and the node: it is kept awake while it shares, handed back before it sleeps, and everything is looked at anew
//! once it woke or its clock was set.

use std::sync::Arc;
use std::time::Duration;

use idlewatt_control::{Awake, Check, CheckLevel};
use idlewatt_core::machine::{MachineState, Supply};
use idlewatt_core::policy::{Cause, State};
use idlewatt_machine::{KeepAwake, Sight};
use tokio::time::timeout;

use crate::clock;
use crate::hours::BEAT;
use crate::node::Node;

/// Handing back before a sleep takes at most this long: logind waits 5 s unless it is told otherwise, and the disk is to be
/// written too.
const BEFORE_SLEEP: Duration = Duration::from_secs(3);

impl Node {
    /// Follows the machine. Ends when the node stops.
    pub(crate) async fn keep_machine(self: Arc<Self>) {
        let mut states = self.machine.states();
        let mut jumps = self.machine.jumps();
        let mut standing = self.standing.subscribe();
        let mut config = self.config.subscribe();
        let mut changes = self.changes.subscribe();
        let mut awake = self.machine.awake();
        let mut going = false;
        loop {
            self.note_doing(&clock::now());
            let state = *states.borrow_and_update();
            self.machine.attend(self.services.shared_and_ready().0 > 0);
            self.machine.keep_awake(self.wants_awake(state));
            if state.going_to_sleep && !going {
                tracing::info!("the machine goes to sleep");
                self.tasks.spawn(Arc::clone(&self).before_sleep());
            }
            if going && !state.going_to_sleep {
                self.woke();
            }
            going = state.going_to_sleep;
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = states.changed() => {}
                _ = jumps.changed() => self.woke(),
                _ = standing.changed() => {}
                _ = config.changed() => {}
                _ = changes.changed() => {}
                _ = awake.changed() => self.shown.notify_one(),
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }

    /// Whether it shares, or only waits for the idle time or the hysteresis to pass: a machine that falls asleep first would
    /// never begin.
    fn shares_soon(&self) -> bool {
        let decision = &self.standing.borrow().decision;
        let passes =
            |cause: &Cause| matches!(cause, Cause::PersonHere { active: false, .. } | Cause::Settling);
        decision.state == State::Sharing
            || !decision.reasons.is_empty() && decision.reasons.iter().all(|it| passes(&it.cause))
    }

    /// A machine that shares may be kept awake where the host wants that: never on battery, and never with its lid closed.
    fn wants_awake(&self, state: MachineState) -> bool {
        self.config().settings().keep_awake
            && self.shares_soon()
            && !matches!(state.supply, Some(Supply::Battery { .. }))
            && state.lid_closed != Some(true)
            && !state.going_to_sleep
    }

    /// Hands everything back, then lets the machine sleep.
    async fn before_sleep(self: Arc<Self>) {
        self.decide();
        let handed_back = async {
            // The sender lives as long as the node.
            drop(self.slots.shared().wait_for(|running| *running == 0).await);
            // It may have woken, or thought better of it, meanwhile.
            let coming = self.machine.states().borrow().going_to_sleep;
            self.sleep.send_modify(|sleep| sleep.coming = coming);
            self.networks.left_all().await;
        };
        if timeout(BEFORE_SLEEP, handed_back).await.is_err() {
            tracing::warn!("not everything could be handed back before the machine sleeps");
        }
        if let Err(error) = self.store.flush().await {
            tracing::warn!(%error, "the last entries may not be on disk");
        }
        self.machine.let_sleep();
    }

    /// Nothing that was known before a sleep, or under another clock, is taken for granted.
    fn woke(self: &Arc<Self>) {
        self.sleep.send_modify(|sleep| {
            sleep.coming = self.machine.states().borrow().going_to_sleep;
            sleep.woken += 1;
        });
        self.decide();
        self.look.notify_one();
        self.reread.notify_one();
        self.offer_changed();
    }

    /// As screens show it.
    pub(crate) fn awake(&self) -> Option<Awake> {
        let wanted = self.config().settings().keep_awake;
        wanted.then(|| match *self.machine.awake().borrow() {
            KeepAwake::Held => Awake::Held,
            KeepAwake::Released => Awake::Released,
            KeepAwake::Refused { .. } => Awake::Refused,
        })
    }

    /// What is watched of the machine, for `doctor`.
    pub(crate) fn machine_checks(&self) -> Vec<Check> {
        let check = |level, what| Check { area: "machine".to_owned(), level, what, action: None };
        let mut checks = Vec::new();
        for Sight { subject, reading, unseen } in self.machine.sights() {
            checks.extend(reading.map(|it| check(CheckLevel::Good, format!("{}: {it}", capital(subject)))));
            checks.extend(unseen.map(|it| check(CheckLevel::Note, format!("Not seen: {it}"))));
        }
        let awake = match &*self.machine.awake().borrow() {
            KeepAwake::Held => check(CheckLevel::Good, "Kept awake while it shares".to_owned()),
            KeepAwake::Refused { why } => {
                check(CheckLevel::Warning, format!("It cannot be kept awake: {why}"))
            }
            KeepAwake::Released if self.config().settings().keep_awake => check(
                CheckLevel::Good,
                "Not kept awake now: it is only while it shares or is about to, on the mains, with its lid open".to_owned(),
            ),
            KeepAwake::Released => {
                check(CheckLevel::Note, "Not kept awake (share.keep_awake is off)".to_owned())
            }
        };
        checks.push(awake);
        checks
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}
