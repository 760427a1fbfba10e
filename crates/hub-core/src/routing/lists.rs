//! The lists that a choice looks through: for each name and each audience, who offers it, in entries small enough that a pass
//! over ten thousand stays within tens of microseconds.
//!
//! Not here: what an entry means ([`super::find`]).

use std::collections::HashMap;

use idlewatt_protocol::{Price, Region};

use crate::ledger::AccountName;

/// For whom a list is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
}

/// All lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    lists: Vec<Option<List>>,
    vacant: Vec<usize>,
    by_name: HashMap<String, HashMap<Audience, usize>>,
}

impl Lists {
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
                *place = Some(List { name, audience, entries: Vec::new() });
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

    /// Removes an entry; the one that takes its place, and where that was.
    pub(super) fn remove(&mut self, spot: Spot) -> Option<(Entry, Spot)> {
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
        list.entries.get(spot.at).map(|moved| (*moved, from))
    }

    pub(super) fn entry(&mut self, spot: Spot) -> Option<&mut Entry> {
        self.lists.get_mut(spot.list)?.as_mut()?.entries.get_mut(spot.at)
    }

    /// Everyone who offers `name` to `audience`.
    pub(super) fn of(&self, name: &str, audience: &Audience) -> &[Entry] {
        let list = self.by_name.get(name).and_then(|audiences| audiences.get(audience));
        list.and_then(|list| self.lists.get(*list)?.as_ref()).map_or(&[], |list| &list.entries)
    }
}
