//! The choice itself: who will do, what stands in the way of the others, and which of those who will do is best.

use std::sync::Arc;

use idlewatt_protocol::{Class, Price, PublicKey, Scope};

use super::known::Reach;
use super::lists::{Audience, Entry};
use super::{AWAY_RETRY, Ask, Choice, NoRoute, Node, Router, SAMPLE, Service, near, needs};
use crate::ledger::AccountName;

/// Taken for the time to a first token until it was measured, milliseconds.
const FIRST_TOKEN_MS: u64 = 500;
/// Taken for the time to load a cold model until it was measured, milliseconds.
const LOAD_MS: u64 = 30_000;

/// A request in the terms of the lists.
struct Terms<'a> {
    ask: &'a Ask<'a>,
    /// The name under which it is listed.
    name: &'a str,
    /// Only a digest tells which of those are meant.
    by_digest: bool,
    able: u16,
    /// The asker's account, where it has nodes here.
    account: Option<u32>,
    tried: Vec<u32>,
}

/// What stood in the way, over all services that answer to the name.
#[derive(Default)]
struct Seen {
    full: bool,
    tried: bool,
    away: Option<u32>,
    dear: Option<Price>,
    elsewhere: bool,
    lacks: Option<&'static str>,
}

/// Who will do.
#[derive(Default)]
struct Eligible {
    warm: Vec<(u32, u16)>,
    cold: Vec<(u32, u16)>,
}

impl Router {
    pub(super) fn find(&self, ask: &Ask<'_>, random: u64) -> Result<Choice, NoRoute> {
        let terms = self.terms(ask);
        let mut seen = Seen::default();
        let cached = self.affinity.find(&ask.wanted.prefix).and_then(|key| self.by_key.get(&key)).copied();
        let own = self.own(&terms, &mut seen);
        if let Some(best) = self.pick(&own, cached, random) {
            return self.choice(best, true).ok_or(NoRoute::Busy);
        }
        for audience in self.audiences(ask.account, ask.wanted.scope) {
            let (ready, others) = self.lists.of(terms.name, &audience);
            if let Some(best) = cached.and_then(|at| self.cached(&terms, ready, at)) {
                return self.choice(best, false).ok_or(NoRoute::Busy);
            }
            let eligible = self.ready(&terms, ready, &mut seen, random);
            if let Some(best) = self.pick(&eligible, None, random) {
                return self.choice(best, false).ok_or(NoRoute::Busy);
            }
            // Of the others only what stands in the way is wanted; that one is full says all.
            let mut not_own = others.iter().filter(|entry| terms.account != Some(entry.account));
            while !seen.full
                && let Some(entry) = not_own.next()
            {
                self.judge(&terms, entry, false, &mut seen);
            }
        }
        Err(self.none(ask, &seen))
    }

    /// Whether this very node can take it now, and with which service; its slot is taken.
    pub(super) fn choose_on(&mut self, node: &PublicKey, ask: &Ask<'_>) -> Option<Choice> {
        let at = *self.by_key.get(node)?;
        let (host, terms) = (self.node(at)?, self.terms(ask));
        let distance = self.distance(ask.account, &host.account)?;
        if distance > ask.wanted.scope {
            return None;
        }
        let own = distance == Scope::Own;
        let mut eligible = Eligible::default();
        for (service, number) in host.services.iter().zip(0u16..) {
            let entry = self.entry(at, number, host, service);
            let judged = distance <= service.offer.scope
                && service.offer.artefact.answers_to(&ask.wanted.model)
                && self.judge(&terms, &entry, own, &mut Seen::default());
            if judged {
                eligible.add(&entry);
            }
        }
        let best = self.pick(&eligible, None, 0)?;
        let choice = self.choice(best, own)?;
        self.take(&choice);
        Some(choice)
    }

    fn terms<'a>(&self, ask: &'a Ask<'a>) -> Terms<'a> {
        let (name, by_digest) = match ask.wanted.model.split_once('@') {
            Some((name, _)) => (name, true),
            None => (ask.wanted.model.as_str(), false),
        };
        Terms {
            ask,
            name,
            by_digest,
            able: needs::bits(ask.wanted.needs),
            account: self.by_account.get(ask.account).map(|mine| mine.id),
            tried: ask.tried.iter().filter_map(|key| self.by_key.get(key)).copied().collect(),
        }
    }

