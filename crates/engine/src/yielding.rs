//! Giving the GPU back, carried out: what `core::yielding` says becomes closed connections, freed memory that is looked at,
//! a line in the history and, where memory stays held, a notice with what to do.
//!
//! Who may be unloaded: a server of the node's own, a model that was loaded by shared work, and what the host opted in for.
//! Nothing else is touched, and only processes that the node started are ever ended.

mod freeing;
mod standby;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use idlewatt_control::{ControlError, LastYield, Reason, Yield, YieldStep};
use idlewatt_core::Now;
use idlewatt_core::policy::{Cause, Decision};
use idlewatt_core::yielding::story::{self, Story, Told};
use idlewatt_core::yielding::{self, Claim, Effect, Memory, Running, Stopped, Yielding};
use idlewatt_protocol::{Milliwatts, PauseCode, UnixMillis};
use tokio::sync::{Notify, watch};

use crate::clock;
use crate::config::{FreeAfter, Settings};
use crate::deciding::{KeptPause, reason};
use crate::desk::set_pause;
use crate::node::{Node, lock};
use crate::problem::of_store;

/// The yield under way, and the last one.
pub(crate) struct GivingBack {
    machine: Mutex<Yielding>,
    /// The last yield, as it is told; its memory may still be being freed.
    last: Mutex<Option<Account>>,
    /// What may be done with memory for shared work now.
    memory: watch::Sender<Memory>,
    /// Somebody asked a model, or the machine's wake-up has changed.
    again: Notify,
    /// The node's own server ended for want of demand.
    rests: AtomicBool,
    /// One freeing at a time.
    freeing: tokio::sync::Mutex<()>,
}

impl Default for GivingBack {
    fn default() -> Self {
        Self {
            machine: Mutex::default(),
            last: Mutex::default(),
            memory: watch::Sender::new(Memory::MayStay),
            again: Notify::new(),
            rests: AtomicBool::new(false),
            freeing: tokio::sync::Mutex::default(),
        }
    }
}

/// A yield as far as it has come.
#[derive(Clone, Debug)]
struct Account {
    seen: Instant,
    seen_at: UnixMillis,
    requests: u32,
    story: Story,
    steps: Vec<YieldStep>,
}

impl Account {
    fn begin(cause: PauseCode, seen: Instant, now: &Now) -> Self {
        let story = Story { cause, closed_ms: 0, drained: false, memory: Told::Stays };
        let seen_at = UnixMillis(now.wall_at(seen).as_millisecond());
        Self { seen, seen_at, requests: 0, story, steps: Vec::new() }
    }

    fn of(stopped: &Stopped, now: &Now) -> Self {
        let mut it = Self::begin(stopped.cause, stopped.seen, now);
        it.requests = stopped.requests;
        it.story.closed_ms = clock::millis(stopped.closed.saturating_duration_since(stopped.seen));
        it.story.drained = stopped.drained == Some(stopped.seen) && stopped.closed > stopped.seen;
        if it.story.drained {
            it.note(stopped.seen, "Nothing new was taken; what ran was let end".to_owned());
        }
        if let Some(cut) = stopped.cut {
            let requests = if stopped.requests == 1 { "request was" } else { "requests were" };
            it.note(cut, format!("{} shared {requests} ended", stopped.requests));
        }
        it.note(stopped.closed, "Every shared connection was closed".to_owned());
        it
    }

    fn note(&mut self, at: Instant, text: String) {
        self.steps.push(YieldStep { at_ms: clock::millis(at.saturating_duration_since(self.seen)), text });
    }

    fn freed_ms(&self) -> Option<u32> {
        match self.story.memory {
            Told::Free { at_ms } => Some(at_ms),
            _ => None,
        }
    }

    fn told(&self) -> Yield {
        Yield {
            cause: self.story.cause,
            sentence: story::sentence(&self.story),
            seen: self.seen_at,
            requests: self.requests,
            closed_ms: self.story.closed_ms,
            freed_ms: self.freed_ms(),
            verified: self.freed_ms().is_some(),
            steps: self.steps.clone(),
        }
    }

    fn last(&self) -> LastYield {
        LastYield {
            cause: self.story.cause,
            seen: self.seen_at,
            closed_ms: self.story.closed_ms,
            freed_ms: self.freed_ms(),
            verified: self.freed_ms().is_some(),
        }
    }
}

impl GivingBack {
    /// What may be done with memory for shared work, and every change of it.
    pub(crate) fn memory(&self) -> watch::Receiver<Memory> {
        self.memory.subscribe()
    }

    /// What happens while requests are being ended, for people.
    pub(crate) fn sentence(&self) -> String {
        let Some(until) = lock(&self.machine).drains_until() else {
            return "Giving the GPU back: shared requests are being ended.".to_owned();
        };
        let left = until.saturating_duration_since(Instant::now()).as_secs() + 1;
        format!("Giving the GPU back: nothing new is taken, and what runs may end within {left} s.")
    }
}

impl Node {
    /// Goes on with a yield when a request has ended, and when a moment comes. Ends when the node stops.
    pub(crate) async fn keep_giving_back(self: Arc<Self>) {
        let (mut running, mut config) = (self.slots.shared(), self.config.subscribe());
        loop {
            let wake = lock(&self.giving_back.machine).wake().map(|it| it.at);
            let later = async {
                match wake.into_iter().chain(self.standby_at()).min() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.giving_back.again.notified() => continue,
                _ = running.changed() => {}
                _ = config.changed() => {}
                () = later => self.stand_by(),
            }
            // Under the policy's lock, as every decision is carried out.
            self.decide();
        }
    }

