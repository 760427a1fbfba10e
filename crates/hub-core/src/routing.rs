//! Which node answers: every connected node's offer and load in one table, and a choice from it in a few microseconds.
//!
//! Order of the rules: scope → artefact and capabilities → price → free slot → the asker's own node → warm before cold →
//! of two picked at random the less loaded, then the quicker to its first token. Randomness is passed in. At most
//! [`SAMPLE`] eligible services are looked at, so a choice among 10,000 nodes costs what one among 20 does.
//!
//! Not here: retries, time and sockets (the hub's shell), and whether the asker can pay ([`crate::ledger`]).

mod near;
mod needs;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use idlewatt_protocol::message::State;
use idlewatt_protocol::{Artefact, Capabilities, Class, Price, PublicKey, ServiceOffer};

use crate::ledger::AccountName;
use needs::{lacks, union};

pub use needs::needs_of;
pub use waiting::{MAX_WAITING, QueueFull, Ticket, Waiting};

/// Eligible services looked at in one choice.
pub const SAMPLE: usize = 16;

/// Models remembered after their last node left, so that asking for one is "not now" rather than "no such model".
const MAX_KNOWN: usize = 10_000;

/// When to ask again for a model that nobody serves right now.
const AWAY_RETRY: Duration = Duration::from_secs(5);

/// Who may answer, as the asker limits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The asker's own nodes only.
    Own,
    /// Every node of this hub.
    #[default]
    Circle,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub account: &'a AccountName,
    /// The model as the consumer names it.
    pub model: &'a str,
    /// Everything that the request needs of a service.
    pub needs: Capabilities,
    /// The dearest price that the consumer accepts.
    pub max_price: Option<Price>,
    /// Who may answer.
    pub scope: Scope,
    /// Nodes that were tried already.
    pub tried: &'a [PublicKey],
}

/// The node that answers. Its slot is taken until [`Router::release`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node.
    pub node: PublicKey,
    /// Its service, as offered when it was chosen.
    pub offer: Arc<ServiceOffer>,
    /// Whether it is the asker's own.
    pub own: bool,
}

/// Why nobody answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No node of this hub ever offered such a model.
    Unknown {
        /// Models with a similar name.
        near: Vec<String>,
    },
    /// Some service has the model, none has this.
    Unsupported(&'static str),
    /// Services are there, all above the asker's limit.
    TooDear {
        /// The cheapest of them.
        cheapest: Price,
    },
    /// The model is known and no node takes work for it now.
    Away {
        /// What a node said why, where one is connected.
        why: Option<Class>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// Every slot is taken.
    Busy,
    /// Every node that could answer is among those that were tried.
    Tried,
}

/// One model of the hub, for `/v1/models` and the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its longest name, `model:quantisation`.
    pub name: String,
    /// Its base name.
    pub base: String,
    /// What runs it.
    pub artefact: Artefact,
    /// Lowest and highest price of the services that offer it.
    pub price: (Price, Price),
    /// Nodes that offer it.
    pub nodes: usize,
    /// Whether one of them takes requests now.
    pub available: bool,
    /// Whether one of them has it loaded.
    pub warm: bool,
    /// Longest context, tokens.
    pub context: u32,
    /// What at least one of them was seen to do.
    pub capabilities: Capabilities,
}

#[derive(Debug)]
struct Node {
    account: AccountName,
    services: Vec<Service>,
    accepting: bool,
    /// Where it does not: whether requests of its own account are taken.
    own: bool,
    why: Option<Class>,
    /// Free slots as the node last said.
    hinted: u32,
    /// Requests given to it since.
    given: u32,
    /// Moving average of the time to the first token, milliseconds; 0 until known.
    first_token_ms: u32,
}

#[derive(Debug)]
struct Service {
    offer: Arc<ServiceOffer>,
    running: u32,
}

impl Node {
    fn accepts(&self, own: bool) -> bool {
        self.accepting || own && self.own
    }

    fn has_room(&self, service: &Service, own: bool) -> bool {
        self.accepts(own) && service.running < service.offer.slots && self.given < self.hinted
    }
}

/// Every connected node, what it offers and how busy it is.
#[derive(Debug, Default)]
pub struct Router {
    nodes: HashMap<PublicKey, Node>,
    /// Base names and full names, to the services that answer to them.
    by_name: HashMap<String, Vec<(PublicKey, String)>>,
    by_account: HashMap<AccountName, Vec<PublicKey>>,
    running: HashMap<AccountName, u32>,
    known: BTreeMap<String, Artefact>,
}

impl Router {
    /// A node is connected; it offers nothing yet. An older session of it is forgotten.
    pub fn join(&mut self, key: PublicKey, account: AccountName) {
        self.leave(&key);
        self.by_account.entry(account.clone()).or_default().push(key);
        let node = Node {
            account,
            services: Vec::new(),
            accepting: false,
            own: false,
            why: None,
            hinted: 0,
            given: 0,
            first_token_ms: 0,
        };
        self.nodes.insert(key, node);
    }

