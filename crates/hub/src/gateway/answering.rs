//! One admitted request from the search for a node to its last byte: waits for a slot, reserves, tries nodes in turn
//! until a first byte, relays, and hands over to the settlement whatever way it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use idlewatt_hub_core::ledger::ReserveError;
use idlewatt_hub_core::openai::{ApiError, Validated};
use idlewatt_hub_core::routing::{Choice, NoRoute, Wanted};
use idlewatt_hub_core::settle::{Delivered, Tally};
use idlewatt_protocol::limits::{BETWEEN_TOKENS_TIMEOUT, FIRST_TOKEN_TIMEOUT, WHOLE_ANSWER_TIMEOUT};
use idlewatt_protocol::message::{CancelReason, Deadlines, Endpoint, Outcome, Request};
use idlewatt_protocol::receipt::commitment;
use idlewatt_protocol::{Class, Digest, Nonce, Price, RequestId, UnixMillis};
use tokio::time::timeout_at;

use super::attempt::{Attempt, Failure, Opened, Progress};
use super::pin::Pins;
use super::seeking::{BUSY_RETRY, Seeking};
use super::settling::{Settling, settle};
use crate::hub::{Hub, clock};
use crate::routing::Slot;
use crate::store::{CannotReserve, Consumer, Reservation};

/// A request that so many nodes failed at is at fault itself more likely than the next node would be.
const MOST_FAILURES: usize = 3;

/// After a start, nodes need this long to come back: until then their models are away rather than unknown.
const SETTLING_IN: Duration = Duration::from_secs(10);

/// What is known of a request once it is admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) id: RequestId,
    pub(super) consumer: Consumer,
    pub(super) asked: Validated,
    pub(super) wanted: Wanted,
    /// Over the body as the consumer sent it, salted with `salt`.
    pub(super) request_commitment: Digest,
    pub(super) salt: Nonce,
    pub(super) started: UnixMillis,
}

/// A request on its way. Dropping it is the consumer going away.
#[derive(Debug)]
pub(super) struct Answering {
    hub: Arc<Hub>,
    request: Admitted,
    began: Instant,
    seeking: Seeking,
    reservation: Option<Reservation>,
    attempt: Option<Attempt>,
    answered: Option<Choice>,
    last_failure: Option<ApiError>,
    is_over: bool,
}

impl Answering {
    pub(super) fn new(hub: Arc<Hub>, request: Admitted) -> Self {
        hub.metrics.requests.add(1);
        let account = request.consumer.account.clone();
        hub.admit(request.id, account.clone());
        let seeking = Seeking::new(Arc::clone(&hub), account, request.wanted.clone());
        Self {
            hub,
            request,
            began: clock(),
            seeking,
            reservation: None,
            attempt: None,
            answered: None,
            last_failure: None,
            is_over: false,
        }
    }

    pub(super) fn id(&self) -> RequestId {
        self.request.id
    }

    pub(super) fn asked(&self) -> &Validated {
        &self.request.asked
    }

    /// Who answers, or answered last.
    pub(super) fn answered(&self) -> Option<&Choice> {
        self.answered.as_ref()
    }

