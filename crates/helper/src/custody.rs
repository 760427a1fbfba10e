//! Which client holds which card. A card has one owner, the first that set it, until that one restores it or is gone: were
//! it shared and the lowest limit to win, a client could hold another's card down and nobody could say why.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use idlewatt_devices::cap::wire::{Answer, Card, Request};
use idlewatt_devices::cap::{CapError, CardLimit, Setter};
use tokio::sync::Notify;

/// How soon a card that did not take its own limit is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// Counts connections; never used again.
    pub(crate) number: u64,
    /// For people: `process 4711 of user 1000`.
    pub(crate) name: String,
}

/// The cards and their owners. Calls block for milliseconds.
pub(crate) struct Custody {
    cards: Mutex<Cards>,
    orphaned: Notify,
}

struct Cards {
    setter: Setter,
    owners: BTreeMap<String, Client>,
}

impl Custody {
    pub(crate) fn new(setter: Setter) -> Self {
        Self { cards: Mutex::new(Cards { setter, owners: BTreeMap::new() }), orphaned: Notify::new() }
    }

    /// Does what a client asks.
    pub(crate) fn answer(&self, client: &Client, request: Request) -> Answer {
        let mut cards = self.lock();
        let answer = match request {
            Request::List {} => Ok(Answer::Cards(cards.list(client))),
            Request::Get { gpu } => {
                cards.setter.card(&gpu).map(|card| Answer::Card(cards.seen_by(client, card)))
            }
            Request::Set { gpu, limit_mw } => cards.free_for(client, &gpu).and_then(|()| {
                let applied = cards.setter.set(&gpu, limit_mw)?;
                cards.owners.insert(gpu, client.clone());
                Ok(Answer::Set(applied))
            }),
            Request::Restore { gpu: Some(gpu) } => cards.free_for(client, &gpu).and_then(|()| {
                cards.owners.remove(&gpu);
                cards.setter.restore(&gpu).map(|()| Answer::Restored)
            }),
            Request::Restore { gpu: None } => cards.restore_all_of(client).map(|()| Answer::Restored),
        };
        drop(cards);
        answer.unwrap_or_else(|error| {
            self.orphaned.notify_one();
            tracing::info!(client = client.name, %error, "refused");
            Answer::Error(error)
        })
    }

    /// A client is gone: what it set goes back at once.
    pub(crate) fn leave(&self, client: &Client) {
        if let Err(error) = self.lock().restore_all_of(client) {
            tracing::warn!(client = client.name, %error, "a card does not have its own limit yet");
            self.orphaned.notify_one();
        }
    }

    /// Gives back what nobody owns; how many cards did not take it yet.
    pub(crate) fn restore_orphans(&self) -> usize {
        let Cards { setter, owners } = &mut *self.lock();
        setter.restore_orphans(|card| owners.contains_key(card)).unwrap_or_else(|error| {
            tracing::warn!(%error, "what an earlier run saved is not given back");
            0
        })
    }

    /// Gives everything back, for the end; how many cards did not take it.
    pub(crate) fn restore_all(&self) -> usize {
        self.lock().owners.clear();
        self.restore_orphans()
    }

    /// Tries again what failed, for as long as there is something. Never ends.
    pub(crate) async fn keep_restoring(self: std::sync::Arc<Self>) {
        loop {
            let this = std::sync::Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.restore_orphans()).await {
                Ok(0) => self.orphaned.notified().await,
                _ => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Returns when no driver call is under way, which is a sign of life.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_alive(&self) {
        drop(self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Cards> {
        self.cards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cards {
    fn list(&mut self, client: &Client) -> Vec<Card> {
        self.setter.cards().into_iter().map(|card| self.seen_by(client, card)).collect()
    }

    fn seen_by(&self, client: &Client, limit: CardLimit) -> Card {
        let owner = self.owners.get(&limit.id).filter(|owner| *owner != client);
        Card {
            original_mw: self.setter.original(&limit.id),
            holder: owner.map(|owner| owner.name.clone()),
            limit,
        }
    }

    fn free_for(&self, client: &Client, gpu: &str) -> Result<(), CapError> {
        match self.owners.get(gpu) {
            Some(owner) if owner != client => Err(CapError::Taken { by: owner.name.clone() }),
            _ => Ok(()),
        }
    }

    fn restore_all_of(&mut self, client: &Client) -> Result<(), CapError> {
        let (gone, kept) =
            std::mem::take(&mut self.owners).into_iter().partition(|(_, owner)| owner == client);
        self.owners = kept;
        let gone: BTreeMap<String, Client> = gone;
        gone.keys().map(|gpu| self.setter.restore(gpu)).fold(Ok(()), Result::and)
    }
}
