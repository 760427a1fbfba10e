//! What can be offered: the models of this machine's servers, which of them the host shares and at what price, and what
//! each was seen to do.
//!
//! Nothing is shared until the host says so, and nothing is offered before it was tried live. What is known of a shared
//! service is kept, so that one whose server is away is shown as away rather than forgotten.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use idlewatt_control::{Code, ControlError, Service};
use idlewatt_core::governor;
use idlewatt_core::meter::Place;
use idlewatt_devices::ProcessRun;
use idlewatt_protocol::{Artefact, Capabilities, Digest, Price, Scope, ServiceOffer};
use idlewatt_servers::{Found, Model, ModelServer, ProbeReport, is_loopback};
use idlewatt_store::ServiceRow;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::Settings;
use crate::own_use::AtWork;
use crate::slots::Slots;

use memory::Loaded;
pub(crate) use memory::Releasable;

/// Taken for the context where a server does not say: what small models have at least.
const ASSUMED_CONTEXT: u32 = 2048;

/// All services, by id.
#[derive(Debug, Default)]
pub(crate) struct Services(Mutex<BTreeMap<String, Known>>);

/// What is known of one service.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Stable on this node.
    pub(crate) id: String,
    /// The server while it answers.
    pub(crate) server: Option<Arc<dyn ModelServer>>,
    /// The model as the server states it now, or did last.
    pub(crate) model: Model,
    /// Where the server is, for the host's eyes only.
    pub(crate) label: String,
    /// Where it computes, as far as that could be seen.
    pub(crate) place: Place,
    url: Url,
    shared: bool,
    price: Price,
    seen: Option<Seen>,
    probing: bool,
    problem: Option<String>,
    /// Whether the host allows that it is unloaded although sharing did not load it.
    may_unload: bool,
    /// Whom the host answers with it.
    scope: Scope,
    loaded: Loaded,
}

/// What a live probe saw, of exactly this artefact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    artefact: Artefact,
    capabilities: Capabilities,
    milli_tokens_per_s: Option<u32>,
    load_ms: Option<u32>,
}

/// What is kept of a service between two starts.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    url: Url,
    label: String,
    server_id: String,
    artefact: Artefact,
    slots: u32,
    context: Option<u32>,
    seen: Option<Seen>,
    #[serde(default)]
    may_unload: bool,
    #[serde(default)]
    scope: Scope,
    /// The processes in which it is loaded for shared work.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    loaded: BTreeSet<ProcessRun>,
}