    /// Gives back what this decision asks for. `seen`: when its inputs were.
    pub(crate) fn give_back(self: &Arc<Self>, decision: &Decision, seen: Instant, now: &Now) {
        let claims: Vec<Claim> = decision.reasons.iter().map(|it| Claim::of(&it.cause)).collect();
        let pass = decision.admits(true);
        let running = Running { unwanted: self.slots.unwanted(pass), all: *self.slots.shared().borrow() };
        let config = self.config();
        let mut machine = lock(&self.giving_back.machine);
        let before = machine.wake();
        let effects = machine.step(&of_host(config.settings()), &claims, running, seen);
        let mut memory = machine.memory(decision.reasons.iter().all(|it| lets_load(&it.cause)));
        if memory != Memory::Free && self.giving_back.rests.load(Ordering::Relaxed) {
            memory = Memory::Rests;
        }
        let ending = machine.is_ending();
        if machine.wake() != before {
            self.giving_back.again.notify_one();
        }
        drop(machine);
        // Taken before whoever runs it ends it.
        let own = self.own_server.running();
        // It may be asked back once more: whoever uses it then hears of that too.
        let frees = effects.iter().any(|it| matches!(it, Effect::Free { .. }));
        self.giving_back.memory.send_if_modified(|it| std::mem::replace(it, memory) != memory || frees);
        let stopped = effects.iter().any(|it| matches!(it, Effect::Stopped(_)));
        if !stopped && ending != self.standing.borrow().yielding.is_some() {
            self.standing.send_modify(|it| it.yielding = ending.then(|| now.unix()));
        }
        for effect in effects {
            match effect {
                Effect::Drain { until } => {
                    let seconds = until.saturating_duration_since(seen).as_secs();
                    tracing::info!(running = running.unwanted, seconds, "shared requests may end");
                }
                Effect::Cut => {
                    let requests = self.slots.take_back(pass);
                    tracing::info!(requests, "giving the GPU back");
                }
                Effect::Stopped(stopped) => self.stopped(&stopped, decision, now),
                Effect::Free { cause, seen } => {
                    let last = lock(&self.giving_back.last).clone().filter(|it| it.story.cause == cause);
                    let account = last.unwrap_or_else(|| Account::begin(cause, seen, now));
                    self.tasks.spawn(Arc::clone(self).free_for(account, own.clone(), cause));
                }
            }
        }
    }

    /// No shared request is connected any more.
    fn stopped(self: &Arc<Self>, stopped: &Stopped, decision: &Decision, now: &Now) {
        let account = Account::of(stopped, now);
        tracing::info!(cause = ?stopped.cause, closed_ms = account.story.closed_ms, "every shared connection is closed");
        let mut session = None;
        self.standing.send_modify(|it| {
            it.yielding = None;
            session = it.session.take();
        });
        self.tell_yield(account);
        let Some(session) = session else { return };
        let of_cause = decision.reasons.iter().find(|it| it.code() == stopped.cause).or(decision.leading());
        let reason = of_cause.map_or_else(
            || Reason { code: stopped.cause, text: String::new(), since: now.unix(), until: None },
            |it| reason(it, now),
        );
        let peak = self.cards.end_session();
        let caps: Option<Vec<Milliwatts>> = self.gpu_views().iter().map(|it| it.cap_mw).collect();
        let cap = caps.filter(|caps| !caps.is_empty()).map(|caps| caps.into_iter().sum());
        let node = Arc::clone(self);
        self.tasks.spawn(async move {
            node.cards.read_for_meter().await;
            let now = clock::now();
            node.keep_energy(Some(session), now.day());
            if let Err(error) = node.store.end_session(session, now.unix(), reason, peak, cap).await {
                node.not_kept(&error);
            }
            node.offer_changed();
        });
    }

    /// Shows and keeps a yield as far as it has come.
    fn tell_yield(&self, account: Account) {
        let last = account.last();
        drop(self.store.put_yield(account.told()));
        *lock(&self.giving_back.last) = Some(account);
        self.standing.send_modify(|it| it.last_yield = Some(last));
        self.offer_changed();
    }

    /// The panic button: everything back now, memory too, and nothing is shared until the host says so.
    pub(crate) async fn give_everything_back(self: &Arc<Self>) -> Result<(), ControlError> {
        lock(&self.giving_back.machine).demand(Instant::now());
        set_pause(self, Some(KeptPause { until: None }), None).await
    }

    /// The host allows that a service is unloaded although sharing did not load it, or does not any more.
    pub(crate) async fn may_unload(self: &Arc<Self>, service: &str, on: bool) -> Result<(), ControlError> {
        let meant = self.services.meant(service)?;
        if let Some(row) = self.services.may_unload(&meant.id, on) {
            self.store.put_service(row).await.map_err(|error| of_store(&error))?;
        }
        self.services_changed();
        Ok(())
    }
}

/// Whether a model may be loaded for shared work although this holds: nothing but itself, or a moment, is missing.
fn lets_load(cause: &Cause) -> bool {
    matches!(cause, Cause::NothingToShare { .. } | Cause::OwnUse | Cause::Settling | Cause::NoNetwork)
}

/// What the host set.
fn of_host(settings: &Settings) -> yielding::Settings {
    yielding::Settings {
        drain: settings.drain,
        free_after: match settings.free_after {
            FreeAfter::Now => Some(Duration::ZERO),
            FreeAfter::Active(after) => Some(after),
            FreeAfter::Never => None,
        },
        standby: settings.standby_after,
    }
}