    /// Whose nodes may answer, the nearest first.
    fn audiences(&self, account: &AccountName, scope: Scope) -> Vec<Audience> {
        let mut audiences = Vec::new();
        if scope >= Scope::Circle {
            audiences.extend(self.directory.group_of(account).cloned().map(Audience::Circle));
            audiences.extend((!self.directory.is_open()).then_some(Audience::Hub));
        }
        audiences.extend((scope == Scope::Public).then_some(Audience::Strangers));
        audiences
    }

    fn own(&self, terms: &Terms<'_>, seen: &mut Seen) -> Eligible {
        let mut eligible = Eligible::default();
        let mine = self.by_account.get(terms.ask.account).map_or(&[][..], |mine| &mine.nodes);
        for (at, node) in mine.iter().filter_map(|at| Some((*at, self.node(*at)?))) {
            for (service, number) in node.services.iter().zip(0u16..) {
                let entry = self.entry(at, number, node, service);
                if service.offer.artefact.answers_to(&terms.ask.wanted.model)
                    && self.judge(terms, &entry, true, seen)
                {
                    eligible.add(&entry);
                }
            }
        }
        eligible
    }

    /// From a random place on, until enough will do.
    fn ready(&self, terms: &Terms<'_>, list: &[Entry], seen: &mut Seen, random: u64) -> Eligible {
        let mut eligible = Eligible::default();
        let start = usize::try_from(random >> 32).unwrap_or(0).checked_rem(list.len()).unwrap_or(0);
        let (before, after) = list.split_at(start);
        for entry in after.iter().chain(before) {
            if terms.account != Some(entry.account) && self.judge(terms, entry, false, seen) {
                eligible.add(entry);
                if eligible.warm.len() == SAMPLE {
                    break;
                }
            }
        }
        eligible
    }

    /// The node that answered last, where it is on this list and will do.
    fn cached(&self, terms: &Terms<'_>, list: &[Entry], at: u32) -> Option<(u32, u16)> {
        let node = self.node(at)?;
        let spots = node.services.iter().flat_map(|service| &service.spots);
        let mut entries = spots.filter_map(|spot| list.get(spot.at()).filter(|entry| entry.node == at));
        let entry = entries.find(|entry| {
            entry.warm
                && terms.account != Some(entry.account)
                && self.judge(terms, entry, false, &mut Seen::default())
        })?;
        Some((entry.node, entry.service))
    }

    /// Whether a service will do; otherwise what stands in the way is noted.
    fn judge(&self, terms: &Terms<'_>, entry: &Entry, own: bool, seen: &mut Seen) -> bool {
        let wanted = terms.ask.wanted;
        if terms.by_digest && !own && !self.is_meant(entry, &wanted.model) {
            return false;
        }
        if entry.picky && !own && self.is_blocked(entry, terms.ask) {
            return false;
        }
        let accepts = entry.accepting || own && self.node(entry.node).is_some_and(|node| node.own);
        if terms.able & !entry.able != 0 {
            if seen.lacks.is_none() {
                seen.lacks = needs::lacks(terms.able & !entry.able);
            }
        } else if wanted.region.is_some_and(|wanted| !entry.region.is_some_and(|it| wanted.holds(&it))) {
            seen.elsewhere = true;
        } else if wanted.max_price.is_some_and(|most| entry.price > most) && !own {
            seen.dear = Some(seen.dear.map_or(entry.price, |price| price.min(entry.price)));
        } else if !accepts {
            seen.away = Some(entry.node);
        } else if terms.tried.contains(&entry.node) {
            seen.tried = true;
        } else if !entry.room {
            seen.full = true;
        } else {
            return true;
        }
        false
    }

    fn is_meant(&self, entry: &Entry, model: &str) -> bool {
        let service = self.node(entry.node).and_then(|node| node.services.get(usize::from(entry.service)));
        service.is_some_and(|service| service.offer.artefact.answers_to(model))
    }

    fn is_blocked(&self, entry: &Entry, ask: &Ask<'_>) -> bool {
        self.node(entry.node).is_some_and(|node| self.distance(ask.account, &node.account).is_none())
    }

