//! Which node answers: every connected node's offer and load in one table, and a choice from it in a few microseconds.
//!
//! Order of the rules: how near (the asker's own nodes, its circles', strangers') as far as scope and the host's block list
//! allow → artefact, capabilities, region → price → free slot → warm before cold → who has the conversation's beginning
//! cached → of two picked at random the one that promises the earlier first token. Randomness is passed in.
//!
//! A choice looks through a list of small entries ([`lists`]), those with room first, from a random place until it has seen
//! [`SAMPLE`] that will do: what it costs grows with the hub only where few of those with room will do.
//!
//! Not here: retries, time and sockets (the hub's shell), and whether the asker can pay ([`crate::ledger`]).

mod affinity;
mod find;
mod hedge;
mod known;
mod lists;
mod near;
mod needs;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use idlewatt_protocol::message::State;
use idlewatt_protocol::{Artefact, Capabilities, Class, Price, PublicKey, Region, Scope, ServiceOffer};

use crate::circles::{Directory, Relation};
use crate::ledger::AccountName;
use affinity::Affinity;
use hedge::Allowance;
use known::{Known, Reach};
use lists::{Audience, Entry, Lists, Move, Spot};
use needs::union;

pub use affinity::{Fingerprints, Prefix};
pub use needs::needs_of;
pub use queue::{Entered, MAX_WAITING, Place, Queue, QueueFull, Served};

/// Eligible services looked at in one choice.
pub const SAMPLE: usize = 16;

/// When to ask again for a model that nobody serves right now.
const AWAY_RETRY: Duration = Duration::from_secs(5);

/// What a request wants of whoever answers it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The model as the consumer names it: `model`, `model:quantisation` or `model@sha256:…`.
    pub model: String,
    /// Everything that the request needs of a service.
    pub needs: Capabilities,
    /// The dearest price that the consumer accepts.
    pub max_price: Option<Price>,
    /// How far the request may travel.
    pub scope: Scope,
    /// Where the node must stand.
    pub region: Option<Region>,
    /// The beginning of the conversation.
    pub prefix: Prefix,
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub account: &'a AccountName,
    /// What is wanted.
    pub wanted: &'a Wanted,
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
    /// No node of this hub ever offered such a model to this account.
    Unknown {
        /// Models with a similar name.
        near: Vec<String>,
    },
    /// It is there, outside the scope of the request.
    OutOfScope {
        /// The scope that would find it.
        needs: Scope,
    },
    /// Some service has the model, none has this.
    Unsupported(&'static str),
    /// Services are there, none in the region.
    Elsewhere,
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
    /// The narrowest scope in which it is found.
    pub scope: Scope,
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
    key: PublicKey,
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
    /// Moving average of the bytes asked, over the same requests.
    asked_bytes: u32,
}

#[derive(Debug)]
struct Service {
    offer: Arc<ServiceOffer>,
    running: u32,
    /// Where it is listed.
    spots: Vec<Spot>,
}

impl Node {
    fn new(key: PublicKey, account: AccountName) -> Self {
        Self {
            key,
            account,
            services: Vec::new(),
            accepting: false,
            own: false,
            why: None,
            hinted: 0,
            given: 0,
            first_token_ms: 0,
            asked_bytes: 0,
        }
    }

    fn has_room(&self, service: &Service) -> bool {
        service.running < service.offer.slots && self.given < self.hinted
    }

    fn service(&mut self, name: &str) -> Option<&mut Service> {
        self.services.iter_mut().find(|service| service.offer.service == name)
    }
}

/// The nodes of one account.
#[derive(Debug)]
struct Mine {
    /// Short for the account's name while it has a node here.
    id: u32,
    nodes: Vec<u32>,
}

/// Every connected node, what it offers and how busy it is.
#[derive(Debug, Default)]
pub struct Router {
    nodes: Vec<Option<Node>>,
    vacant: Vec<u32>,
    by_key: HashMap<PublicKey, u32>,
    by_account: HashMap<AccountName, Mine>,
    accounts: u32,
    directory: Arc<Directory>,
    lists: Lists,
    affinity: Affinity,
    hedges: Allowance,
    known: Known,
}

