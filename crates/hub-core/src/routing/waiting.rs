//! Who waits for a slot, per model, in a short queue that is fair to accounts.

use std::collections::HashMap;

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
    by_model: HashMap<String, Vec<(Ticket, AccountName)>>,
    issued: u64,
}

impl Waiting {
    /// Takes the last place in a model's queue.
    ///
    /// # Errors
    /// When [`MAX_WAITING`] wait already.
    pub fn enter(&mut self, model: &str, account: &AccountName) -> Result<Ticket, QueueFull> {
        let queue = self.by_model.entry(model.to_owned()).or_default();
        if queue.len() >= MAX_WAITING {
            return Err(QueueFull);
        }
        self.issued += 1;
        let ticket = Ticket(self.issued);
        queue.push((ticket, account.clone()));
        Ok(ticket)
    }

    /// Leaves the queue, served or not.
    pub fn leave(&mut self, model: &str, ticket: Ticket) {
        let Some(queue) = self.by_model.get_mut(model) else { return };
        queue.retain(|(other, _)| *other != ticket);
        if queue.is_empty() {
            self.by_model.remove(model);
        }
    }

    /// Requests that wait for a model.
    #[must_use]
    pub fn len(&self, model: &str) -> usize {
        self.by_model.get(model).map_or(0, Vec::len)
    }

    /// Requests that wait, over all models.
    #[must_use]
    pub fn total(&self) -> usize {
        self.by_model.values().map(Vec::len).sum()
    }

    /// Whether it is this ticket's turn: the account with the fewest running requests first, then who came first.
    #[must_use]
    pub fn is_turn(&self, model: &str, ticket: Ticket, running: impl Fn(&AccountName) -> u32) -> bool {
        let queue = self.by_model.get(model).map_or(&[][..], Vec::as_slice);
        let next = queue.iter().min_by_key(|(ticket, account)| (running(account), *ticket));
        next.is_some_and(|(next, _)| *next == ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountName {
        name.parse().unwrap()
    }

    #[test]
    fn who_came_first_is_next_unless_another_account_has_less() {
        let mut waiting = Waiting::default();
        let greedy = waiting.enter("m", &account("greedy")).unwrap();
        let modest = waiting.enter("m", &account("modest")).unwrap();
        assert!(waiting.is_turn("m", greedy, |_| 0));
        let load = |of: &AccountName| u32::from(*of == account("greedy")) * 5;
        assert!(waiting.is_turn("m", modest, load) && !waiting.is_turn("m", greedy, load));
        waiting.leave("m", modest);
        assert!(waiting.is_turn("m", greedy, load));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut waiting = Waiting::default();
        for _ in 0..MAX_WAITING {
            waiting.enter("m", &account("a")).unwrap();
        }
        assert_eq!(waiting.enter("m", &account("a")), Err(QueueFull));
        assert!(waiting.enter("other", &account("a")).is_ok());
    }
}
