//! Looking for model servers, and trying what is shared: rarely while nothing happens, often while a shared server is
//! away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use idlewatt_control::{Code, ControlError, Event};
use idlewatt_core::policy::{Cause, Decision, Urgency};
use idlewatt_core::yielding::Memory;
use idlewatt_protocol::{PauseCode, Price, Scope};
use idlewatt_servers::{DiscoverOptions, probe};

use crate::node::{Node, Standing, lock};
use crate::problem::{of_store, sentence};

/// While nothing is shared, or sharing is paused.
const RARELY: Duration = Duration::from_secs(60);
/// While sharing: a server that went away unseen is offered for at most this long.
const SHARING: Duration = Duration::from_secs(15);
/// While a shared server is away.
const AWAY: Duration = Duration::from_secs(2);

/// Who wants a service to be tried live.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The host, who waits for it, whatever keeps sharing away at that moment.
    ByHost,
    /// Nobody: it is shared already, and nothing else is done with the GPU.
    ByItself,
}

impl Node {
    /// Looks now and then. Ends when the node stops.
    pub(crate) async fn keep_looking(self: Arc<Self>) {
        loop {
            self.look_now().await;
            let pause = if !self.standing_may_share() {
                RARELY
            } else if self.services.any_away() {
                AWAY
            } else {
                SHARING
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once, and tries what is shared and was not tried.
    pub(crate) async fn look_now(self: &Arc<Self>) {
        let config = self.config();
        let settings = config.settings();
        let mut urls = settings.server_urls.clone();
        urls.extend(self.services.shared_urls());
        urls.extend(self.own_server.url());
        let options = DiscoverOptions { scan: settings.scan, urls, exclude_ports: vec![self.address.port()] };
        let found = self.servers.discover(&options).await;
        lock(&self.found).clone_from(&found);
        if self.services.found(&found) {
            self.services_changed();
        }
        // It takes the GPU for a moment: not while a person wants it.
        while self.may_try()
            && let Some(untried) = self.services.untried()
        {
            drop(self.try_live(&untried.id, Asked::ByItself).await);
        }
        self.look_under().await;
    }

    /// Looks on which cards shared models compute, so that no card is billed for another's work.
    async fn look_under(&self) {
        if !self.cards.any() {
            return;
        }
        let mut ports = BTreeMap::new();
        for (id, port) in self.services.shared_here() {
            let place = match ports.entry(port) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.cards.under(port).await),
            };
            self.services.placed(&id, place.clone());
        }
    }

    /// Switches sharing of a service; switching on tries it live first.
    pub(crate) async fn share(
        self: &Arc<Self>,
        service: &str,
        on: bool,
        price: Option<Price>,
    ) -> Result<(), ControlError> {
        let meant = match self.services.meant(service) {
            Ok(known) => known,
            Err(_) => {
                // It may have been started a moment ago.
                self.look_now().await;
                self.services.meant(service)?
            }
        };
        if on && !meant.is_ready() {
            self.services.probing(&meant.id, true);
            self.services_changed();
            self.try_live(&meant.id, Asked::ByHost).await?;
        }
        if let Some(row) = self.services.share(&meant.id, on, price) {
            self.store.put_service(row).await.map_err(|error| of_store(&error))?;
        }
        self.look_under().await;
        self.services_changed();
        Ok(())
    }

    /// Measures a service with live requests. Nothing is kept of a try that gave way: what was cut off was not seen.
    async fn try_live(self: &Arc<Self>, id: &str, asked: Asked) -> Result<(), ControlError> {
        let wanted_back = self.wanted_back(asked);
        let known = self.services.get(id);
        let cold = match &known {
            Some(known) => self.asks(known).await,
            None => None,
        };
        let known = known.and_then(|it| Some((it.server?, it.model, cold?)));
        let Some((server, model, cold)) = known else {
            self.services.probing(id, false);
            self.services_changed();
            return Err(ControlError::new(
                Code::ServerFailed,
                "The model's server does not answer.",
                "A model is tried live before it is offered.",
                "Start the model server, then try again.",
            ));
        };
        self.governing.again.notify_one();
        let report = tokio::select! {
            biased;
            () = wanted_back => None,
            report = probe(server.as_ref(), &model) => Some(report),
        };
        let Some(report) = report else {
            tracing::info!(service = id, "a live try gave way");
            self.services.probing(id, false);
            // What it loaded is shared work's all the same.
            self.asked(id);
            self.services_changed();
            return Err(ControlError::new(
                Code::ServerFailed,
                format!("{} was being tried live when the GPU was wanted back.", model.artefact.name()),
                "The try was ended at once and nothing of it was kept, so the model is not shared by this.",
                "Share it again when the machine has time for it.",
            ));
        };
        tracing::info!(service = id, capabilities = ?report.capabilities, notes = ?report.notes, "tried live");
        let (row, problem) = self.services.probed(id, &model.artefact, cold, &report);
        let kept = row.map(|row| self.store.put_service(row));
        // What is kept of the load comes after what was seen.
        self.asked(id);
        if let Some(kept) = kept {
            kept.await.map_err(|error| of_store(&error))?;
        }
        self.services_changed();
        match problem {
            None => Ok(()),
            Some(why) => Err(ControlError::new(
                Code::ServerFailed,
                format!("{} was tried live and cannot be shared.", model.artefact.name()),
                sentence(&why),
                "See that the model answers in its own server, then try again.",
            )),
        }
    }

    /// Returns once a live try that begins now has to give way. What the host asked for began in spite of what held then:
    /// only what comes later ends it.
    fn wanted_back(&self, asked: Asked) -> impl Future<Output = ()> + use<> {
        let (mut standing, mut memory) = (self.standing.subscribe(), self.giving_back.memory());
        memory.mark_unchanged();
        let held: Vec<PauseCode> = standing.borrow().decision.reasons.iter().map(|it| it.code()).collect();
        let wanted = move |it: &Standing| match asked {
            Asked::ByItself => !lets_try(&it.decision),
            Asked::ByHost => it.decision.reasons.iter().any(|it| {
                // A limit of power is a rule for shared work, and may well be met by the try itself: nobody waits for it.
                let waits_nobody = is_harmless(&it.cause) || matches!(it.cause, Cause::Power(_));
                it.cause.urgency() == Urgency::Now && !waits_nobody && !held.contains(&it.code())
            }),
        };
        async move {
            let freed = async { while memory.changed().await.is_ok() && *memory.borrow() != Memory::Free {} };
            tokio::select! {
                _ = standing.wait_for(wanted) => {}
                () = freed => {}
            }
        }
    }

    /// The host says whom a service answers.
    pub(crate) async fn share_with(
        self: &Arc<Self>,
        service: &str,
        scope: Scope,
    ) -> Result<(), ControlError> {
        if scope == Scope::Public && !self.config().settings().strangers {
            return Err(ControlError::new(
                Code::BadValue,
                "You have not agreed to answer strangers.",
                "Whoever a hub lets in could use this model then: you may not know them nor what they ask, your machine works \
                 on it, and you are answerable for what leaves your connection.",
                "If you agree: `idlewatt config set share.strangers true`, then again.",
            ));
        }
        let meant = self.services.meant(service)?;
        if let Some(row) = self.services.share_with(&meant.id, scope) {
            self.store.put_service(row).await.map_err(|error| of_store(&error))?;
        }
        self.offer_changed();
        Ok(())
    }

    /// Everybody is to hear what can be offered now.
    pub(crate) fn services_changed(self: &Arc<Self>) {
        self.governing.again.notify_one();
        self.decide();
        self.offer_changed();
        if self.events.receiver_count() > 0 {
            self.tell(Event::Services(self.services.views(&self.slots)));
        }
    }

    /// Whether sharing goes on, or only waits for a server to come back.
    fn standing_may_share(&self) -> bool {
        let harmless = |it: &Cause| matches!(it, Cause::NothingToShare { unreachable: true });
        only_held_by(&self.standing.borrow().decision, harmless)
    }

    /// Whether nothing speaks against using the GPU for a moment.
    pub(crate) fn may_try(&self) -> bool {
        lets_try(&self.standing.borrow().decision)
    }
}

fn lets_try(decision: &Decision) -> bool {
    only_held_by(decision, is_harmless)
}

/// Whether nobody wants the GPU because of it.
fn is_harmless(cause: &Cause) -> bool {
    matches!(cause, Cause::NothingToShare { .. } | Cause::NoNetwork)
}

fn only_held_by(decision: &Decision, harmless: impl Fn(&Cause) -> bool) -> bool {
    decision.reasons.iter().all(|it| harmless(&it.cause))
}
