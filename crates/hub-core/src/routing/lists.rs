//! The lists that a choice looks through: for each name and each audience, who offers it, in entries small enough that a pass
//! over ten thousand stays within tens of microseconds.
//!
//! Not here: what an entry means ([`super::find`]).

use std::collections::HashMap;

use idlewatt_protocol::{Price, Region};

use crate::ledger::AccountName;

/// For whom a list is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Audience {
    /// Members of this circle.
    Circle(AccountName),
    /// Everyone whom the hub's operator let in.
    Hub,
    /// Everyone.
    Strangers,
}

/// One service of one node, as far as a choice has to know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) node: u32,
    pub(super) account: u32,
    pub(super) price: Price,
    pub(super) region: Option<Region>,
    pub(super) service: u16,
    /// What it was seen to do, one bit each.
    pub(super) able: u16,
    pub(super) warm: bool,
    pub(super) accepting: bool,
    pub(super) room: bool,
    /// Its host blocks somebody.
    pub(super) picky: bool,
}

impl Spot {
    pub(super) fn at(self) -> usize {
        self.at
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    list: usize,
    at: usize,
}

#[derive(Debug)]
struct List {
    name: String,
    audience: Audience,
    entries: Vec<Entry>,
    /// So many at the front have room for anyone, and no other has.
    ready: usize,
}

/// An entry is elsewhere now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) entry: Entry,
    pub(super) from: Spot,
    pub(super) to: Spot,
}

type Moves = [Option<Move>; 2];

impl List {
    fn swap(&mut self, list: usize, a: usize, b: usize) -> Moves {
        if a == b {
            return [None, None];
        }
        self.entries.swap(a, b);
        let moved = |from, to| {
            let entry = *self.entries.get(to)?;
            Some(Move { entry, from: Spot { list, at: from }, to: Spot { list, at: to } })
        };
        [moved(b, a), moved(a, b)]
    }

    /// Puts an entry among those that are ready, or out of them.
    fn sort(&mut self, list: usize, at: usize, is_ready: bool) -> Moves {
        match (at < self.ready, is_ready) {
            (false, true) => {
                self.ready += 1;
                self.swap(list, at, self.ready - 1)
            }
            (true, false) => {
                self.ready -= 1;
                self.swap(list, at, self.ready)
            }
            _ => [None, None],
        }
    }
}

/// All lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    lists: Vec<Option<List>>,
    vacant: Vec<usize>,
    by_name: HashMap<String, HashMap<Audience, usize>>,
}

impl Lists {
    /// Lists an entry, at the end: [`update`](Self::update) puts it where it belongs.
    pub(super) fn insert(&mut self, name: &str, audience: &Audience, entry: Entry) -> Spot {
        let known = self.by_name.get(name).and_then(|audiences| audiences.get(audience)).copied();
        let list = known.unwrap_or_else(|| {
            let list = self.vacant.pop().unwrap_or_else(|| {
                self.lists.push(None);
                self.lists.len() - 1
            });
            self.by_name.entry(name.to_owned()).or_default().insert(audience.clone(), list);
            if let Some(place) = self.lists.get_mut(list) {
                let (name, audience) = (name.to_owned(), audience.clone());
                *place = Some(List { name, audience, entries: Vec::new(), ready: 0 });
            }
            list
        });
        let entries = self.lists.get_mut(list).and_then(Option::as_mut).map(|list| &mut list.entries);
        let at = entries.map_or(0, |entries| {
            entries.push(entry);
            entries.len() - 1
        });
        Spot { list, at }
    }

    /// Notes whether an entry takes requests and has room. Whoever moved for it, itself included, is told.
    pub(super) fn update(&mut self, spot: Spot, accepting: bool, room: bool) -> Moves {
        let Some(list) = self.lists.get_mut(spot.list).and_then(Option::as_mut) else { return [None, None] };
        let Some(entry) = list.entries.get_mut(spot.at) else { return [None, None] };
        (entry.accepting, entry.room) = (accepting, room);
        list.sort(spot.list, spot.at, accepting && room)
    }

    /// Removes an entry that was [`update`](Self::update)d not to be ready. Whoever takes its place is told.
    pub(super) fn remove(&mut self, spot: Spot) -> Option<Move> {
        let place = self.lists.get_mut(spot.list)?;
        let list = place.as_mut()?;
        if spot.at >= list.entries.len() {
            return None;
        }
        list.entries.swap_remove(spot.at);
        let from = Spot { at: list.entries.len(), ..spot };
        if list.entries.is_empty() {
            let List { name, audience, .. } = place.take()?;
            self.vacant.push(spot.list);
            let audiences = self.by_name.get_mut(&name)?;
            audiences.remove(&audience);
            if audiences.is_empty() {
                self.by_name.remove(&name);
            }
            return None;
        }
        list.entries.get(spot.at).map(|entry| Move { entry: *entry, from, to: spot })
    }

    /// Everyone who offers `name` to `audience`: who is ready, and the others.
    pub(super) fn of(&self, name: &str, audience: &Audience) -> (&[Entry], &[Entry]) {
        let list = self.by_name.get(name).and_then(|audiences| audiences.get(audience));
        let list = list.and_then(|list| self.lists.get(*list)?.as_ref());
        list.map_or((&[], &[]), |list| list.entries.split_at(list.ready.min(list.entries.len())))
    }

    /// The entry there, and whether it is among those that are ready.
    #[cfg(test)]
    pub(super) fn at(&self, spot: Spot) -> Option<(&Entry, bool)> {
        let list = self.lists.get(spot.list)?.as_ref()?;
        Some((list.entries.get(spot.at)?, spot.at < list.ready))
    }

    /// Whether anyone offers `name` to `audience`.
    pub(super) fn has(&self, name: &str, audience: &Audience) -> bool {
        self.by_name.get(name).is_some_and(|audiences| audiences.contains_key(audience))
    }
}
