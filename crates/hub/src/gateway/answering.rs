//! One admitted request from the search for a node to its last byte: waits for a slot, tries nodes in turn until a first
//! byte, relays, has another node go on where one broke off, and hands over to the settlement whatever way it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use idlewatt_hub_core::continuing::Told;
use idlewatt_hub_core::openai::{ApiError, Validated};
use idlewatt_hub_core::routing::{Choice, NoRoute, Wanted};
use idlewatt_hub_core::settle::Tally;
use idlewatt_protocol::message::{CancelReason, Outcome};
use idlewatt_protocol::{Class, Digest, Nonce, PublicKey, RequestId, UnixMillis};
use tokio::time::timeout_at;

use super::attempt::{Attempt, Failure, Progress};
use super::begun::{Begun, Continuable};
use super::ending::ending;
use super::hedging::{of_rival, reached};
use super::search::{Search, look};
use super::seeking::BUSY_RETRY;
use super::settling::{Settling, settle};
use crate::hub::{Hub, clock};
use crate::routing::Slot;
use crate::store::{Consumer, Reservation};

/// A request that so many nodes failed at is at fault itself more likely than the next node would be.
const MOST_FAILURES: usize = 3;

/// Nodes that delivered nothing are named in a receipt, up to so many.
const MOST_NAMED: usize = 16;

/// After a start, nodes need this long to come back: until then their models are away rather than unknown.
pub(super) const SETTLING_IN: Duration = Duration::from_secs(10);

/// What is known of a request once it is admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) id: RequestId,
    pub(super) consumer: Consumer,
    pub(super) asked: Validated,
    pub(super) wanted: Wanted,
    /// Whether a second node may be asked while the first is slow to begin.
    pub(super) may_hedge: bool,
    /// Over the body as the consumer sent it, salted with `salt`.
    pub(super) request_commitment: Digest,
    pub(super) salt: Nonce,
    pub(super) started: UnixMillis,
}

/// A request on its way. Dropping it is the consumer going away.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) hub: Arc<Hub>,
    pub(super) request: Admitted,
    began: Instant,
    /// `None` while nobody else may answer.
    pub(super) search: Option<Search>,
    /// A slot that was found while a node was away.
    found: Option<Slot>,
    pub(super) reservation: Option<Reservation>,
    pub(super) attempt: Option<Attempt>,
    /// What earlier nodes delivered.
    pub(super) begun: Option<Begun>,
    pub(super) answered: Option<Choice>,
    /// When the first token is overdue, and the second node that was asked then.
    pub(super) stuck: Option<Instant>,
    pub(super) rival: Option<Attempt>,
    /// Who got the request and delivered nothing.
    also_asked: Vec<PublicKey>,
    /// The other of the two that were asked because the first token was overdue.
    pub(super) hedged: Option<PublicKey>,
    /// Nodes that are not asked again, and how many of them failed since something was delivered last.
    tried: Vec<PublicKey>,
    failures: usize,
    last_failure: Option<Failure>,
    is_over: bool,
}