    /// A node is gone.
    pub fn leave(&mut self, key: &PublicKey) {
        self.unlist(key);
        if let Some(node) = self.nodes.remove(key)
            && let Some(keys) = self.by_account.get_mut(&node.account)
        {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_account.remove(&node.account);
            }
        }
    }

    /// A node offers these services and no others.
    pub fn offer(&mut self, key: &PublicKey, offers: Vec<ServiceOffer>) {
        self.unlist(key);
        let Some(node) = self.nodes.get_mut(key) else { return };
        let before = std::mem::take(&mut node.services);
        for offer in offers {
            let name = offer.artefact.name();
            if name != offer.artefact.model {
                list(&mut self.by_name, &offer.artefact.model, key, &offer.service);
            }
            list(&mut self.by_name, &name, key, &offer.service);
            if self.known.len() < MAX_KNOWN {
                self.known.insert(name, offer.artefact.clone());
            }
            let running =
                before.iter().find(|old| old.offer.service == offer.service).map_or(0, |old| old.running);
            node.services.push(Service { offer: Arc::new(offer), running });
        }
    }

    /// A node takes requests, or does not.
    pub fn state(&mut self, key: &PublicKey, state: &State) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        node.accepting = state.accepting;
        node.own = state.own;
        node.why = state.why;
        node.hinted = state.free_slots;
        node.given = 0;
    }

    /// A node ended everything that ran, or is about to go: until it says otherwise nothing more is given to it.
    pub fn away(&mut self, key: &PublicKey, why: Class) {
        let Some(node) = self.nodes.get_mut(key) else { return };
        (node.accepting, node.why) = (false, Some(why));
        // What it said of its own account holds: a pause says so before its last request has ended.
        node.own &= why == Class::Busy;
    }

    /// Whether a node takes requests; `None` when it is not connected.
    #[must_use]
    pub fn is_accepting(&self, key: &PublicKey) -> Option<bool> {
        self.nodes.get(key).map(|node| node.accepting)
    }

    /// Nodes connected, and of those the ones that take requests.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.nodes.len(), self.nodes.values().filter(|node| node.accepting).count())
    }

    /// Requests of an account that run now.
    #[must_use]
    pub fn running_of(&self, account: &AccountName) -> u32 {
        self.running.get(account).copied().unwrap_or(0)
    }

    /// Chooses a node and takes a slot of it.
    ///
    /// # Errors
    /// When there is none, and why.
    pub fn choose(&mut self, ask: &Ask<'_>, random: u64) -> Result<Choice, NoRoute> {
        let choice = self.find(ask, random)?;
        self.take(&choice, ask.account);
        Ok(choice)
    }

    /// Whether a slot is free for this.
    #[must_use]
    pub fn has_room(&self, ask: &Ask<'_>) -> bool {
        self.find(ask, 0).is_ok()
    }

    fn find(&self, ask: &Ask<'_>, random: u64) -> Result<Choice, NoRoute> {
        let base = ask.model.split_once('@').map_or(ask.model, |(base, _)| base);
        let listed = self.by_name.get(base).map_or(&[][..], Vec::as_slice);
        let mine = self.by_account.get(ask.account).map_or(&[][..], Vec::as_slice);
        let mut seen = Seen::default();
        let mut eligible: Vec<Candidate<'_>> = Vec::with_capacity(SAMPLE);
        let own = mine.iter().filter_map(|key| self.nodes.get(key).map(|node| (key, node)));
        for (key, node) in own {
            for service in &node.services {
                if service.offer.artefact.answers_to(ask.model) {
                    eligible.extend(seen.look(ask, key, node, service, true));
                }
            }
        }
        if eligible.is_empty() && ask.scope == Scope::Circle && !listed.is_empty() {
            let start = usize::try_from(random >> 32).unwrap_or(0) % listed.len();
            let (after, before) = (listed.get(start..), listed.get(..start));
            for (key, name) in after.into_iter().chain(before).flatten() {
                let Some(node) = self.nodes.get(key).filter(|node| node.account != *ask.account) else {
                    continue;
                };
                let Some(service) = node.services.iter().find(|it| it.offer.service == *name) else {
                    continue;
                };
                if service.offer.artefact.answers_to(ask.model) {
                    eligible.extend(seen.look(ask, key, node, service, false));
                }
                if eligible.len() >= SAMPLE {
                    break;
                }
            }
        }
        let Some(best) = pick(&eligible, random) else { return Err(self.none(ask, seen)) };
        Ok(Choice { node: *best.key, offer: Arc::clone(&best.service.offer), own: best.own })
    }

    fn take(&mut self, choice: &Choice, account: &AccountName) {
        if let Some(node) = self.nodes.get_mut(&choice.node) {
            node.given += 1;
            if let Some(service) = node.service(&choice.offer.service) {
                service.running += 1;
            }
        }
        *self.running.entry(account.clone()).or_default() += 1;
    }

    /// Gives a slot back. `first_token` is the time this node took to its first token, where it came that far.
    pub fn release(&mut self, choice: &Choice, account: &AccountName, first_token: Option<Duration>) {
        if let Some(running) = self.running.get_mut(account) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.running.remove(account);
            }
        }
        let Some(node) = self.nodes.get_mut(&choice.node) else { return };
        node.given = node.given.saturating_sub(1);
        if let Some(took) = first_token {
            let ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX).max(1);
            node.first_token_ms = match node.first_token_ms {
                0 => ms,
                before => (before / 4 * 3).saturating_add(ms / 4),
            };
        }
        if let Some(service) = node.service(&choice.offer.service) {
            service.running = service.running.saturating_sub(1);
        }
    }

    /// Every model that is offered now, by name.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        let mut models: BTreeMap<String, Model> = BTreeMap::new();
        for node in self.nodes.values() {
            for service in &node.services {
                let offer = &service.offer;
                let model = models.entry(offer.artefact.name()).or_insert_with(|| Model {
                    name: offer.artefact.name(),
                    base: offer.artefact.model.clone(),
                    artefact: offer.artefact.clone(),
                    price: (offer.price, offer.price),
                    nodes: 0,
                    available: false,
                    warm: false,
                    context: 0,
                    capabilities: Capabilities::default(),
                });
                model.price = (model.price.0.min(offer.price), model.price.1.max(offer.price));
                model.nodes += 1;
                model.available |= node.accepting;
                model.warm |= offer.warm;
                model.context = model.context.max(offer.context);
                model.capabilities = union(model.capabilities, offer.capabilities);
            }
        }
        models.into_values().collect()
    }

    fn none(&self, ask: &Ask<'_>, seen: Seen) -> NoRoute {
        if seen.full {
            return NoRoute::Busy;
        }
        if seen.tried {
            return NoRoute::Tried;
        }
        if let Some(class) = seen.away {
            return NoRoute::Away { why: class, retry_after: AWAY_RETRY };
        }
        if let Some(cheapest) = seen.dear {
            return NoRoute::TooDear { cheapest };
        }
        if let Some(what) = seen.lacks {
            return NoRoute::Unsupported(what);
        }
        if self.known.values().any(|artefact| artefact.answers_to(ask.model)) {
            return NoRoute::Away { why: None, retry_after: AWAY_RETRY };
        }
        NoRoute::Unknown { near: near::names(ask.model, self.known.keys().map(String::as_str)) }
    }

    fn unlist(&mut self, key: &PublicKey) {
        let Some(node) = self.nodes.get(key) else { return };
        for service in &node.services {
            let artefact = &service.offer.artefact;
            for name in [&artefact.name(), &artefact.model] {
                if let Some(listed) = self.by_name.get_mut(name) {
                    listed.retain(|(other, _)| other != key);
                    if listed.is_empty() {
                        self.by_name.remove(name);
                    }
                }
            }
        }
    }
}

