//! A second node for a request whose first token does not come: whichever begins first goes on, the other is cancelled before
//! it delivered anything. Only one is ever billed; the response and its receipt name the other.
//!
//! When that is, and how often it may be, are rules of [`idlewatt_hub_core::routing`].

use std::future::pending;
use std::time::Instant;

use bytes::Bytes;
use idlewatt_hub_core::routing::{Ask, Wanted};
use idlewatt_protocol::PublicKey;
use idlewatt_protocol::message::CancelReason;
use tokio::time::sleep_until;

use super::answering::Answering;
use super::attempt::{Attempt, Progress};
use super::begun::Plan;
use super::search::Search;
use crate::node::Received;

/// What comes of the second node; never where there is none.
pub(super) async fn of_rival(rival: Option<&Attempt>) -> Received {
    match rival {
        Some(rival) => rival.stream.inbox.next().await,
        None => pending().await,
    }
}

/// That moment; never where there is none.
pub(super) async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

impl Answering {
    /// The first token is overdue: asks a second node, where one has a free slot, asks no more and takes no less. Once.
    pub(super) fn hedge(&mut self) {
        self.stuck = None;
        let Some(first) = &self.attempt else { return };
        let choice = &first.slot.choice;
        let (most, asked) = (first.most, &self.request.asked);
        let max_price = Some(self.request.wanted.max_price.map_or(first.price, |most| most.min(first.price)));
        let wanted = Wanted { max_price, ..self.request.wanted.clone() };
        let tried: Vec<PublicKey> = self.also_asked().iter().copied().chain([choice.node]).collect();
        let ask = Ask { account: &self.request.consumer.account, wanted: &wanted, tried: &tried };
        let slot =
            self.hub.second_slot(&ask).filter(|slot| slot.choice.offer.context >= choice.offer.context);
        let Some(slot) = slot else { return };
        let body = Bytes::from(asked.forward_body(most.completion));
        self.rival = self.open(slot, Plan { most, body, prefix: None });
        if let Some(rival) = &self.rival {
            // Nobody else is looked for while two are asked, not even where the first is away.
            self.search.iter_mut().for_each(Search::give_up);
            self.hedged = Some(rival.slot.choice.node);
            self.hub.metrics.hedges.add(1);
            let (first, second) = (choice.node.short(), rival.slot.choice.node.short());
            tracing::info!(request = %self.request.id, first, second, "a first token is overdue: a second node is asked");
        }
    }

    /// What came of the second node.
    pub(super) fn of_rival(&mut self, received: Received) -> Option<Progress> {
        let rival = self.rival.as_mut()?;
        match rival.take(received, &self.request.asked) {
            Progress::Waiting => None,
            Progress::Failed(_) => {
                self.drop_rival();
                None
            }
            progress => {
                // It began sooner. The first delivered nothing, and is told so before anything of it can count.
                let first = self.attempt.take()?;
                first.stream.cancel(0, CancelReason::Timeout);
                self.delivered_nothing(first);
                self.rival_goes_on();
                self.began_to_answer();
                Some(progress)
            }
        }
    }

    /// The second node takes the place of the first; `false` when there is none.
    pub(super) fn rival_goes_on(&mut self) -> bool {
        let Some(rival) = self.rival.take() else { return false };
        let first = self.answered.replace(rival.slot.choice.clone());
        self.hedged = first.map(|first| first.node);
        self.attempt = Some(rival);
        true
    }

    /// The second node was not needed.
    pub(super) fn drop_rival(&mut self) {
        if let Some(rival) = self.rival.take() {
            rival.stream.cancel(0, CancelReason::Consumer);
            self.delivered_nothing(rival);
        }
    }
}