impl Known {
    /// Whether it may be offered now.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        self.server.is_some() && self.probe().is_some()
    }

    /// What it was seen to do, unless it is another artefact or build since.
    fn probe(&self) -> Option<&Seen> {
        self.seen.as_ref().filter(|seen| seen.artefact == self.model.artefact)
    }

    /// Longest context, tokens.
    #[must_use]
    pub(crate) fn context(&self) -> u32 {
        self.model.context.unwrap_or(ASSUMED_CONTEXT)
    }

    fn offer(&self, settings: &Settings) -> Option<ServiceOffer> {
        let seen = self.probe().filter(|_| self.shared && self.server.is_some())?;
        let offer = ServiceOffer {
            service: self.id.clone(),
            artefact: self.model.artefact.clone(),
            slots: self.model.slots,
            context: self.context(),
            price: self.price,
            capabilities: seen.capabilities,
            warm: self.model.warm,
            load_ms: seen.load_ms,
            scope: if settings.strangers { self.scope } else { self.scope.min(Scope::Circle) },
            region: settings.region,
        };
        if let Some(breach) = offer.breach() {
            tracing::warn!(service = %self.id, breach, "a service is not offered");
            return None;
        }
        Some(offer)
    }

    fn view(&self, slots: &Slots) -> Service {
        let probe = self.probe();
        Service {
            id: self.id.clone(),
            model: self.model.artefact.name(),
            server: self.label.clone(),
            shared: self.shared,
            reachable: self.server.is_some(),
            ready: self.is_ready(),
            warm: self.model.warm,
            may_unload: self.may_unload,
            scope: self.scope,
            loads_on_request: self.server.as_ref().is_none_or(|server| server.loads_on_request()),
            artefact: self.model.artefact.clone(),
            slots: self.model.slots,
            busy: slots.busy(&self.id),
            context: self.context(),
            price: self.price,
            capabilities: probe.map(|seen| seen.capabilities).unwrap_or_default(),
            milli_tokens_per_s: probe.and_then(|seen| seen.milli_tokens_per_s),
            problem: self.trouble(),
        }
    }

    /// Why it is not ready although it should be.
    fn trouble(&self) -> Option<String> {
        if self.probing {
            return Some("being tried live".to_owned());
        }
        if self.server.is_none() {
            return Some("its server does not answer".to_owned());
        }
        if self.is_untried() {
            return Some(
                "changed since it was tried; it is tried again as soon as you are not here".to_owned(),
            );
        }
        self.problem.clone()
    }

    /// Shared and there, and not tried as it is now.
    fn is_untried(&self) -> bool {
        self.shared && self.server.is_some() && self.probe().is_none() && self.problem.is_none()
    }

    fn row(&self) -> ServiceRow {
        let memory = Memory {
            url: self.url.clone(),
            label: self.label.clone(),
            server_id: self.model.id.clone(),
            artefact: self.model.artefact.clone(),
            slots: self.model.slots,
            context: self.model.context,
            seen: self.seen.clone(),
            may_unload: self.may_unload,
            scope: self.scope,
            loaded: self.loaded.processes.clone(),
        };
        let probe = serde_json::to_string(&memory).ok();
        ServiceRow { id: self.id.clone(), shared: self.shared, price: self.price, probe }
    }

    fn remembered(row: ServiceRow) -> Option<Self> {
        let memory: Memory = serde_json::from_str(row.probe.as_deref()?).ok()?;
        Some(Self {
            id: row.id,
            server: None,
            model: Model {
                id: memory.server_id,
                artefact: memory.artefact,
                slots: memory.slots,
                context: memory.context,
                warm: false,
            },
            label: memory.label,
            place: unseen(&memory.url),
            url: memory.url,
            shared: row.shared,
            price: row.price,
            seen: memory.seen,
            probing: false,
            problem: None,
            may_unload: memory.may_unload,
            scope: memory.scope,
            loaded: Loaded::kept(memory.loaded),
        })
    }
}

impl Services {
    /// Begins with what was kept.
    #[must_use]
    pub(crate) fn remembered(rows: Vec<ServiceRow>) -> Self {
        let known = rows.into_iter().filter_map(Known::remembered);
        Self(Mutex::new(known.map(|it| (it.id.clone(), it)).collect()))
    }

    /// Takes over what discovery found. Gives whether anything changed that somebody should hear of.
    pub(crate) fn found(&self, found: &[Found]) -> bool {
        let mut services = self.locked();
        let before: Vec<_> = services.values().map(facts).collect();
        let (mut present, now) = (Vec::new(), Instant::now());
        for (server, models) in
            found.iter().filter_map(|it| Some((it.server.as_ref()?, it.models.as_ref().ok()?)))
        {
            for model in models {
                let id = id_of(server.url(), &model.id);
                present.push(id.clone());
                // Not loaded, it may state too little of itself to be known again.
                let model = match services.get(&id) {
                    Some(known) => model.clone().or_as_before(&known.model),
                    None => model.clone(),
                };
                let known = services.entry(id.clone()).or_insert_with(|| Known {
                    id,
                    server: None,
                    model: model.clone(),
                    label: server.label(),
                    place: unseen(server.url()),
                    url: server.url().clone(),
                    shared: false,
                    price: Price::ZERO,
                    seen: None,
                    probing: false,
                    problem: None,
                    may_unload: false,
                    scope: Scope::default(),
                    loaded: Loaded::default(),
                });
                if known.server.is_none() || known.model.artefact != model.artefact {
                    // What went wrong went wrong with another one.
                    known.problem = None;
                }
                let was = known.server.is_some().then_some(known.model.warm);
                known.loaded.seen(was, model.warm, now);
                known.server = Some(Arc::clone(server));
                known.model = model;
                known.label = server.label();
            }
        }
        for known in services.values_mut().filter(|it| !present.contains(&it.id) && !it.loaded.rests) {
            known.server = None;
        }
        // What is gone and means nothing to the host is forgotten.
        services
            .retain(|id, known| known.shared || known.probing || known.loaded.rests || present.contains(id));
        before != services.values().map(facts).collect::<Vec<_>>()
    }

