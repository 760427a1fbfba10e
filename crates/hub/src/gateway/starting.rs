//! Gives a request, or the rest of one, to the node that was found: reserves what the whole answer may cost, and opens a
//! stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use idlewatt_hub_core::continuing::Told;
use idlewatt_hub_core::ledger::ReserveError;
use idlewatt_hub_core::openai::ApiError;
use idlewatt_hub_core::routing::Choice;
use idlewatt_hub_core::settle::Tally;
use idlewatt_protocol::limits::{BETWEEN_TOKENS_TIMEOUT, FIRST_TOKEN_TIMEOUT, WHOLE_ANSWER_TIMEOUT};
use idlewatt_protocol::message::{Deadlines, Endpoint, Request};
use idlewatt_protocol::receipt::commitment;
use idlewatt_protocol::{Artefact, Continuation, Price};

use super::answering::{Answering, SETTLING_IN};
use super::attempt::{After, Attempt, Opened};
use super::begun::{Begun, Plan};
use super::pin::Pins;
use super::seeking::BUSY_RETRY;
use crate::hub::clock;
use crate::routing::Slot;
use crate::store::CannotReserve;

impl Answering {
    /// Opens a stream on the chosen node; `false` when that node is gone, or cannot be asked this.
    pub(super) fn start(&mut self, slot: Slot) -> Result<bool, ApiError> {
        let plan = match &self.begun {
            Some(begun) => begun.plan(&self.request.asked, &slot.choice),
            None => Some(self.reserve(&slot.choice)?),
        };
        let Some(plan) = plan else { return Ok(false) };
        let choice = slot.choice.clone();
        let Some(attempt) = self.open(slot, plan) else { return Ok(false) };
        if self.begun.is_some() {
            self.hub.metrics.continued.add(1);
        } else if self.request.asked.stream && self.request.may_hedge {
            let stuck = self.hub.routing().router.stuck_after(&choice, attempt.body_bytes);
            self.stuck = clock().checked_add(stuck);
        }
        self.answered = Some(choice);
        self.attempt = Some(attempt);
        Ok(true)
    }

    /// Opens a stream on the slot's node; `None` when that is gone.
    pub(super) fn open(&self, slot: Slot, plan: Plan) -> Option<Attempt> {
        let Plan { most, body, prefix } = plan;
        let link = self.hub.link(&slot.choice.node)?;
        let request = &self.request;
        let asked = &request.asked;
        let offer = Arc::clone(&slot.choice.offer);
        let agreed = self.begun.as_ref().map_or(offer.price, |begun| begun.price);
        let price = if slot.choice.own { Price::ZERO } else { agreed };
        let first_within = if asked.stream { FIRST_TOKEN_TIMEOUT } else { WHOLE_ANSWER_TIMEOUT };
        let ms = |limit: Duration| u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let deadlines =
            Deadlines { first_token_ms: ms(first_within), between_ms: ms(BETWEEN_TOKENS_TIMEOUT) };
        let message = Request {
            stream: 0,
            request: request.id,
            service: offer.service.clone(),
            endpoint: asked.endpoint,
            body_bytes: 0,
            salt: request.salt,
            own: slot.choice.own,
            max_tokens: most.completion,
            price,
            deadlines,
            ids: asked.continues && offer.capabilities.continuation == Continuation::Ids,
            prefix,
        };
        let statement = self.hub.expect(request.id, slot.choice.node);
        let Some(stream) = link.open(message, most, &body) else {
            self.hub.expect_nothing(request.id, &slot.choice.node);
            return None;
        };
        let after = self.begun.as_ref().map(|begun| After {
            joined: Begun::joined(prefix.as_ref()),
            seam: begun.seam(asked),
            usage: begun.usage(),
            whole: begun.whole.clone(),
        });
        let opened = Opened {
            slot,
            stream,
            statement,
            body_bytes: body.len() as u64,
            request_commitment: commitment(&request.salt, &body),
            most,
            price,
            tally: Tally::new(&request.salt),
            told: Told::new(asked.continues),
            after,
            pins: self.pins(&offer.artefact),
            first_within,
        };
        Some(Attempt::new(opened))
    }

    /// Sets aside what the whole answer may cost, and plans to ask for all of it.
    fn reserve(&mut self, choice: &Choice) -> Result<Plan, ApiError> {
        let request = &self.request;
        let (account, asked) = (&request.consumer.account, &request.asked);
        let price = if choice.own { Price::ZERO } else { choice.offer.price };
        // Given back first: what was set aside for another node must not stand in the way.
        self.reservation = None;
        let available = self.hub.store.available(account);
        let most_of = |available| asked.most(choice.offer.context, price, available);
        let mut most = most_of(available)?;
        if asked.max_tokens_asked.is_none() {
            // Whoever names no limit gets what the key's minute and day still hold; what is too little is said below.
            let left = request.consumer.left();
            most = most_of(available.min(left.spend)).unwrap_or(most);
            let tokens = left.tokens.saturating_sub(most.prompt).max(1);
            most.completion = most.completion.min(tokens);
        }
        let tokens = most.prompt.saturating_add(most.completion);
        let reserved =
            self.hub.store.reserve(request.id, &request.consumer, tokens, price.cost(tokens.into()));
        let reservation = reserved.map_err(|error| match error {
            CannotReserve::Ledger(ReserveError::Insufficient { wanted, available, .. }) => {
                ApiError::insufficient_quota(wanted, available, asked.max_tokens_asked.is_some())
            }
            CannotReserve::Ledger(error) => {
                tracing::error!(request = %request.id, %error, "a reservation contradicts the ledger");
                ApiError::unavailable("The hub could not reserve credits for this request.", BUSY_RETRY)
            }
            CannotReserve::Over(over) => over.into(),
            CannotReserve::Disk => ApiError::unavailable(
                "The hub cannot write to its disk now, so it takes no requests. Its operator has to make room.",
                SETTLING_IN,
            ),
        })?;
        self.reservation = Some(reservation);
        let body = Bytes::from(asked.forward_body(most.completion));
        Ok(Plan { most, body, prefix: None })
    }

    /// The same for every part of the answer.
    pub(super) fn pins(&self, artefact: &Artefact) -> Pins {
        let request = &self.request;
        let id = request.id.to_string();
        let id = id.trim_start_matches("req_");
        let started = request.started.0 / 1000;
        let json = |text: String| serde_json::Value::from(text).to_string();
        let (id, created) = match request.asked.endpoint {
            Endpoint::ChatCompletions => (Some(format!("chatcmpl-{id}")), Some(started)),
            Endpoint::Completions => (Some(format!("cmpl-{id}")), Some(started)),
            Endpoint::Embeddings => (None, None),
        };
        Pins { id: id.map(json), created: created.map(|at| at.to_string()), model: json(artefact.name()) }
    }
}