impl Answering {
    pub(super) fn new(hub: Arc<Hub>, request: Admitted) -> Self {
        hub.metrics.requests.add(1);
        let account = request.consumer.account.clone();
        hub.admit(request.id, account.clone());
        let search = Search::new(&hub, &account, request.wanted.clone(), None, &[]);
        Self {
            hub,
            request,
            began: clock(),
            search: Some(search),
            found: None,
            reservation: None,
            attempt: None,
            begun: None,
            answered: None,
            stuck: None,
            rival: None,
            also_asked: Vec::new(),
            hedged: None,
            tried: Vec::new(),
            failures: 0,
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

    async fn step(&mut self) -> Option<Result<Bytes, ApiError>> {
        while !self.is_over {
            if self.attempt.is_none() {
                if let Some(last) = self.end_by_itself() {
                    return Some(Ok(last));
                }
                if let Err(error) = self.seek().await {
                    return Some(Err(self.give_up(error)));
                }
            }
            let Some(progress) = self.progress().await else { continue };
            let Some(attempt) = &mut self.attempt else { continue };
            let is_first = attempt.delivered == 0;
            match progress {
                Progress::Waiting => {}
                Progress::Events(bytes) => {
                    self.failures = 0;
                    return Some(Ok(bytes));
                }
                Progress::Complete(bytes) => {
                    self.complete();
                    return Some(Ok(bytes));
                }
                Progress::Stopped => {
                    attempt.stream.cancel(0, CancelReason::Consumer);
                    self.drop_attempt();
                    return self.finish_begun(Some("stop")).map(Ok);
                }
                Progress::Failed(failure) if is_first => {
                    if let Some(error) = self.try_elsewhere(failure) {
                        return Some(Err(error));
                    }
                }
                Progress::Failed(failure) => self.interrupted(failure),
            }
        }
        None
    }

    /// What came of the node, or what its silence means. While it is away another is looked for, unless a second is asked
    /// already; what that one needs is the same as after a failure.
    async fn progress(&mut self) -> Option<Progress> {
        let attempt = self.attempt.as_mut()?;
        if let Some(failure) = attempt.spoilt() {
            return Some(Progress::Failed(failure));
        }
        let was_away = attempt.is_away();
        let is_unanswered = attempt.delivered == 0 && self.begun.is_none();
        let received = timeout_at(attempt.deadline().into(), attempt.stream.inbox.next());
        let (stuck, rival) = (self.stuck.filter(|_| is_unanswered), self.rival.as_ref());
        let progress = tokio::select! {
            biased;
            received = received => match received {
                Ok(received) => attempt.take(received, &self.request.asked),
                Err(_) => Progress::Failed(attempt.timed_out()),
            },
            received = of_rival(rival) => return self.of_rival(received),
            () = reached(stuck), if rival.is_none() => {
                self.hedge();
                return None;
            }
            slot = look(self.search.as_mut()), if was_away && rival.is_none() => {
                self.found = Some(slot);
                Progress::Failed(attempt.lost())
            }
        };
        let is_away = attempt.is_away();
        if is_unanswered && attempt.delivered > 0 {
            self.began_to_answer();
        }
        match (was_away, is_away) {
            (false, true) => self.look_elsewhere(),
            (true, false) => self.search.iter_mut().for_each(Search::give_up),
            _ => {}
        }
        Some(progress)
    }

    /// Something of the answer is there: nobody else is asked for its beginning.
    pub(super) fn began_to_answer(&mut self) {
        self.hub.metrics.first_token(clock().saturating_duration_since(self.began));
        self.drop_rival();
        self.stuck = None;
    }

    /// The node is away, and may come back; who else could go on is looked for meanwhile.
    fn look_elsewhere(&mut self) {
        let Some(attempt) = &self.attempt else { return };
        let node = attempt.slot.choice.node;
        if attempt.delivered > 0 {
            let mut told = match &self.begun {
                Some(begun) => begun.told.clone(),
                None => Told::new(self.request.asked.continues),
            };
            told.append(attempt.told.clone());
            let parts = 1 + self.begun.as_ref().map_or(0, |begun| begun.parts.len());
            let artefact = &attempt.slot.choice.offer.artefact;
            let price = self.begun.as_ref().map_or(attempt.price, |begun| begun.price);
            let wanted = Continuable { told: &told, parts, artefact, price }.wanted(&self.request.wanted);
            self.search = self.search_for(wanted, Some(node));
        } else if let Some(search) = &mut self.search {
            search.failed(node);
        }
    }

    fn search_for(&self, wanted: Option<(Wanted, Option<Wanted>)>, but: Option<PublicKey>) -> Option<Search> {
        let (first, else_) = wanted?;
        let tried: Vec<PublicKey> = self.tried.iter().copied().chain(but).collect();
        Some(Search::new(&self.hub, &self.request.consumer.account, first, else_, &tried))
    }

    /// Gives up this node before its first byte; the error to answer with, where no other may do better.
    fn try_elsewhere(&mut self, failure: Failure) -> Option<ApiError> {
        let attempt = self.attempt.as_ref()?;
        let node = attempt.slot.choice.node;
        attempt.stream.cancel(0, failure.cancel);
        self.drop_attempt();
        if self.rival_goes_on() {
            self.failed(node);
            return None;
        }
        self.failures += usize::from(!failure.busy);
        let is_hopeless = self.failures >= MOST_FAILURES || !failure.elsewhere && self.begun.is_none();
        if !is_hopeless && failure.busy {
            self.hub.metrics.retries.add(1);
            self.search.iter_mut().for_each(|search| search.busy(node));
            return None;
        }
        self.failed(node);
        if self.begun.is_none() {
            self.last_failure = Some(failure);
        }
        if is_hopeless {
            return Some(self.give_up(ApiError::busy(BUSY_RETRY)));
        }
        self.hub.metrics.retries.add(1);
        None
    }

    fn failed(&mut self, node: PublicKey) {
        self.tried.push(node);
        self.search.iter_mut().for_each(|search| search.failed(node));
    }

    /// The node delivered a part and broke off: another is to go on, where one may.
    fn interrupted(&mut self, failure: Failure) {
        let Some(mut attempt) = self.attempt.take() else { return };
        attempt.stream.cancel(attempt.delivered, failure.cancel);
        self.hub.metrics.interrupted.add(1);
        let part = attempt.part(self.request.asked.endpoint);
        self.tried.push(part.node);
        let artefact = part.artefact.clone();
        let begun = self.begun.get_or_insert_with(|| Begun {
            parts: Vec::new(),
            told: Told::new(self.request.asked.continues),
            whole: attempt.tally_of_all().clone(),
            price: attempt.price,
            artefact,
            max_tokens: attempt.most.completion,
            is_finished: false,
        });
        begun.told.append(attempt.told.clone());
        begun.whole = attempt.tally_of_all().clone();
        begun.is_finished = attempt.is_finished;
        begun.parts.push(part);
        self.last_failure = Some(failure);
        if !self.found.as_ref().is_some_and(|slot| begun.admits(&slot.choice)) {
            self.found = None;
            let Begun { told, parts, artefact, price, .. } = &*begun;
            let continuable = Continuable { told, parts: parts.len(), artefact, price: *price };
            let wanted = continuable.wanted(&self.request.wanted);
            self.search = self.search_for(wanted, None);
        }
    }

    /// The end of an answer that lacks nothing but that: it was delivered to its own end, or has all its tokens.
    fn end_by_itself(&mut self) -> Option<Bytes> {
        let begun = self.begun.as_ref()?;
        if begun.is_finished {
            return self.finish_begun(None);
        }
        if begun.told.can_go_on() && begun.remaining() == 0 {
            return self.finish_begun(Some("length"));
        }
        None
    }

    fn finish_begun(&mut self, reason: Option<&str>) -> Option<Bytes> {
        let begun = self.begun.as_ref()?;
        let asked = &self.request.asked;
        let pins = self.pins(&begun.artefact);
        let usage = asked.include_usage.then(|| begun.usage());
        let last = ending(&pins, asked.endpoint, reason, usage);
        self.complete();
        Some(last)
    }

    /// Waits for a node and gives it the request.
    async fn seek(&mut self) -> Result<(), ApiError> {
        loop {
            let slot = match self.found.take() {
                Some(slot) => slot,
                None => match &mut self.search {
                    Some(search) => search.next().await.map_err(|why| self.no_route(why))?,
                    None => return Err(ApiError::busy(BUSY_RETRY)),
                },
            };
            let node = slot.choice.node;
            if self.start(slot)? {
                return Ok(());
            }
            self.failed(node);
        }
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

    fn complete(&mut self) {
        self.hub.metrics.complete.add(1);
        if let Some(answered) = &self.answered {
            self.hub.routing().router.remember(answered, &self.request.wanted.prefix);
        }
        self.settle(Outcome::Complete);
    }

    /// Nobody can answer, or go on: what was delivered is billed. The error to end with.
    fn give_up(&mut self, error: ApiError) -> ApiError {
        let failure = self.last_failure.take();
        if self.begun.is_some() {
            self.hub.metrics.broken.add(1);
            self.settle(failure.as_ref().map_or(Outcome::Failed, |failure| failure.outcome));
        } else {
            self.finish();
        }
        failure.filter(|_| error.status != 402).map_or(error, |failure| failure.error)
    }

    /// Ends an attempt that delivered nothing: what its node may still say of this request is about nothing.
    fn drop_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.delivered_nothing(attempt);
        }
    }

    pub(super) fn delivered_nothing(&mut self, attempt: Attempt) {
        let node = attempt.slot.choice.node;
        self.hub.expect_nothing(self.request.id, &node);
        if self.also_asked.len() < MOST_NAMED && !self.also_asked.contains(&node) {
            self.also_asked.push(node);
        }
    }

    /// Nodes that got the request and delivered nothing.
    pub(super) fn also_asked(&self) -> &[PublicKey] {
        &self.also_asked
    }

    /// Hands what was delivered to the settlement.
    fn settle(&mut self, outcome: Outcome) {
        self.is_over = true;
        self.drop_rival();
        if self.attempt.as_ref().is_some_and(|attempt| attempt.delivered == 0) {
            self.drop_attempt();
        }
        let (attempt, begun) = (self.attempt.take(), self.begun.take());
        let Some(reservation) = self.reservation.take() else { return self.finish() };
        let price = begun.as_ref().map(|begun| begun.price).or(attempt.as_ref().map(|it| it.price));
        let whole: Option<Tally> = match &attempt {
            Some(attempt) => Some(attempt.tally_of_all().clone()),
            None => begun.as_ref().map(|begun| begun.whole.clone()),
        };
        let (Some(price), Some(whole)) = (price, whole) else { return self.finish() };
        let last = attempt.map(|mut attempt| attempt.part(self.request.asked.endpoint));
        let request = &self.request;
        let settling = Settling {
            hub: Arc::clone(&self.hub),
            request: request.id,
            reservation,
            model: request.asked.model.clone(),
            endpoint: request.asked.endpoint,
            outcome,
            salt: request.salt,
            request_commitment: request.request_commitment,
            response_commitment: whole.commitment(),
            price,
            started: request.started,
            parts: begun.into_iter().flat_map(|begun| begun.parts).chain(last).collect(),
            also_asked: std::mem::take(&mut self.also_asked),
        };
        self.search = None;
        self.found = None;
        self.hub.tasks.spawn(settle(settling));
    }

    fn has_delivered(&self) -> bool {
        self.begun.is_some() || self.attempt.as_ref().is_some_and(|attempt| attempt.delivered > 0)
    }

    /// Nobody takes the rest: what was delivered is billed, more is not made.
    fn cancel(&mut self) {
        if !self.has_delivered() {
            return self.finish();
        }
        if let Some(attempt) = &self.attempt {
            attempt.stream.cancel(attempt.delivered, CancelReason::Consumer);
        }
        self.hub.metrics.cancelled.add(1);
        self.settle(Outcome::Cancelled);
    }

    /// Nothing was delivered: no receipt, no posting.
    fn finish(&mut self) {
        self.is_over = true;
        self.attempt = None;
        self.rival = None;
        self.search = None;
        self.found = None;
        self.reservation = None;
        self.hub.close(self.request.id);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if !self.has_delivered() {
            self.hub.store.wasted(&self.request.consumer);
        }
        self.cancel();
    }
}