    /// The server at this address ends now, or has ended. Gives whether anything of it was on offer.
    pub(crate) fn ended(&self, url: &Url) -> bool {
        let mut services = self.locked();
        let ended = services.values_mut().filter(|it| it.url == *url && it.server.is_some());
        ended
            .map(|it| {
                it.server = None;
                it.loaded.rests = false;
            })
            .count()
            > 0
    }

    /// Addresses of shared services, so that they are looked for wherever they are.
    #[must_use]
    pub(crate) fn shared_urls(&self) -> Vec<Url> {
        self.locked().values().filter(|it| it.shared).map(|it| it.url.clone()).collect()
    }

    /// Whether a shared service's server is away.
    #[must_use]
    pub(crate) fn any_away(&self) -> bool {
        self.locked().values().any(|it| it.shared && it.server.is_none())
    }

    /// One service.
    #[must_use]
    pub(crate) fn get(&self, id: &str) -> Option<Known> {
        self.locked().get(id).cloned()
    }

    /// Services that may answer the host's own requests for this model name: the shared and the warm first.
    #[must_use]
    pub(crate) fn answering_to(&self, model: &str) -> Vec<Known> {
        let services = self.locked();
        let mut found: Vec<Known> = services
            .values()
            .filter(|it| it.server.is_some() && (it.model.artefact.answers_to(model) || it.id == model))
            .cloned()
            .collect();
        found.sort_by_key(|it| (!it.model.warm, !it.shared));
        found
    }

    /// The one service that this text means: its id, its model's name, or an unambiguous part of either.
    ///
    /// # Errors
    /// When it means none, or several.
    pub(crate) fn meant(&self, text: &str) -> Result<Known, ControlError> {
        let services = self.locked();
        let name = |it: &Known| it.model.artefact.name();
        let exact: Vec<&Known> = services.values().filter(|it| it.id == text || name(it) == text).collect();
        let part: Vec<&Known> = services
            .values()
            .filter(|it| !text.is_empty() && (name(it).contains(text) || it.id.starts_with(text)))
            .collect();
        match (exact.as_slice(), part.as_slice()) {
            ([one], _) | ([], [one]) => Ok((*one).clone()),
            ([], []) => Err(ControlError::new(
                Code::NotFound,
                format!("No model here is called {text:?}."),
                "Only models of servers that run on this machine, or that you named, can be shared.",
                match services.values().map(name).collect::<Vec<_>>() {
                    none if none.is_empty() => {
                        "Start a model server, or name one: `idlewatt config set servers.urls URL`."
                            .to_owned()
                    }
                    names => format!("Found: {}.", names.join(", ")),
                },
            )),
            (several, others) => {
                let several = if several.is_empty() { others } else { several };
                let list: Vec<String> =
                    several.iter().map(|it| format!("{} ({}, {})", it.id, name(it), it.label)).collect();
                Err(ControlError::new(
                    Code::NotFound,
                    format!("{text:?} may mean {} models.", list.len()),
                    "Nothing was changed.",
                    format!("Name one by its id: {}.", list.join("; ")),
                ))
            }
        }
    }

    /// Sets the switch and the price, where one is given. Gives what to keep.
    pub(crate) fn share(&self, id: &str, on: bool, price: Option<Price>) -> Option<ServiceRow> {
        let mut services = self.locked();
        let known = services.get_mut(id)?;
        known.shared = on;
        known.price = price.unwrap_or(known.price);
        Some(known.row())
    }

    /// Sets whether it may be unloaded although sharing did not load it. Gives what to keep.
    pub(crate) fn may_unload(&self, id: &str, on: bool) -> Option<ServiceRow> {
        let mut services = self.locked();
        let known = services.get_mut(id)?;
        known.may_unload = on;
        Some(known.row())
    }

    /// Sets whom it answers. Gives what to keep.
    pub(crate) fn share_with(&self, id: &str, scope: Scope) -> Option<ServiceRow> {
        let mut services = self.locked();
        let known = services.get_mut(id)?;
        known.scope = scope;
        Some(known.row())
    }

    /// A service that is shared, answers, and was not tried as it is now; it is marked as being tried.
    #[must_use]
    pub(crate) fn untried(&self) -> Option<Known> {
        let mut services = self.locked();
        let known = services.values_mut().find(|it| it.is_untried() && !it.probing)?;
        known.probing = true;
        Some(known.clone())
    }

