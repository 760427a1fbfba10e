//! Standby: what sharing loaded and nobody asked for is unloaded, and stays on offer as cold; whoever asks first waits for
//! it to be loaded. A server of the node's own rests the same way: it does not run, and is started for whoever asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use idlewatt_core::yielding::Memory;
use idlewatt_devices::{ProcessRun, runs_serving};
use idlewatt_protocol::limits::FIRST_TOKEN_TIMEOUT;
use idlewatt_servers::{Kind, is_loopback};

use crate::node::Node;
use crate::services::Known;

impl Node {
    /// When the next model will have been asked for by nobody for long enough.
    pub(super) fn standby_at(&self) -> Option<Instant> {
        let after = self.config().settings().standby_after?;
        Some(self.services.longest_unasked(self.own_server.url().as_ref())? + after)
    }

    /// Unloads what nobody asked for, as far as it may be.
    pub(super) fn stand_by(self: &Arc<Self>) {
        let Some(after) = self.config().settings().standby_after else { return };
        let Some(since) = Instant::now().checked_sub(after) else { return };
        let own = self.own_server.url();
        let (idle, own_is_idle) = self.services.take_idle(own.as_ref(), &self.slots, since);
        if own_is_idle && !self.own_use_lasts() {
            tracing::info!("the node's own model server rests: nobody asked");
            self.giving_back.rests.store(true, Ordering::Relaxed);
        }
        if !idle.is_empty() {
            self.tasks.spawn(Arc::clone(self).free_idle(idle));
        }
    }

    /// The node's own server is not to rest any more, because it is another one now.
    pub(crate) fn rest_is_over(&self) {
        if self.giving_back.rests.swap(false, Ordering::Relaxed) {
            self.redecide.notify_one();
        }
    }

    /// Wakes a service's server where it is the node's own and rests. Gives whether it may be asked.
    pub(crate) async fn woken(self: &Arc<Self>, known: &Known) -> bool {
        !known.rests() || self.wake_own_server().await.is_some()
    }

    /// Shared work goes to a service now: its model is wanted, and whether it was loaded before is noted. Wakes a server of
    /// the node's own that rests. Gives whether it is cold; `None` where it may not be loaded now.
    pub(crate) async fn asks(self: &Arc<Self>, known: &Known) -> Option<bool> {
        let begun = Instant::now();
        if known.rests() {
            self.services.asked(&known.id, false, begun);
            self.wake_own_server().await?;
            return Some(false);
        }
        // What was seen a while ago may not hold: a model that the host loaded since is the host's.
        // Of a server that does not say what it has loaded nothing is known, and nothing is unloaded.
        let says = known.server.as_ref().is_some_and(|it| it.kind() != Kind::OpenAi);
        let cold = says && !known.model.warm && self.is_cold(known).await;
        if cold {
            self.services.will_load(&known.id, self.processes_that_load(known).await);
        }
        self.services.asked(&known.id, cold, begun);
        self.giving_back.again.notify_one();
        Some(cold)
    }

    /// Shared work at a service has ended.
    pub(crate) fn asked(self: &Arc<Self>, service: &str) {
        self.services.asked(service, false, Instant::now());
        self.giving_back.again.notify_one();
        if let Some(port) = self.services.loaded_somewhere(service) {
            let (node, service) = (Arc::clone(self), service.to_owned());
            self.tasks.spawn_blocking(move || {
                let processes = runs_serving(port).unwrap_or_default();
                if let Some(row) = node.services.loaded_in(&service, &processes) {
                    drop(node.store.put_service(row));
                }
            });
        }
    }

    /// The processes of a server on this machine that starts another one for each load.
    async fn processes_that_load(&self, known: &Known) -> Option<BTreeSet<ProcessRun>> {
        let server = known.server.as_ref().filter(|it| it.loads_in_a_process() && is_loopback(it.url()))?;
        let port = server.url().port_or_known_default()?;
        tokio::task::spawn_blocking(move || runs_serving(port)).await.ok()?
    }

    async fn is_cold(&self, known: &Known) -> bool {
        let Some(server) = &known.server else { return false };
        let models = server.models().await.unwrap_or_default();
        models.iter().any(|it| it.id == known.model.id && !it.warm)
    }

    async fn wake_own_server(self: &Arc<Self>) -> Option<()> {
        self.rest_is_over();
        self.decide();
        let (mut memory, mut running) = (self.giving_back.memory(), self.own_server.runs());
        let until = tokio::time::Instant::now() + FIRST_TOKEN_TIMEOUT;
        loop {
            if running.borrow_and_update().is_some() {
                return Some(());
            }
            if *memory.borrow_and_update() != Memory::MayLoad {
                return None;
            }
            tokio::select! {
                // Nobody waits longer for a first token.
                () = tokio::time::sleep_until(until) => return None,
                changed = memory.changed() => changed.ok()?,
                changed = running.changed() => changed.ok()?,
            }
        }
    }
}