    /// Warm before cold; who has the beginning cached; then of two at random the one that promises to begin earlier.
    fn pick(&self, eligible: &Eligible, cached: Option<u32>, random: u64) -> Option<(u32, u16)> {
        let pool = if eligible.warm.is_empty() { &eligible.cold } else { &eligible.warm };
        if let Some(hit) = pool.iter().find(|(node, _)| cached == Some(*node)) {
            return Some(*hit);
        }
        let at = |random: u64| usize::try_from(random).ok().and_then(|random| random.checked_rem(pool.len()));
        let first = at(random & 0xffff)?;
        let mut second = at((random >> 16) & 0xffff)?;
        if second == first {
            second = (first + 1) % pool.len();
        }
        let (first, second) = (*pool.get(first)?, *pool.get(second)?);
        Some(if self.promise(second) < self.promise(first) { second } else { first })
    }

    /// About when it would begin to answer, microseconds from now: its measured time to a first token, more of it the more
    /// of its slots are at work, and the time to load the model.
    fn promise(&self, (at, service): (u32, u16)) -> u64 {
        let Some(node) = self.node(at) else { return u64::MAX };
        let Some(service) = node.services.get(usize::from(service)) else { return u64::MAX };
        let offer = &service.offer;
        let first = if node.first_token_ms == 0 { FIRST_TOKEN_MS } else { node.first_token_ms.into() };
        let load = if offer.warm { 0 } else { offer.load_ms.map_or(LOAD_MS, u64::from) };
        let slots = u64::from(offer.slots.max(1));
        load * 1000 + first * 1000 * (slots + u64::from(service.running)) / slots
    }

    fn choice(&self, (at, service): (u32, u16), own: bool) -> Option<Choice> {
        let node = self.node(at)?;
        let offer = Arc::clone(&node.services.get(usize::from(service))?.offer);
        Some(Choice { node: node.key, offer, own })
    }

    fn entry(&self, at: u32, number: u16, node: &Node, service: &Service) -> Entry {
        let offer = &service.offer;
        Entry {
            node: at,
            account: self.by_account.get(&node.account).map_or(0, |mine| mine.id),
            price: offer.price,
            region: offer.region,
            service: number,
            able: needs::bits(offer.capabilities),
            warm: offer.warm,
            accepting: node.accepting,
            room: node.has_room(service),
            picky: self.directory.is_picky(&node.account),
        }
    }

    fn none(&self, ask: &Ask<'_>, seen: &Seen) -> NoRoute {
        let model = &ask.wanted.model;
        if seen.full {
            return NoRoute::Busy;
        }
        if seen.tried {
            return NoRoute::Tried;
        }
        if let Some(at) = seen.away {
            let why: Option<Class> = self.node(at).and_then(|node| node.why);
            return NoRoute::Away { why, retry_after: AWAY_RETRY };
        }
        if let Some(cheapest) = seen.dear {
            return NoRoute::TooDear { cheapest };
        }
        if seen.elsewhere {
            return NoRoute::Elsewhere;
        }
        if let Some(what) = seen.lacks {
            return NoRoute::Unsupported(what);
        }
        let name = model.split('@').next().unwrap_or(model);
        let near = self.audiences(ask.account, ask.wanted.scope);
        for needs in [Scope::Circle, Scope::Public] {
            let further = self.audiences(ask.account, needs).into_iter().filter(|it| !near.contains(it));
            let lists = further.map(|audience| self.lists.of(name, &audience));
            let mut entries = lists.flat_map(|(ready, others)| ready.iter().chain(others));
            if entries.any(|entry| self.is_meant(entry, model)) {
                return NoRoute::OutOfScope { needs };
            }
        }
        // Of models that are none of the asker's business not even the names are told.
        let audiences = self.audiences(ask.account, Scope::Public);
        let own = Reach::Own(ask.account.clone());
        let reach: Vec<Reach> = audiences.iter().cloned().map(Reach::All).chain([own]).collect();
        if self.known.has(model, &reach) {
            return NoRoute::Away { why: None, retry_after: AWAY_RETRY };
        }
        let is_in_reach = |name: &&str| audiences.iter().any(|audience| self.lists.has(name, audience));
        NoRoute::Unknown { near: near::names(model, self.known.names().into_iter().filter(is_in_reach)) }
    }
}

impl Eligible {
    fn add(&mut self, entry: &Entry) {
        let pool = if entry.warm { &mut self.warm } else { &mut self.cold };
        if pool.len() < SAMPLE {
            pool.push((entry.node, entry.service));
        }
    }
}