    /// Marks a service as being tried, or not any more.
    pub(crate) fn probing(&self, id: &str, probing: bool) {
        if let Some(known) = self.locked().get_mut(id) {
            known.probing = probing;
        }
    }

    /// Takes over what a probe of `artefact` saw. Gives what to keep, and why it may not be offered where it may not.
    pub(crate) fn probed(
        &self,
        id: &str,
        artefact: &Artefact,
        cold: bool,
        report: &ProbeReport,
    ) -> (Option<ServiceRow>, Option<String>) {
        let mut services = self.locked();
        let Some(known) = services.get_mut(id) else { return (None, None) };
        known.probing = false;
        let can = report.capabilities;
        known.problem = if can.chat || can.completions || can.embeddings {
            None
        } else {
            let why = report.notes.first().map_or("it answers no request", String::as_str);
            Some(why.to_owned())
        };
        // A model that was loaded already tells nothing of its loading.
        let cold = report.first_token.filter(|_| cold);
        let load_ms = cold.and_then(|it| u32::try_from(it.as_millis()).ok());
        let before = known.seen.as_ref().filter(|it| it.artefact == *artefact).and_then(|it| it.load_ms);
        known.seen = known.problem.is_none().then(|| Seen {
            artefact: artefact.clone(),
            capabilities: can,
            milli_tokens_per_s: report.tokens_per_second.and_then(thousandths),
            load_ms: load_ms.or(before),
        });
        (Some(known.row()), known.problem.clone())
    }

    /// How many are shared, and how many of these may be offered now.
    #[must_use]
    pub(crate) fn shared_and_ready(&self) -> (usize, usize) {
        let services = self.locked();
        let shared = services.values().filter(|it| it.shared);
        (shared.clone().count(), shared.filter(|it| it.is_ready()).count())
    }

    /// Whether there is one to try.
    #[must_use]
    pub(crate) fn any_untried(&self) -> bool {
        self.locked().values().any(|it| it.is_untried() && !it.probing)
    }

    /// Where shared models are loaded now; [`Place::Elsewhere`] where none is, on this machine.
    #[must_use]
    pub(crate) fn warm_on(&self) -> Place {
        let services = self.locked();
        let warm = services.values().filter(|it| it.shared && it.server.is_some() && it.model.warm);
        warm.map(|it| it.place.clone()).fold(Place::Elsewhere, Place::and)
    }

    /// Shared services whose servers are on this machine, with their ports.
    #[must_use]
    pub(crate) fn shared_here(&self) -> Vec<(String, u16)> {
        let services = self.locked();
        let here = services.values().filter(|it| it.shared && it.server.is_some() && is_loopback(&it.url));
        here.filter_map(|it| Some((it.id.clone(), it.url.port_or_known_default()?))).collect()
    }

    /// The ports of every model server of this machine, shared or not.
    #[must_use]
    pub(crate) fn ports_here(&self) -> BTreeSet<u16> {
        let services = self.locked();
        let here = services.values().filter(|it| it.server.is_some() && is_loopback(&it.url));
        here.filter_map(|it| it.url.port_or_known_default()).collect()
    }

    /// Whether a service is being tried live.
    #[must_use]
    pub(crate) fn any_probing(&self) -> bool {
        self.locked().values().any(|it| it.probing)
    }

    /// Takes over where a service's server was seen to compute.
    pub(crate) fn placed(&self, id: &str, seen: Place) {
        let mut services = self.locked();
        let Some(known) = services.get_mut(id) else { return };
        known.place = match (seen, &known.place) {
            // A cold model is on no card, which says nothing of where it will be loaded.
            (Place::Elsewhere, Place::Cards(_)) if !known.model.warm => return,
            (Place::Elsewhere, _) if !known.model.warm => Place::Anywhere,
            (seen, _) => seen,
        };
    }

