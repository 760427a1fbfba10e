//! Who loaded a model, when it was asked for last, and so whether its memory may be given back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use idlewatt_devices::ProcessRun;
use idlewatt_protocol::limits::FIRST_TOKEN_TIMEOUT;
use idlewatt_servers::{Model, ModelServer, is_loopback};
use idlewatt_store::ServiceRow;
use url::Url;

use super::{Known, Services};
use crate::slots::Slots;

/// A model that shared work asked for is loaded within this time, or not at all.
const LOADED: Duration = FIRST_TOKEN_TIMEOUT;

/// Whose a loaded model is, and since when nobody wanted it.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    /// It was cold when shared work came: what is loaded is there for sharing.
    for_sharing: bool,
    /// Its server's processes when shared work came to the cold model, where each load is a process of its own.
    before: Option<BTreeSet<ProcessRun>>,
    /// Those that its server started since then, the one that holds the model among them: while all of them go on, it is
    /// the same load, whichever engine asks. Empty where that is not known.
    pub(super) processes: BTreeSet<ProcessRun>,
    /// Nobody asked since; `None` before its server was seen.
    asked: Option<Instant>,
    /// A server of the node's own that rests, or was not looked at since: whoever asks wakes it, and what was seen of it
    /// stays on offer.
    pub(super) rests: bool,
}

/// A model whose memory may be given back.
#[derive(Clone, Debug)]
pub(crate) struct Releasable {
    /// The service.
    pub(crate) id: String,
    /// Its server.
    pub(crate) server: Arc<dyn ModelServer>,
    /// The model.
    pub(crate) model: Model,
    /// Models that the same server has loaded, this one among them.
    pub(crate) beside: u32,
}

impl Loaded {
    /// As an engine before this one left it.
    pub(super) fn kept(processes: BTreeSet<ProcessRun>) -> Self {
        Self { processes, ..Self::default() }
    }

    /// What a look at its server showed. A model that went cold is nobody's, and one that was loaded anew is whose it is.
    pub(super) fn seen(&mut self, was: Option<bool>, warm: bool, now: Instant) {
        let long_ago = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) > LOADED);
        let anew = warm && !self.processes.is_empty() && !self.is_the_same_load();
        if !warm && (was == Some(true) || long_ago) || anew {
            self.for_sharing = false;
            self.before = None;
            self.processes.clear();
        }
        // An engine before this one had it loaded.
        self.for_sharing |= was.is_none() && warm && !self.processes.is_empty();
        if was != Some(true) && warm || was.is_none() {
            // Whoever loaded it may be about to use it.
            self.asked = self.asked.max(Some(now));
        }
        self.rests &= !warm;
    }

    /// Whether what shared work loaded is what is loaded now, as far as that can be seen.
    fn is_the_same_load(&self) -> bool {
        self.processes.iter().all(ProcessRun::goes_on)
    }
}

impl Known {
    /// Whether its server is the node's own and rests.
    pub(crate) fn rests(&self) -> bool {
        self.loaded.rests
    }

    fn took_to_load(&mut self, took: Duration) -> Option<ServiceRow> {
        self.seen.as_mut()?.load_ms = u32::try_from(took.as_millis()).ok();
        self.model.warm = true;
        Some(self.row())
    }

    fn may_be_released(&self) -> bool {
        self.may_unload || self.loaded.for_sharing && self.loaded.is_the_same_load()
    }

    /// Whether its model is loaded, or being loaded for shared work.
    fn is_loaded(&self) -> bool {
        self.server.is_some() && (self.model.warm || self.loaded.for_sharing)
    }

    fn release(&self, services: &BTreeMap<String, Self>) -> Option<Releasable> {
        if !self.is_loaded() || !self.may_be_released() {
            return None;
        }
        let beside = services.values().filter(|it| it.is_loaded() && it.url == self.url).count();
        Some(Releasable {
            id: self.id.clone(),
            server: Arc::clone(self.server.as_ref()?),
            model: self.model.clone(),
            beside: u32::try_from(beside).unwrap_or(u32::MAX),
        })
    }
}

impl Services {
    /// Shared work comes to a service now, or has ended there. `cold`: its model was seen not to be loaded.
    pub(crate) fn asked(&self, id: &str, cold: bool, now: Instant) {
        if let Some(known) = self.locked().get_mut(id) {
            known.loaded.asked = Some(now);
            known.loaded.for_sharing |= cold;
        }
    }

