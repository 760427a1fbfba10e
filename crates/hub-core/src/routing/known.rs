//! The models that were offered here and to whom, so that asking for one that nobody serves now is "not now", and whoever it
//! was never offered to learns nothing of it.
//!
//! Not here: who offers what now ([`super::lists`]).

use std::collections::{BTreeMap, BTreeSet};

use idlewatt_protocol::Artefact;

use super::lists::Audience;
use crate::ledger::AccountName;

/// Models remembered, each once for everyone it was offered to.
const MAX_KNOWN: usize = 10_000;

/// Who could find a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Its host alone.
    Own(AccountName),
    /// All of these.
    All(Audience),
}

/// Every model that was offered since the start.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<(String, Reach), Artefact>);

impl Known {
    /// It is offered to these now.
    pub(super) fn insert(&mut self, artefact: &Artefact, reach: Reach) {
        if self.0.len() < MAX_KNOWN {
            self.0.insert((artefact.name(), reach), artefact.clone());
        }
    }

    /// Whether a model of this name was ever offered to one of these.
    pub(super) fn has(&self, model: &str, reach: &[Reach]) -> bool {
        self.0.iter().any(|((_, to), artefact)| reach.contains(to) && artefact.answers_to(model))
    }

    /// The full names of all of them.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.0.keys().map(|(name, _)| name.as_str()).collect()
    }
}