    /// Services that are shared or being tried and whose servers answer, as the governor sees them. `own` is the port of
    /// the node's own server where the host wants one. Its service counts also while that server does not run, once it
    /// was seen where it computes: a model that may not run now must not be loaded again and again to learn so.
    #[must_use]
    pub(crate) fn governed(&self, slots: &Slots, own: Option<u16>, own_runs: bool) -> Vec<governor::Service> {
        let is_own = |it: &Known| own.is_some() && own == it.url.port() && is_loopback(&it.url);
        let services = self.locked();
        let known = services.values().filter(|it| it.shared || it.probing);
        let known = known.filter(|it| it.server.is_some() || is_own(it) && it.place != Place::Anywhere);
        known
            .map(|it| governor::Service {
                id: it.id.clone(),
                place: it.place.clone(),
                // Windows has no way to stop a process where it stands.
                stoppable: cfg!(unix) && is_own(it) && (own_runs || it.server.is_none()),
                slots: it.model.slots,
                // A live probe is work for sharing too, and no load of the host's.
                running: slots.busy(&it.id) + u32::from(it.probing),
            })
            .collect()
    }

    /// Servers whose models are shared, with the shared requests that run there now, but for the node's `own` one: nobody
    /// else knows its key.
    #[must_use]
    pub(crate) fn at_work(&self, slots: &Slots, own: Option<&Url>) -> BTreeMap<Url, AtWork> {
        let services = self.locked();
        let mut found: BTreeMap<Url, AtWork> = BTreeMap::new();
        for known in services.values().filter(|it| it.shared && own != Some(&it.url)) {
            let running = slots.busy(&known.id);
            let Some(server) = known.server.as_ref() else { continue };
            let cancels = known.probe().is_some_and(|seen| seen.capabilities.cancels);
            let at_work = found.entry(known.url.clone()).or_insert_with(|| AtWork {
                server: Arc::clone(server),
                running: 0,
                cancels: true,
            });
            at_work.running += running;
            at_work.cancels &= cancels;
        }
        // A live probe is no use of the host's.
        for known in services.values().filter(|it| it.probing) {
            if let Some(at_work) = found.get_mut(&known.url) {
                at_work.running += 1;
            }
        }
        found
    }

    /// What networks are offered.
    #[must_use]
    pub(crate) fn offer(&self, settings: &Settings) -> Vec<ServiceOffer> {
        self.locked().values().filter_map(|it| it.offer(settings)).collect()
    }

    /// What screens show.
    #[must_use]
    pub(crate) fn views(&self, slots: &Slots) -> Vec<Service> {
        self.locked().values().map(|it| it.view(slots)).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a server computes before anybody has looked.
fn unseen(url: &Url) -> Place {
    if is_loopback(url) { Place::Anywhere } else { Place::Elsewhere }
}

/// A name that stays the same for the same model at the same address, and tells a hub neither.
fn id_of(server: &Url, model: &str) -> String {
    let digest = Digest::of_parts(&[server.as_str().as_bytes(), b"\n", model.as_bytes()]).to_string();
    format!("s{}", digest.get(7..17).unwrap_or_default())
}

fn facts(known: &Known) -> (String, bool, Model) {
    (known.id.clone(), known.server.is_some(), known.model.clone())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
fn thousandths(speed: f64) -> Option<u32> {
    let thousandths = (speed * 1000.0).round();
    (thousandths >= 0.0 && thousandths <= f64::from(u32::MAX)).then_some(thousandths as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_the_nodes_own_server_is_judged_before_it_is_loaded_again() {
        let url: Url = "http://127.0.0.1:4182/".parse().unwrap();
        let artefact = Artefact {
            model: "m".into(),
            quantisation: None,
            digest: None,
            engine: "llama.cpp".into(),
            engine_build: None,
        };
        let label = "llama.cpp".to_owned();
        let memory = Memory {
            url,
            label,
            server_id: "m".into(),
            artefact,
            slots: 2,
            context: None,
            seen: None,
            may_unload: false,
            scope: Scope::default(),
            loaded: BTreeSet::new(),
        };
        let probe = serde_json::to_string(&memory).ok();
        let services = Services::remembered(vec![ServiceRow {
            id: "it".into(),
            shared: true,
            price: Price::ZERO,
            probe,
        }]);
        let slots = Slots::default();
        let governed = |own| services.governed(&slots, own, false).len();
        assert_eq!(governed(Some(4182)), 0, "nobody knows yet where it computes");
        services.placed("it", Place::Cards(vec!["GPU-0".into()]));
        assert_eq!((governed(Some(4182)), governed(Some(4183)), governed(None)), (1, 0, 0));
    }
}