    /// Its model is cold, and shared work is about to have it loaded by these processes and those that they will start.
    pub(crate) fn will_load(&self, id: &str, processes: Option<BTreeSet<ProcessRun>>) {
        if let Some(known) = self.locked().get_mut(id) {
            known.loaded.processes.clear();
            // Who came first may have begun it already: what began since then, and not since now, holds the model.
            known.loaded.before = known.loaded.before.take().or(processes);
        }
    }

    /// The port of the server that loaded a model for shared work, while it is not known in which processes.
    pub(crate) fn loaded_somewhere(&self, id: &str) -> Option<u16> {
        let services = self.locked();
        let known = services.get(id)?;
        known.loaded.before.as_ref().filter(|_| known.loaded.for_sharing)?;
        known.url.port_or_known_default()
    }

    /// The processes of the server that loaded a model for shared work. Gives what to keep, so that the next engine knows
    /// the model for sharing's too.
    pub(crate) fn loaded_in(&self, id: &str, processes: &BTreeSet<ProcessRun>) -> Option<ServiceRow> {
        let mut services = self.locked();
        let known = services.get_mut(id).filter(|it| it.loaded.for_sharing)?;
        let new: BTreeSet<ProcessRun> =
            processes.difference(known.loaded.before.as_ref()?).cloned().collect();
        if new.is_empty() {
            return None;
        }
        known.loaded.before = None;
        known.loaded.processes = new;
        Some(known.row())
    }

    /// A cold model took this long to be loaded. Gives what to keep.
    pub(crate) fn took_to_load(&self, id: &str, took: Duration) -> Option<ServiceRow> {
        self.locked().get_mut(id)?.took_to_load(took)
    }

    /// What may be unloaded of servers on this machine other than the node's `own`.
    pub(crate) fn releasable(&self, own: Option<&Url>) -> Vec<Releasable> {
        let services = self.locked();
        let here = services.values().filter(|it| own != Some(&it.url) && is_loopback(&it.url));
        here.filter_map(|it| it.release(&services)).collect()
    }

    /// What may be unloaded and nobody asked for since a moment, wherever it is; and whether that is so of the node's `own`
    /// server. From now on it counts as asked for: it is tried once.
    pub(crate) fn take_idle(
        &self,
        own: Option<&Url>,
        slots: &Slots,
        since: Instant,
    ) -> (Vec<Releasable>, bool) {
        let mut services = self.locked();
        let is_idle = |it: &Known| {
            it.loaded.asked.is_some_and(|asked| asked <= since) && slots.busy(&it.id) == 0 && !it.probing
        };
        let others = services.values().filter(|it| own != Some(&it.url) && is_idle(it));
        let idle = others.filter_map(|it| it.release(&services)).collect();
        let mut its = services.values().filter(|it| own == Some(&it.url)).peekable();
        let own_is_idle = its.peek().is_some() && its.all(is_idle);
        let now = Instant::now();
        for known in services.values_mut().filter(|it| it.loaded.asked.is_some_and(|asked| asked <= since)) {
            known.loaded.asked = Some(now);
        }
        (idle, own_is_idle)
    }

    /// When somebody asked last for whichever model was asked for first, of those that may be unloaded and of the node's
    /// `own` server while that runs.
    pub(crate) fn longest_unasked(&self, own: Option<&Url>) -> Option<Instant> {
        let services = self.locked();
        let loaded = services.values().filter(|it| it.is_loaded());
        loaded
            .filter(|it| own == Some(&it.url) || it.may_be_released())
            .filter_map(|it| it.loaded.asked)
            .min()
    }

    /// Its memory was given back.
    pub(crate) fn released(&self, id: &str) {
        if let Some(known) = self.locked().get_mut(id) {
            known.model.warm = false;
            known.loaded =
                Loaded { asked: known.loaded.asked, rests: known.loaded.rests, ..Loaded::default() };
        }
    }

    /// The node's own server at this address rested and runs again, after this long. Gives what to keep.
    pub(crate) fn woke(&self, url: &Url, took: Duration) -> Vec<ServiceRow> {
        let mut services = self.locked();
        let its = services.values_mut().filter(|it| it.url == *url && it.loaded.rests);
        its.filter_map(|it| it.took_to_load(took)).collect()
    }

    /// The node's own server at this address rests: what it was seen to do stays on offer, cold. Gives whether anything
    /// of it was.
    pub(crate) fn rests(&self, url: &Url) -> bool {
        let mut services = self.locked();
        let its = services.values_mut().filter(|it| it.url == *url && it.server.is_some());
        its.map(|it| {
            it.model.warm = false;
            it.loaded.rests = true;
        })
        .count()
            > 0
    }
}