    /// The next bytes for the consumer: whole events, or the whole body. `None` when it is over. Dropping the future
    /// loses nothing. A key that is revoked meanwhile ends the answer.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ApiError>> {
        let consumer = self.request.consumer.clone();
        tokio::select! {
            biased;
            () = consumer.ended(), if !self.is_over => {
                self.cancel();
                Some(Err(ApiError::key_ended()))
            }
            next = self.step() => next,
        }
    }

    /// Nobody takes the rest: what was delivered is settled, more is not made.
    fn cancel(&mut self) {
        match &self.attempt {
            Some(attempt) if attempt.delivered > 0 => {
                attempt.stream.cancel(attempt.delivered, CancelReason::Consumer);
                self.hub.metrics.cancelled.add(1);
                self.settle(Outcome::Cancelled);
            }
            _ => self.finish(),
        }
    }

    async fn step(&mut self) -> Option<Result<Bytes, ApiError>> {
        while !self.is_over {
            if self.attempt.is_none()
                && let Err(error) = self.seek().await
            {
                self.finish();
                return Some(Err(self.last_failure.take().filter(|_| error.status != 402).unwrap_or(error)));
            }
            let Some(attempt) = &mut self.attempt else { continue };
            let is_first = attempt.delivered == 0;
            let progress = match attempt.spoilt() {
                Some(failure) => Progress::Failed(failure),
                None => match timeout_at(attempt.deadline().into(), attempt.stream.inbox.next()).await {
                    Ok(received) => attempt.take(received, &self.request.asked),
                    Err(_) => Progress::Failed(attempt.timed_out()),
                },
            };
            match progress {
                Progress::Waiting => {}
                Progress::Events(bytes) => {
                    self.note_first(is_first);
                    return Some(Ok(bytes));
                }
                Progress::Complete(bytes) => {
                    self.note_first(is_first);
                    self.hub.metrics.complete.add(1);
                    self.settle(Outcome::Complete);
                    return Some(Ok(bytes));
                }
                Progress::Failed(failure) if is_first => {
                    if let Some(error) = self.try_elsewhere(failure) {
                        return Some(Err(error));
                    }
                }
                Progress::Failed(failure) => {
                    attempt.stream.cancel(attempt.delivered, failure.cancel);
                    self.hub.metrics.broken.add(1);
                    self.settle(failure.outcome);
                    return Some(Err(failure.error));
                }
            }
        }
        None
    }

    fn note_first(&self, is_first: bool) {
        if is_first {
            self.hub.metrics.first_token(clock().saturating_duration_since(self.began));
        }
    }

    /// Gives up this node before its first byte; the error to answer with, where no other may do better.
    fn try_elsewhere(&mut self, failure: Failure) -> Option<ApiError> {
        let attempt = self.attempt.take()?;
        attempt.stream.cancel(0, failure.cancel);
        let node = attempt.slot.choice.node;
        drop(attempt);
        // What it may still say of this request is about nothing that was delivered.
        self.hub.expect_nothing(self.request.id);
        if !failure.elsewhere || (!failure.busy && self.seeking.tried().len() + 1 >= MOST_FAILURES) {
            self.finish();
            return Some(failure.error);
        }
        self.hub.metrics.retries.add(1);
        if failure.busy {
            self.seeking.busy(node);
        } else {
            self.seeking.failed(node);
            self.last_failure = Some(failure.error);
        }
        None
    }

    /// Waits for a node and gives it the request.
    async fn seek(&mut self) -> Result<(), ApiError> {
        loop {
            let slot = self.seeking.next().await.map_err(|why| self.no_route(why))?;
            let node = slot.choice.node;
            if self.start(slot)? {
                return Ok(());
            }
            self.seeking.failed(node);
        }
    }

    /// Reserves, and opens a stream on the chosen node; `false` when that node is gone.
    fn start(&mut self, slot: Slot) -> Result<bool, ApiError> {
        let request = &self.request;
        let (account, asked) = (&request.consumer.account, &request.asked);
        let offer = Arc::clone(&slot.choice.offer);
        let price = if slot.choice.own { Price::ZERO } else { offer.price };
        // Given back first: what was set aside for another node must not stand in the way.
        self.reservation = None;
        let most = asked.most(offer.context, price, self.hub.store.available(account))?;
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
        let Some(link) = self.hub.link(&slot.choice.node) else { return Ok(false) };
        let statement = self.hub.expect(request.id, slot.choice.node);
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
            ids: false,
            prefix: None,
        };
        let Some(stream) = link.open(message, most, &body) else { return Ok(false) };
        self.answered = Some(slot.choice.clone());
        let pins = pins(request.id, asked.endpoint, request.started, &offer.artefact.name());
        self.attempt = Some(Attempt::new(Opened {
            slot,
            stream,
            statement,
            body_bytes: body.len() as u64,
            request_commitment: commitment(&request.salt, &body),
            most,
            price,
            tally: Tally::new(&request.salt),
            pins,
            first_within,
        }));
        Ok(true)
    }

    fn no_route(&self, why: NoRoute) -> ApiError {
        let model = &self.request.asked.model;
        let is_settling_in = self.hub.started.elapsed() < SETTLING_IN && self.hub.has_absent_nodes();
        match why {
            NoRoute::Unknown { .. } if is_settling_in => {
                ApiError::unavailable("The hub has just started and its nodes are coming back.", BUSY_RETRY)
            }
            NoRoute::Unknown { near } => ApiError::model_not_found(model, &near),
            NoRoute::OutOfScope { needs } => ApiError::out_of_scope(model, self.request.wanted.scope, needs),
            NoRoute::Elsewhere => ApiError::invalid(
                "x-idlewatt-region",
                "no node that offers this model says that it stands there; leave it out, or name a wider one",
            ),
            NoRoute::Unsupported(what) => ApiError::unsupported(what),
            NoRoute::TooDear { cheapest } => ApiError::invalid(
                "x-idlewatt-max-price",
                &format!(
                    "the cheapest node asks {} micro-credits a million tokens; raise the limit or leave it out",
                    cheapest.0
                ),
            ),
            NoRoute::Away { why, retry_after } => {
                let now = match why {
                    Some(Class::Busy) => "its host uses the machine",
                    Some(Class::Schedule) => "it is outside its host's hours",
                    Some(Class::Limit) => "a limit of its host's holds",
                    Some(Class::Error) => "its model server fails",
                    Some(Class::Offline) | None => "none is connected",
                };
                ApiError::unavailable(
                    format!("No node answers for this model now: {now}. Try again later."),
                    retry_after,
                )
            }
            NoRoute::Busy | NoRoute::Tried => ApiError::busy(BUSY_RETRY),
        }
    }

    /// Hands what was delivered to the settlement.
    fn settle(&mut self, outcome: Outcome) {
        self.is_over = true;
        let (Some(mut attempt), Some(reservation)) = (self.attempt.take(), self.reservation.take()) else {
            return self.finish();
        };
        let request = &self.request;
        let settling = Settling {
            hub: Arc::clone(&self.hub),
            request: request.id,
            reservation,
            model: request.asked.model.clone(),
            salt: request.salt,
            request_commitment: request.request_commitment,
            price: attempt.price,
            started: request.started,
            node: attempt.slot.choice.node,
            artefact: attempt.slot.choice.offer.artefact.clone(),
            link: Arc::clone(&attempt.stream.link),
            statement: attempt.statement.take(),
            is_lost: attempt.is_lost,
            delivered: Delivered {
                endpoint: request.asked.endpoint,
                body_bytes: attempt.body_bytes,
                request_commitment: attempt.request_commitment,
                most: attempt.most,
                length: attempt.delivered,
                tally: attempt.tally.clone(),
                outcome,
            },
        };
        drop(attempt);
        self.hub.tasks.spawn(settle(settling));
    }

    /// Nothing was delivered: no receipt, no posting.
    fn finish(&mut self) {
        self.is_over = true;
        self.attempt = None;
        self.seeking.give_up();
        self.reservation = None;
        self.hub.close(self.request.id);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if self.attempt.as_ref().is_none_or(|attempt| attempt.delivered == 0) {
            self.hub.store.wasted(&self.request.consumer);
        }
        self.cancel();
    }
}

fn pins(id: RequestId, endpoint: Endpoint, started: UnixMillis, model: &str) -> Pins {
    let id = id.to_string();
    let id = id.trim_start_matches("req_");
    let json = |text: String| serde_json::Value::from(text).to_string();
    let (id, created) = match endpoint {
        Endpoint::ChatCompletions => (Some(format!("chatcmpl-{id}")), Some(started.0 / 1000)),
        Endpoint::Completions => (Some(format!("cmpl-{id}")), Some(started.0 / 1000)),
        Endpoint::Embeddings => (None, None),
    };
    Pins { id: id.map(json), created: created.map(|at| at.to_string()), model: json(model.to_owned()) }
}
