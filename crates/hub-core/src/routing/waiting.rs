//! Who waits for a slot, per model, in a short queue that is fair to accounts.

use std::collections::HashMap;

use idlewatt_protocol::{Capabilities, Price, PublicKey};

use super::{Ask, Router, Scope};
use crate::ledger::AccountName;

/// Requests that may wait for one model.
pub const MAX_WAITING: usize = 64;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WAITING} requests already wait for this model")]
pub struct QueueFull;

/// The queues of all models.
#[derive(Debug, Default)]
pub struct Waiting {
    by_model: HashMap<String, Vec<Waiter>>,
    issued: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    account: AccountName,
    needs: Capabilities,
    max_price: Option<Price>,
    scope: Scope,
    tried: Vec<PublicKey>,
}

impl Waiting {
    /// Takes the last place in the queue of the model that is asked for.
    ///
    /// # Errors
    /// When [`MAX_WAITING`] wait already.
    pub fn enter(&mut self, ask: &Ask<'_>) -> Result<Ticket, QueueFull> {
        let Ask { account, model, needs, max_price, scope, tried } = *ask;
        let queue = self.by_model.entry(model.to_owned()).or_default();
        if queue.len() >= MAX_WAITING {
            return Err(QueueFull);
        }
        self.issued += 1;
        let ticket = Ticket(self.issued);
        let (account, tried) = (account.clone(), tried.to_vec());
        queue.push(Waiter { ticket, account, needs, max_price, scope, tried });
        Ok(ticket)
    }

    /// Leaves the queue, served or not.
    pub fn leave(&mut self, model: &str, ticket: Ticket) {
        let Some(queue) = self.by_model.get_mut(model) else { return };
        queue.retain(|waiter| waiter.ticket != ticket);
        if queue.is_empty() {
            self.by_model.remove(model);
        }
    }

    /// Requests that wait, over all models.
    #[must_use]
    pub fn total(&self) -> usize {
        self.by_model.values().map(Vec::len).sum()
    }

    /// Whether someone who waits for this model comes before `ask`, and has a slot to take: the account with the fewest
    /// running requests first, then who came first. Who has no ticket yet comes last. One that waits for what is not
    /// free (its own node, a low price) holds nobody up.
    #[must_use]
    pub fn goes_before(&self, ask: &Ask<'_>, ticket: Option<Ticket>, router: &Router) -> bool {
        let Some(queue) = self.by_model.get(ask.model) else { return false };
        let rank = |account, ticket| (router.running_of(account), ticket);
        let own = rank(ask.account, ticket.unwrap_or(Ticket(u64::MAX)));
        // Where there is no room for `ask` either, the order does not matter, and looking at everyone would be dear.
        router.has_room(ask)
            && queue.iter().any(|waiter| {
                let Waiter { ticket, account, needs, max_price, scope, tried } = waiter;
                rank(account, *ticket) < own
                    && router.has_room(&Ask {
                        account,
                        model: ask.model,
                        needs: *needs,
                        max_price: *max_price,
                        scope: *scope,
                        tried,
                    })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, ask, key, router};
    use super::*;

    #[test]
    fn who_came_first_is_next_unless_another_account_has_less() {
        let (greedy, modest) = (account("greedy"), account("modest"));
        let mut one = router(1);
        let mut waiting = Waiting::default();
        let first = waiting.enter(&ask(&greedy, "m")).unwrap();
        let second = waiting.enter(&ask(&modest, "m")).unwrap();
        let (greedys, modests) = (ask(&greedy, "m"), ask(&modest, "m"));
        assert!(waiting.goes_before(&modests, Some(second), &one));
        assert!(!waiting.goes_before(&greedys, Some(first), &one));
        assert!(waiting.goes_before(&ask(&account("new"), "m"), None, &one), "newcomers come last");
        one.choose(&greedys, 0).unwrap();
        assert!(waiting.goes_before(&greedys, Some(first), &one));
        assert!(!waiting.goes_before(&modests, Some(second), &one));
        waiting.leave("m", second);
        assert!(!waiting.goes_before(&greedys, Some(first), &one));
        assert!(!waiting.goes_before(&ask(&modest, "other"), None, &one));
    }

    #[test]
    fn who_waits_for_what_is_not_free_holds_nobody_up() {
        let (host, me) = (account("host1"), account("me"));
        let mut two = router(2);
        let own = Ask { scope: Scope::Own, ..ask(&host, "m") };
        two.choose(&own, 0).unwrap();
        two.choose(&own, 0).unwrap();
        let mut waiting = Waiting::default();
        waiting.enter(&own).unwrap();
        let tried = [key(2)];
        waiting.enter(&Ask { tried: &tried, ..ask(&me, "m") }).unwrap();
        assert!(!waiting.goes_before(&ask(&account("new"), "m"), None, &two));
    }

    #[test]
    fn the_queue_is_bounded() {
        let me = account("a");
        let mut waiting = Waiting::default();
        for _ in 0..MAX_WAITING {
            waiting.enter(&ask(&me, "m")).unwrap();
        }
        assert_eq!(waiting.enter(&ask(&me, "m")), Err(QueueFull));
        assert!(waiting.enter(&ask(&me, "other")).is_ok());
    }
}
