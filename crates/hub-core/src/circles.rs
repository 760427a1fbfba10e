//! Circles: whose node may answer whose requests.
//!
//! The hub itself is the first circle: who is in no group shares with everyone whom its operator let in. Who is in a group
//! shares with that group alone. On a hub that is open to strangers there is no such first circle: accounts of no group
//! are strangers to all. A host may refuse an account, or everybody of a group, whatever else holds.
//!
//! Not here: which node is chosen ([`crate::routing`]), and what a host's service offers to strangers (its own word).

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::ledger::AccountName;

/// What the owner of a node is to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// The same account.
    Own,
    /// Someone of the same circle.
    Circle,
    /// Anyone else: answered only by services that are offered to strangers.
    Stranger,
}

/// Whose requests a host's nodes do not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// Of these accounts.
    pub accounts: BTreeSet<AccountName>,
    /// Of every member of these groups.
    pub groups: BTreeSet<AccountName>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    group: Option<AccountName>,
    refuses: Refusals,
}

/// Which account is in which group, and whom it refuses. An account that is not named is in none and refuses nobody.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    places: HashMap<AccountName, Place>,
    is_open: bool,
}

impl Directory {
    /// A hub with nobody in it. `is_open`: its accounts need not know each other.
    #[must_use]
    pub fn new(is_open: bool) -> Self {
        Self { places: HashMap::new(), is_open }
    }

    /// Puts an account into a group, out of the one it was in; `None` puts it into none.
    pub fn place(&mut self, account: AccountName, group: Option<AccountName>) {
        self.places.entry(account).or_default().group = group;
    }

    /// Sets whom an account's nodes refuse.
    pub fn refuse(&mut self, account: AccountName, refuses: Refusals) {
        self.places.entry(account).or_default().refuses = refuses;
    }

    /// The group of an account.
    #[must_use]
    pub fn group_of(&self, account: &AccountName) -> Option<&AccountName> {
        self.places.get(account).and_then(|place| place.group.as_ref())
    }

    /// Whether its accounts need not know each other.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether a host refuses anybody.
    #[must_use]
    pub fn is_picky(&self, host: &AccountName) -> bool {
        self.places
            .get(host)
            .is_some_and(|it| !it.refuses.accounts.is_empty() || !it.refuses.groups.is_empty())
    }

    /// What `host` is to `asker`; `None` when it does not answer `asker` at all.
    #[must_use]
    pub fn relation(&self, asker: &AccountName, host: &AccountName) -> Option<Relation> {
        if asker == host {
            return Some(Relation::Own);
        }
        let askers = self.group_of(asker);
        let (hosts, refuses) = match self.places.get(host) {
            Some(place) => (place.group.as_ref(), Some(&place.refuses)),
            None => (None, None),
        };
        let is_refused = refuses.is_some_and(|it| {
            it.accounts.contains(asker) || askers.is_some_and(|group| it.groups.contains(group))
        });
        if is_refused {
            return None;
        }
        Some(match hosts {
            Some(_) if hosts == askers => Relation::Circle,
            _ => self.relation_to_anyone(host),
        })
    }

    /// What `host` is to everyone of the hub, whoever it is.
    #[must_use]
    pub fn relation_to_anyone(&self, host: &AccountName) -> Relation {
        if self.is_open || self.group_of(host).is_some() { Relation::Stranger } else { Relation::Circle }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn hub(is_open: bool) -> Directory {
        let mut directory = Directory::new(is_open);
        for (account, group) in
            [("anna", Some("home")), ("ben", Some("home")), ("cleo", Some("club")), ("dan", None)]
        {
            directory.place(name(account), group.map(name));
        }
        directory
    }

    #[test]
    fn a_group_is_private() {
        let hub = hub(false);
        let is = |asker, host| hub.relation(&name(asker), &name(host));
        assert_eq!(is("anna", "anna"), Some(Relation::Own));
        assert_eq!(is("anna", "ben"), Some(Relation::Circle));
        assert_eq!(is("cleo", "ben"), Some(Relation::Stranger));
        assert_eq!(is("dan", "ben"), Some(Relation::Stranger));
        assert_eq!(is("never-seen", "ben"), Some(Relation::Stranger));
    }

    #[test]
    fn who_is_in_no_group_shares_with_the_hub_unless_it_is_open() {
        for asker in ["anna", "cleo", "new"] {
            assert_eq!(hub(false).relation(&name(asker), &name("dan")), Some(Relation::Circle));
            assert_eq!(hub(true).relation(&name(asker), &name("dan")), Some(Relation::Stranger));
        }
        assert_eq!(hub(true).relation(&name("anna"), &name("ben")), Some(Relation::Circle));
    }

    #[test]
    fn a_host_refuses_an_account_or_a_whole_group_and_never_itself() {
        let mut hub = hub(false);
        let refuses = Refusals { accounts: [name("anna")].into(), groups: [name("home")].into() };
        hub.refuse(name("anna"), refuses.clone());
        hub.refuse(name("dan"), refuses);
        assert_eq!(hub.relation(&name("anna"), &name("anna")), Some(Relation::Own));
        assert_eq!(hub.relation(&name("anna"), &name("dan")), None);
        assert_eq!(hub.relation(&name("ben"), &name("dan")), None, "by its group");
        assert_eq!(hub.relation(&name("cleo"), &name("dan")), Some(Relation::Circle));
        hub.place(name("ben"), None);
        assert_eq!(hub.relation(&name("ben"), &name("dan")), Some(Relation::Circle));
    }

    proptest! {
        /// Opening a hub to strangers brings nobody closer, and a refusal takes away and never gives.
        #[test]
        fn opening_and_refusing_only_take_away(
            groups in prop::collection::vec(prop::option::of(0u8..3), 4),
            refused in (prop::collection::btree_set(0usize..4, 0..4), prop::collection::btree_set(0u8..3, 0..3)),
            open in any::<bool>(),
        ) {
            let account = |number: usize| name(&format!("a{number}"));
            let group = |number: u8| name(&format!("g{number}"));
            let mut closed = Directory::new(false);
            let mut other = Directory::new(open);
            for (number, it) in groups.iter().enumerate() {
                closed.place(account(number), it.map(group));
                other.place(account(number), it.map(group));
            }
            let (accounts, groups) = refused;
            let refuses = Refusals {
                accounts: accounts.into_iter().map(account).collect(),
                groups: groups.into_iter().map(group).collect(),
            };
            other.refuse(account(0), refuses);
            for asker in 0..4 {
                for host in 0..4 {
                    let (wide, narrow) = (
                        closed.relation(&account(asker), &account(host)),
                        other.relation(&account(asker), &account(host)),
                    );
                    prop_assert!(wide.is_some());
                    prop_assert!(narrow.is_none_or(|narrow| Some(narrow) >= wide));
                    prop_assert_eq!(narrow == Some(Relation::Own), asker == host);
                }
            }
        }
    }
}
