//! The search of one request for a node: takes a free slot, or waits its turn for one, and goes on to the next node when one
//! did not do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use idlewatt_hub_core::ledger::AccountName;
use idlewatt_hub_core::routing::{NoRoute, Place, Wanted};
use idlewatt_protocol::{Class, PublicKey};
use tokio::time::{sleep, timeout_at};

use crate::hub::{Hub, clock};
use crate::routing::{Found, Slot, Turn, Waiting};

/// How long a request waits for a free slot: a few answers of a usual length, and less than any client waits.
const QUEUE_WAIT: Duration = Duration::from_secs(60);

/// After this long a node that said it was busy is asked again, should nothing else be heard of it.
const BUSY_AGAIN: Duration = Duration::from_millis(250);

/// When to ask again where waiting was of no use.
pub(super) const BUSY_RETRY: Duration = Duration::from_secs(2);

/// A request that looks for a node.
#[derive(Debug)]
pub(super) struct Seeking {
    hub: Arc<Hub>,
    account: AccountName,
    wanted: Arc<Wanted>,
    deadline: Instant,
    /// Nodes that are not asked again.
    tried: Vec<PublicKey>,
    /// The place to come back to.
    place: Option<Place>,
    waiting: Option<Waiting>,
}

impl Seeking {
    pub(super) fn new(hub: Arc<Hub>, account: AccountName, wanted: Wanted) -> Self {
        let (wanted, deadline) = (Arc::new(wanted), clock() + QUEUE_WAIT);
        Self { hub, account, wanted, deadline, tried: Vec::new(), place: None, waiting: None }
    }

    /// A slot of the next node to ask. Dropping the future loses nothing: the place in the line stays.
    pub(super) async fn next(&mut self) -> Result<Slot, NoRoute> {
        loop {
            if self.hub.is_draining() {
                return Err(NoRoute::Away { why: Some(Class::Offline), retry_after: BUSY_RETRY });
            }
            let Some(waiting) = &mut self.waiting else {
                let Self { hub, account, wanted, tried, place, .. } = self;
                match hub.slot_or_place(account, wanted, tried, *place)? {
                    Found::Slot(slot, place) => {
                        self.place = Some(place);
                        return Ok(slot);
                    }
                    Found::Place(waiting) => self.waiting = Some(waiting),
                }
                continue;
            };
            let turn = timeout_at(self.deadline.into(), &mut waiting.turn).await;
            self.waiting = None;
            return match turn {
                Ok(Ok(Turn::Served(slot, place))) => {
                    self.place = Some(place);
                    Ok(slot)
                }
                Ok(Ok(Turn::InVain(why))) => Err(why),
                Ok(Ok(Turn::Displaced) | Err(_)) | Err(_) => Err(NoRoute::Busy),
            };
        }
    }

    /// This node did not do, and is not asked again.
    pub(super) fn failed(&mut self, node: PublicKey) {
        self.tried.push(node);
    }

    /// This node had no slot after all, and is asked again once it may have one. The request keeps its place.
    pub(super) fn busy(&self, node: PublicKey) {
        self.hub.route(|routing| routing.router.full(&node));
        let hub = Arc::clone(&self.hub);
        self.hub.tasks.spawn(async move {
            sleep(BUSY_AGAIN).await;
            hub.route(|routing| {
                routing.router.maybe_free(&node);
                routing.serve(&node);
            });
        });
    }

    /// Nobody is looked for any more.
    pub(super) fn give_up(&mut self) {
        self.waiting = None;
    }
}