impl Router {
    /// A node is connected; it offers nothing yet. An older session of it is forgotten.
    pub fn join(&mut self, key: PublicKey, account: AccountName) {
        self.leave(&key);
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        });
        let accounts = &mut self.accounts;
        let mine = self.by_account.entry(account.clone()).or_insert_with(|| {
            *accounts = accounts.wrapping_add(1);
            Mine { id: *accounts, nodes: Vec::new() }
        });
        mine.nodes.push(at);
        self.by_key.insert(key, at);
        if let Some(place) = self.nodes.get_mut(at as usize) {
            *place = Some(Node::new(key, account));
        }
    }

    /// A node is gone.
    pub fn leave(&mut self, key: &PublicKey) {
        let Some(at) = self.by_key.remove(key) else { return };
        self.unlist(at);
        let Some(node) = self.nodes.get_mut(at as usize).and_then(Option::take) else { return };
        self.vacant.push(at);
        if let Some(mine) = self.by_account.get_mut(&node.account) {
            mine.nodes.retain(|other| *other != at);
            if mine.nodes.is_empty() {
                self.by_account.remove(&node.account);
            }
        }
    }

    /// A node offers these services and no others.
    pub fn offer(&mut self, key: &PublicKey, offers: Vec<ServiceOffer>) {
        let Some(at) = self.by_key.get(key).copied() else { return };
        self.unlist(at);
        let Some(node) = self.nodes.get_mut(at as usize).and_then(Option::as_mut) else { return };
        let before = std::mem::take(&mut node.services);
        for offer in offers {
            let running =
                before.iter().find(|old| old.offer.service == offer.service).map_or(0, |old| old.running);
            node.services.push(Service { offer: Arc::new(offer), running, spots: Vec::new() });
        }
        self.list(at);
    }

    /// A node takes requests, or does not.
    pub fn state(&mut self, key: &PublicKey, state: &State) {
        self.with(key, |node| {
            node.accepting = state.accepting;
            node.own = state.own;
            node.why = state.why;
            node.hinted = state.free_slots;
            node.given = 0;
        });
    }

    /// A node ended everything that ran, or is about to go: until it says otherwise nothing more is given to it.
    pub fn away(&mut self, key: &PublicKey, why: Class) {
        self.with(key, |node| {
            (node.accepting, node.why) = (false, Some(why));
            // What it said of its own account holds: a pause says so before its last request has ended.
            node.own &= why == Class::Busy;
        });
    }

    /// A node refused because it was busy: it gets nothing more until it says that it has room, one of its requests ends, or
    /// [`maybe_free`](Self::maybe_free). Nothing else of it changes.
    pub fn full(&mut self, key: &PublicKey) {
        self.with(key, |node| node.hinted = node.given);
    }

    /// Nothing was heard of a node that was [`full`](Self::full): it is worth one more question.
    pub fn maybe_free(&mut self, key: &PublicKey) {
        self.with(key, |node| node.hinted = node.hinted.max(node.given + 1));
    }

    /// Who is in whose circle and whom hosts refuse, in the place of what was known of it. The nodes of those to whom it makes
    /// a difference.
    pub fn know(&mut self, directory: Arc<Directory>) -> Vec<PublicKey> {
        let before = std::mem::replace(&mut self.directory, directory);
        let place = |directory: &Directory, account| {
            (directory.is_open(), directory.group_of(account).cloned(), directory.is_picky(account))
        };
        let differs = |account| place(&before, account) != place(&self.directory, account);
        let mine = self.by_account.iter().filter(|(account, _)| differs(account));
        let nodes: Vec<u32> = mine.flat_map(|(_, mine)| mine.nodes.iter().copied()).collect();
        for at in &nodes {
            self.unlist(*at);
            self.list(*at);
        }
        nodes.into_iter().filter_map(|at| self.node(at)).map(|node| node.key).collect()
    }

    /// Whether a node takes requests; `None` when it is not connected.
    #[must_use]
    pub fn is_accepting(&self, key: &PublicKey) -> Option<bool> {
        self.by_key.get(key).and_then(|at| self.node(*at)).map(|node| node.accepting)
    }

    /// Nodes connected, and of those the ones that take requests.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.by_key.len(), self.nodes.iter().flatten().filter(|node| node.accepting).count())
    }

    /// Chooses a node and takes a slot of it.
    ///
    /// # Errors
    /// When there is none, and why.
    pub fn choose(&mut self, ask: &Ask<'_>, random: u64) -> Result<Choice, NoRoute> {
        let choice = self.find(ask, random)?;
        self.take(&choice);
        Ok(choice)
    }

    fn take(&mut self, choice: &Choice) {
        self.hedges.earn();
        self.with(&choice.node, |node| {
            node.given += 1;
            if let Some(service) = node.service(&choice.offer.service) {
                service.running += 1;
            }
        });
    }

    /// Gives a slot back. `first_token` is the time this node took to its first token of a body of so many bytes, where it
    /// came that far.
    pub fn release(&mut self, choice: &Choice, first_token: Option<(Duration, u64)>) {
        self.with(&choice.node, |node| {
            node.given = node.given.saturating_sub(1);
            if let Some((took, bytes)) = first_token {
                let ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX).max(1);
                let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
                node.first_token_ms = average(node.first_token_ms, ms);
                node.asked_bytes = average(node.asked_bytes, bytes);
            }
            if let Some(service) = node.service(&choice.offer.service) {
                service.running = service.running.saturating_sub(1);
            }
        });
    }

    /// This node has the whole of this request's conversation in its cache now.
    pub fn remember(&mut self, choice: &Choice, prefix: &Prefix) {
        self.affinity.remember(prefix, choice.node);
    }

    /// Every model that is offered now, by name: what is in this account's reach, or in everybody's on the hub.
    #[must_use]
    pub fn models(&self, reader: Option<&AccountName>) -> Vec<Model> {
        let mut models: BTreeMap<String, Model> = BTreeMap::new();
        for node in self.nodes.iter().flatten() {
            let distance = match reader {
                Some(reader) => self.distance(reader, &node.account),
                None => Some(scope(self.directory.relation_to_anyone(&node.account))),
            };
            let Some(distance) = distance else { continue };
            for Service { offer, .. } in node.services.iter().filter(|it| distance <= it.offer.scope) {
                let model = models.entry(offer.artefact.name()).or_insert_with(|| Model {
                    name: offer.artefact.name(),
                    base: offer.artefact.model.clone(),
                    artefact: offer.artefact.clone(),
                    price: (offer.price, offer.price),
                    nodes: 0,
                    scope: distance,
                    available: false,
                    warm: false,
                    context: 0,
                    capabilities: Capabilities::default(),
                });
                model.price = (model.price.0.min(offer.price), model.price.1.max(offer.price));
                model.nodes += 1;
                model.scope = model.scope.min(distance);
                model.available |= node.accepting;
                model.warm |= offer.warm;
                model.context = model.context.max(offer.context);
                model.capabilities = union(model.capabilities, offer.capabilities);
            }
        }
        models.into_values().collect()
    }

    /// The scope in which a node of `host` is found by `asker`; `None` when it does not answer `asker` at all.
    fn distance(&self, asker: &AccountName, host: &AccountName) -> Option<Scope> {
        self.directory.relation(asker, host).map(scope)
    }

    fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)?.as_ref()
    }

    /// Changes a node and what the lists say of its room.
    fn with(&mut self, key: &PublicKey, change: impl FnOnce(&mut Node)) {
        let Some(at) = self.by_key.get(key).copied() else { return };
        let Some(node) = self.nodes.get_mut(at as usize).and_then(Option::as_mut) else { return };
        change(node);
        self.update(at, |node, service| (node.accepting, node.has_room(service)));
    }

    /// Says anew of every entry of a node whether it takes requests and has room.
    fn update(&mut self, at: u32, says: impl Fn(&Node, &Service) -> (bool, bool)) {
        for number in 0.. {
            let Some((node, service)) =
                self.node(at).and_then(|node| Some((node, node.services.get(number)?)))
            else {
                return;
            };
            let ((accepting, room), spots) = (says(node, service), service.spots.len());
            for number_of_spot in 0..spots {
                let service = self.node(at).and_then(|node| node.services.get(number));
                let Some(spot) = service.and_then(|service| service.spots.get(number_of_spot)) else {
                    return;
                };
                let moves = self.lists.update(*spot, accepting, room);
                moves.into_iter().flatten().for_each(|moved| self.moved(moved));
            }
        }
    }

    fn moved(&mut self, Move { entry, from, to }: Move) {
        let node = self.nodes.get_mut(entry.node as usize).and_then(Option::as_mut);
        let service = node.and_then(|node| node.services.get_mut(usize::from(entry.service)));
        if let Some(spot) = service.and_then(|it| it.spots.iter_mut().find(|spot| **spot == from)) {
            *spot = to;
        }
    }

    fn list(&mut self, at: u32) {
        let Some(node) = self.nodes.get_mut(at as usize).and_then(Option::as_mut) else { return };
        let account = self.by_account.get(&node.account).map_or(0, |mine| mine.id);
        let circle = match self.directory.group_of(&node.account) {
            Some(group) => Some(Audience::Circle(group.clone())),
            None if self.directory.is_open() => None,
            None => Some(Audience::Hub),
        };
        let picky = self.directory.is_picky(&node.account);
        for number in 0..node.services.len() {
            let Some(service) = node.services.get(number) else { continue };
            let offer = Arc::clone(&service.offer);
            let entry = Entry {
                node: at,
                service: u16::try_from(number).unwrap_or(u16::MAX),
                account,
                able: needs::bits(offer.capabilities),
                price: offer.price,
                region: offer.region,
                warm: offer.warm,
                accepting: node.accepting,
                room: node.has_room(service),
                picky,
            };
            let near = circle.as_ref().filter(|_| offer.scope >= Scope::Circle);
            let far = (offer.scope == Scope::Public).then_some(&Audience::Strangers);
            let widest = far.or(near).cloned();
            let reach = widest.map_or_else(|| Reach::Own(node.account.clone()), Reach::All);
            self.known.insert(&offer.artefact, reach);
            let full = offer.artefact.name();
            let base = (full != offer.artefact.model).then_some(&offer.artefact.model);
            for name in base.into_iter().chain([&full]) {
                for audience in near.into_iter().chain(far) {
                    let spot = self.lists.insert(name, audience, entry);
                    if let Some(service) = node.services.get_mut(number) {
                        service.spots.push(spot);
                    }
                }
            }
        }
        self.update(at, |node, service| (node.accepting, node.has_room(service)));
    }

    fn unlist(&mut self, at: u32) {
        self.update(at, |_, _| (false, false));
        while let Some(spot) = self
            .nodes
            .get_mut(at as usize)
            .and_then(Option::as_mut)
            .and_then(|node| node.services.iter_mut().find_map(|service| service.spots.pop()))
        {
            if let Some(moved) = self.lists.remove(spot) {
                self.moved(moved);
            }
        }
    }
}

/// The narrowest scope in which nodes of such a host are found.
fn scope(relation: Relation) -> Scope {
    match relation {
        Relation::Own => Scope::Own,
        Relation::Circle => Scope::Circle,
        Relation::Stranger => Scope::Public,
    }
}

/// An average that forgets: a quarter of the new.
fn average(before: u32, now: u32) -> u32 {
    if before == 0 { now } else { (before / 4 * 3).saturating_add(now / 4).max(1) }
}
