//! Who waits for a slot: one bounded line a model, fair to accounts.
//!
//! Each account waits in turns. Its first request stands in the turn that is being served, each further one a turn later, so
//! that whoever floods a line waits behind itself: a request waits for at most one turn of every other account that waits.
//! A line that is full makes room for an account that has less in it, at the end of the account that has most.
//!
//! A slot that becomes free is handed to who is next ([`Queue::next`]); nobody looks on his own, so nobody overtakes: whenever
//! a slot is free there is no one in line who could take it.
//!
//! Not here: how long anyone waits (the hub's shell).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use idlewatt_protocol::PublicKey;

use super::{Ask, Choice, NoRoute, Router, Wanted};
use crate::ledger::AccountName;

/// Requests that may wait for one model.
pub const MAX_WAITING: usize = 128;

/// A place in a line: first by turn, then by who came first. Who was served and could not be answered comes back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    turn: u64,
    came: u64,
}

/// The line is full, of others no greedier than this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WAITING} requests already wait for this model")]
pub struct QueueFull;

/// Someone took a place.
#[derive(Debug, PartialEq, Eq)]
pub struct Entered<T> {
    /// Which.
    pub place: Place,
    /// Who had to leave for it.
    pub displaced: Option<T>,
}

/// Someone's wait is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Served<T> {
    /// Whose.
    pub owner: T,
    /// The place that it had.
    pub place: Place,
    /// The slot that was taken for it; or why no slot can come free for it any more.
    pub outcome: Result<Choice, NoRoute>,
}

/// The lines of all models.
#[derive(Debug)]
pub struct Queue<T> {
    lines: HashMap<String, Line<T>>,
    came: u64,
    /// The highest turn of any line: a new one begins there, so that an old place is never behind a new one.
    turn: u64,
}

#[derive(Debug)]
struct Line<T> {
    /// The turn that is being served.
    turn: u64,
    waiting: BTreeMap<Place, Waiter<T>>,
    /// Of each account that waits: how many, and the turn of its next.
    accounts: HashMap<AccountName, (usize, u64)>,
}

#[derive(Debug)]
struct Waiter<T> {
    account: AccountName,
    wanted: Arc<Wanted>,
    tried: Vec<PublicKey>,
    owner: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), came: 0, turn: 0 }
    }
}

impl<T> Queue<T> {
    /// Takes a place in the line of the model that is asked for; `before` is the one it had, where it was served and could not
    /// be answered.
    ///
    /// # Errors
    /// When [`MAX_WAITING`] wait, none of whose accounts has more waiting than this one would.
    pub fn enter(
        &mut self,
        account: &AccountName,
        wanted: &Arc<Wanted>,
        tried: &[PublicKey],
        before: Option<Place>,
        owner: T,
    ) -> Result<Entered<T>, QueueFull> {
        self.came += 1;
        let line =
            self.lines.entry(line_of(&wanted.model).to_owned()).or_insert_with(|| Line::new(self.turn));
        let displaced = if line.waiting.len() >= MAX_WAITING { Some(line.displace(account)?) } else { None };
        let turn = line.turn;
        let (waiting, next) = line.accounts.entry(account.clone()).or_insert((0, turn));
        *waiting += 1;
        let place = before.unwrap_or_else(|| {
            let turn = turn.max(*next);
            *next = turn + 1;
            Place { turn, came: self.came }
        });
        let (account, tried) = (account.clone(), tried.to_vec());
        line.waiting.insert(place, Waiter { account, wanted: Arc::clone(wanted), tried, owner });
        Ok(Entered { place, displaced })
    }

    /// The place of a request that found a free slot at once, should it have to come back.
    pub fn at_once(&mut self, model: &str) -> Place {
        self.came += 1;
        Place { turn: self.lines.get(line_of(model)).map_or(self.turn, |line| line.turn), came: self.came }
    }

    /// Leaves the line before being served.
    pub fn leave(&mut self, model: &str, place: Place) {
        let Some(line) = self.lines.get_mut(line_of(model)) else { return };
        line.take(place);
        self.tidy(line_of(model));
    }

    /// Requests that wait, over all models.
    #[must_use]
    pub fn total(&self) -> usize {
        self.lines.values().map(|line| line.waiting.len()).sum()
    }

    /// Requests that wait for this model.
    #[must_use]
    pub fn waiting_for(&self, model: &str) -> usize {
        self.lines.get(line_of(model)).map_or(0, |line| line.waiting.len())
    }

