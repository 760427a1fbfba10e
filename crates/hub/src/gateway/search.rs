//! The search for a node that takes a request or goes on with one, with a second choice should the first come to nothing.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use idlewatt_hub_core::ledger::AccountName;
use idlewatt_hub_core::routing::{NoRoute, Wanted};
use idlewatt_protocol::PublicKey;
use tokio::time::sleep;

use super::seeking::Seeking;
use crate::hub::Hub;
use crate::routing::Slot;

/// While a node is away and none other may go on, others are looked for this often.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Search {
    hub: Arc<Hub>,
    account: AccountName,
    tried: Vec<PublicKey>,
    seeking: Seeking,
    second: Option<Wanted>,
}

impl Search {
    pub(super) fn new(
        hub: &Arc<Hub>,
        account: &AccountName,
        first: Wanted,
        second: Option<Wanted>,
        tried: &[PublicKey],
    ) -> Self {
        let (hub, account, tried) = (Arc::clone(hub), account.clone(), tried.to_vec());
        let seeking = seeking(&hub, &account, first, &tried);
        Self { hub, account, tried, seeking, second }
    }

    /// A slot of the next node to ask. Dropping the future loses nothing: the place in the line stays.
    pub(super) async fn next(&mut self) -> Result<Slot, NoRoute> {
        loop {
            match (self.seeking.next().await, &mut self.second) {
                (Ok(slot), _) => return Ok(slot),
                (Err(why), None) => return Err(why),
                (Err(_), second) => {
                    if let Some(wanted) = second.take() {
                        self.seeking = seeking(&self.hub, &self.account, wanted, &self.tried);
                    }
                }
            }
        }
    }

    /// This node did not do, and is not asked again.
    pub(super) fn failed(&mut self, node: PublicKey) {
        self.tried.push(node);
        self.seeking.failed(node);
    }

    /// This node had no slot after all, and is asked again once it may have one.
    pub(super) fn busy(&mut self, node: PublicKey) {
        self.seeking.busy(node);
    }

    /// Nobody is looked for, for now.
    pub(super) fn give_up(&mut self) {
        self.seeking.give_up();
    }
}

fn seeking(hub: &Arc<Hub>, account: &AccountName, wanted: Wanted, tried: &[PublicKey]) -> Seeking {
    let mut seeking = Seeking::new(Arc::clone(hub), account.clone(), wanted);
    tried.iter().for_each(|node| seeking.failed(*node));
    seeking
}

/// A slot, however long it takes; never where nobody may be asked.
pub(super) async fn look(search: Option<&mut Search>) -> Slot {
    let Some(search) = search else { return pending().await };
    loop {
        match search.next().await {
            Ok(slot) => return slot,
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}