impl Node {
    fn service(&mut self, name: &str) -> Option<&mut Service> {
        self.services.iter_mut().find(|service| service.offer.service == name)
    }
}

fn list(by_name: &mut HashMap<String, Vec<(PublicKey, String)>>, name: &str, key: &PublicKey, service: &str) {
    by_name.entry(name.to_owned()).or_default().push((*key, service.to_owned()));
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    key: &'a PublicKey,
    node: &'a Node,
    service: &'a Service,
    own: bool,
}

/// What stood in the way, over all services that answer to the name.
#[derive(Default)]
struct Seen {
    full: bool,
    tried: bool,
    away: Option<Option<Class>>,
    dear: Option<Price>,
    lacks: Option<&'static str>,
}

impl Seen {
    fn look<'a>(
        &mut self,
        ask: &Ask<'_>,
        key: &'a PublicKey,
        node: &'a Node,
        service: &'a Service,
        own: bool,
    ) -> Option<Candidate<'a>> {
        let offer = &service.offer;
        if let Some(what) = lacks(ask.needs, offer.capabilities) {
            self.lacks = Some(what);
        } else if ask.max_price.is_some_and(|most| offer.price > most) && !own {
            self.dear = Some(self.dear.map_or(offer.price, |price| price.min(offer.price)));
        } else if !node.accepts(own) {
            self.away = Some(node.why);
        } else if ask.tried.contains(key) {
            self.tried = true;
        } else if !node.has_room(service, own) {
            self.full = true;
        } else {
            return Some(Candidate { key, node, service, own });
        }
        None
    }
}

/// Warm before cold; then of two at random the less loaded, then the quicker.
fn pick<'a>(eligible: &[Candidate<'a>], random: u64) -> Option<Candidate<'a>> {
    let warm: Vec<Candidate<'a>> = eligible.iter().filter(|it| it.service.offer.warm).copied().collect();
    let pool = if warm.is_empty() { eligible } else { &warm };
    let at = |random: u64| usize::try_from(random).ok().and_then(|random| random.checked_rem(pool.len()));
    let first = at(random & 0xffff)?;
    let mut second = at((random >> 16) & 0xffff)?;
    if second == first {
        second = (first + 1) % pool.len();
    }
    let rank = |it: &Candidate<'_>| {
        (u64::from(it.service.running) * 1000 / u64::from(it.service.offer.slots), it.node.first_token_ms)
    };
    let (first, second) = (pool.get(first)?, pool.get(second)?);
    Some(if rank(second) < rank(first) { *second } else { *first })
}