    /// Who is next for a slot of this node; it is taken. To be asked until there is none, whenever the node may have room.
    pub fn next(&mut self, router: &mut Router, node: &PublicKey) -> Option<Served<T>> {
        for model in self.lines_of(router, node) {
            let Some(line) = self.lines.get_mut(&model) else { continue };
            let found = line.waiting.iter().find_map(|(place, waiter)| {
                let Waiter { account, wanted, tried, .. } = waiter;
                Some((*place, router.choose_on(node, &Ask { account, wanted, tried })?))
            });
            let Some((place, choice)) = found else { continue };
            line.turn = line.turn.max(place.turn);
            self.turn = self.turn.max(line.turn);
            let Some(waiter) = line.take(place) else { continue };
            self.tidy(&model);
            return Some(Served { owner: waiter.owner, place, outcome: Ok(choice) });
        }
        None
    }

    /// Those who wait in vain since this node went or stopped taking requests: nobody else has what they want.
    pub fn in_vain(&mut self, router: &Router, models: &[String]) -> Vec<Served<T>> {
        let mut over = Vec::new();
        for model in models {
            let Some(line) = self.lines.get_mut(line_of(model)) else { continue };
            let lost: Vec<(Place, NoRoute)> = line
                .waiting
                .iter()
                .filter_map(|(place, Waiter { account, wanted, tried, .. })| {
                    match router.find(&Ask { account, wanted, tried }, 0) {
                        Ok(_) | Err(NoRoute::Busy) => None,
                        Err(why) => Some((*place, why)),
                    }
                })
                .collect();
            for (place, why) in lost {
                let taken = line.take(place);
                over.extend(taken.map(|it| Served { owner: it.owner, place, outcome: Err(why) }));
            }
            self.tidy(line_of(model));
        }
        over
    }

    /// Everyone who waits leaves.
    pub fn disband(&mut self) -> Vec<T> {
        let lines = std::mem::take(&mut self.lines).into_values();
        lines.flat_map(|line| line.waiting.into_values().map(|waiter| waiter.owner)).collect()
    }

    /// The lines in which someone may wait for this node.
    fn lines_of(&self, router: &Router, node: &PublicKey) -> Vec<String> {
        if self.lines.is_empty() {
            return Vec::new();
        }
        router.models_of(node).into_iter().filter(|model| self.lines.contains_key(model)).collect()
    }

    fn tidy(&mut self, model: &str) {
        if self.lines.get(model).is_some_and(|line| line.waiting.is_empty()) {
            self.lines.remove(model);
        }
    }
}

impl<T> Line<T> {
    fn new(turn: u64) -> Self {
        Self { turn, waiting: BTreeMap::new(), accounts: HashMap::new() }
    }

    fn take(&mut self, place: Place) -> Option<Waiter<T>> {
        let waiter = self.waiting.remove(&place)?;
        if let Some((waiting, _)) = self.accounts.get_mut(&waiter.account) {
            *waiting -= 1;
            if *waiting == 0 {
                self.accounts.remove(&waiter.account);
            }
        }
        Some(waiter)
    }

    /// Takes the last of the account that has most waiting, where that is more than `account` would have.
    fn displace(&mut self, account: &AccountName) -> Result<T, QueueFull> {
        let mine = self.accounts.get(account).map_or(0, |(waiting, _)| *waiting) + 1;
        let most = self.accounts.iter().max_by_key(|(_, (waiting, _))| *waiting);
        let (greediest, _) = most.filter(|(_, (waiting, _))| *waiting > mine).ok_or(QueueFull)?;
        let last = self.waiting.iter().rev().find(|(_, waiter)| waiter.account == *greediest);
        let place = last.map(|(place, _)| *place).ok_or(QueueFull)?;
        if let Some((_, next)) = self.accounts.get_mut(&greediest.clone()) {
            *next = (*next).min(place.turn);
        }
        self.take(place).map(|waiter| waiter.owner).ok_or(QueueFull)
    }
}

/// Every name of a model waits in one line: its base name.
fn line_of(model: &str) -> &str {
    model.split([':', '@']).next().unwrap_or(model)
}

impl Router {
    /// The lines in which a node's services are waited for.
    #[must_use]
    pub fn models_of(&self, node: &PublicKey) -> Vec<String> {
        let node = self.by_key.get(node).and_then(|at| self.node(*at));
        let mut models: Vec<String> = node.map_or(Vec::new(), |node| {
            node.services.iter().map(|it| line_of(&it.offer.artefact.model).to_owned()).collect()
        });
        models.sort_unstable();
        models.dedup();
        models
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
