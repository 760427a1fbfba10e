//! The choice of nodes as the running hub holds it: the table, the lines before it, and the slots that go from hand to hand.
//!
//! Every change that may free a slot goes through [`Hub::route`], which hands what became free to who is next; nobody polls.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use idlewatt_hub_core::ledger::AccountName;
use idlewatt_hub_core::routing::{Ask, Choice, Entered, NoRoute, Place, Queue, Router, Served, Wanted};
use idlewatt_protocol::message::State;
use idlewatt_protocol::{Class, PublicKey, ServiceOffer};
use tokio::sync::oneshot;

use crate::hub::Hub;

/// When to ask again where the hub stops.
const CLOSED_RETRY: Duration = Duration::from_secs(5);

/// The table of nodes and the lines before it, which are only consistent together.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    pub(crate) router: Router,
    pub(crate) waiting: Queue<Waiter>,
    /// Whose wait a change under this lock ended.
    over: Vec<(Waiter, Turn)>,
}

/// Who waits in a line.
#[derive(Debug)]
pub(crate) struct Waiter {
    hub: Arc<Hub>,
    turn: oneshot::Sender<Turn>,
}

/// How a wait ended.
#[derive(Debug)]
pub(crate) enum Turn {
    /// With a slot, and the place to come back to should its node be busy after all.
    Served(Slot, Place),
    /// There is nothing to wait for any more.
    InVain(NoRoute),
    /// Somebody with fewer requests took the place.
    Displaced,
}

/// A slot of a node, given back on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) hub: Arc<Hub>,
    pub(crate) choice: Choice,
    /// How long the first token of a body of so many bytes took.
    pub(crate) first_token: Option<(Duration, u64)>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.hub.route(|routing| {
            routing.router.release(&self.choice, self.first_token);
            routing.serve(&self.choice.node);
        });
    }
}

/// What a search comes to at first.
#[derive(Debug)]
pub(crate) enum Found {
    /// A slot, and the place to come back to.
    Slot(Slot, Place),
    /// A place in the line.
    Place(Waiting),
}

/// A place in a line, left on drop.
#[derive(Debug)]
pub(crate) struct Waiting {
    hub: Arc<Hub>,
    model: String,
    place: Place,
    pub(crate) turn: oneshot::Receiver<Turn>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.hub.route(|routing| routing.waiting.leave(&self.model, self.place));
    }
}

/// Keeps the table to what the store says of circles, until dropped.
pub(crate) async fn follow(hub: Arc<Hub>) {
    let mut directory = hub.store.directory();
    loop {
        let now = Arc::clone(&directory.borrow_and_update());
        hub.route(|routing| {
            let nodes = routing.router.know(now);
            nodes.iter().for_each(|node| routing.serve(node));
        });
        if directory.changed().await.is_err() {
            return;
        }
    }
}

impl Hub {
    /// Changes who may be chosen; whoever can be served after that gets a slot.
    pub(crate) fn route<R>(&self, change: impl FnOnce(&mut Routing) -> R) -> R {
        let mut routing = self.routing();
        let result = change(&mut routing);
        let over = mem::take(&mut routing.over);
        drop(routing);
        // A slot whose waiter is gone comes back by its drop, which locks again.
        for (waiter, turn) in over {
            let _ = waiter.turn.send(turn);
        }
        result
    }

    /// A slot for this where one is free, or else a place in the line: `before`, where it has had one.
    pub(crate) fn slot_or_place(
        self: &Arc<Self>,
        account: &AccountName,
        wanted: &Arc<Wanted>,
        tried: &[PublicKey],
        before: Option<Place>,
    ) -> Result<Found, NoRoute> {
        self.route(|routing| {
            match routing.router.choose(&Ask { account, wanted, tried }, rand::random()) {
                Ok(choice) => {
                    let place = before.unwrap_or_else(|| routing.waiting.at_once(&wanted.model));
                    return Ok(Found::Slot(Slot { hub: Arc::clone(self), choice, first_token: None }, place));
                }
                Err(NoRoute::Busy) => {}
                Err(why) => return Err(why),
            }
            let (turn, ended) = oneshot::channel();
            let waiter = Waiter { hub: Arc::clone(self), turn };
            let entered = routing.waiting.enter(account, wanted, tried, before, waiter);
            let Entered { place, displaced } = entered.map_err(|_| NoRoute::Busy)?;
            routing.over.extend(displaced.map(|waiter| (waiter, Turn::Displaced)));
            let model = wanted.model.clone();
            Ok(Found::Place(Waiting { hub: Arc::clone(self), model, place, turn: ended }))
        })
    }

    /// A slot of another node than these for a request that waits for its first token; never waits, and not often.
    pub(crate) fn second_slot(self: &Arc<Self>, ask: &Ask<'_>) -> Option<Slot> {
        self.route(|routing| {
            let choice = routing.router.choose(ask, rand::random()).ok()?;
            if !routing.router.may_hedge() {
                routing.router.release(&choice, None);
                return None;
            }
            Some(Slot { hub: Arc::clone(self), choice, first_token: None })
        })
    }
}

impl Routing {
    /// A node is connected; it offers nothing yet.
    pub(crate) fn join(&mut self, node: PublicKey, account: AccountName) {
        let models = self.router.models_of(&node);
        self.router.join(node, account);
        self.tell(&models);
    }

    /// A node is gone.
    pub(crate) fn leave(&mut self, node: &PublicKey) {
        let models = self.router.models_of(node);
        self.router.leave(node);
        self.tell(&models);
    }

    /// A node offers these services and no others.
    pub(crate) fn offer(&mut self, node: &PublicKey, offers: Vec<ServiceOffer>) {
        let models = self.router.models_of(node);
        self.router.offer(node, offers);
        self.serve(node);
        self.tell(&models);
    }

    /// A node takes requests, or does not.
    pub(crate) fn state(&mut self, node: &PublicKey, state: &State) {
        self.router.state(node, state);
        self.serve(node);
        if !state.accepting {
            self.tell(&self.router.models_of(node));
        }
    }

    /// A node takes nothing new until it says otherwise.
    pub(crate) fn away(&mut self, node: &PublicKey, why: Class) {
        self.router.away(node, why);
        self.tell(&self.router.models_of(node));
    }

    /// Hands what is free on this node to who is next.
    pub(crate) fn serve(&mut self, node: &PublicKey) {
        while let Some(served) = self.waiting.next(&mut self.router, node) {
            self.end(served);
        }
    }

    /// Nothing is given out any more: everyone who waits is told.
    pub(crate) fn close(&mut self) {
        let why = || NoRoute::Away { why: Some(Class::Offline), retry_after: CLOSED_RETRY };
        self.over.extend(self.waiting.disband().into_iter().map(|waiter| (waiter, Turn::InVain(why()))));
    }

    /// Everyone who waits for one of these models in vain is told.
    fn tell(&mut self, models: &[String]) {
        for served in self.waiting.in_vain(&self.router, models) {
            self.end(served);
        }
    }

    fn end(&mut self, served: Served<Waiter>) {
        let Served { owner, place, outcome } = served;
        let turn = match outcome {
            Ok(choice) => {
                Turn::Served(Slot { hub: Arc::clone(&owner.hub), choice, first_token: None }, place)
            }
            Err(why) => Turn::InVain(why),
        };
        self.over.push((owner, turn));
    }
}
