//! The node as one network sees it: what is offered, what is admitted, and an answer with its record.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use idlewatt_control::{Event, RequestRow, RowOutcome};
use idlewatt_core::meter::Place;
use idlewatt_core::meter::Task;
use idlewatt_core::work::{Ask, Finished, Head, Piece};
use idlewatt_networks::host::{Answer, Host, NetworkReport, NotKept, Sleep};
use idlewatt_protocol::continuation::Prefix;
use idlewatt_protocol::message::{Endpoint, Outcome, Posted, RefusalCode, State};
use idlewatt_protocol::receipt::{Energy, Envelope, Statement, Timings};
use idlewatt_protocol::{Capabilities, Continuation, RequestId, ServiceOffer, UnixMillis, Usage};
use idlewatt_store::{Begun, Ended, StoreError};
use tokio::sync::watch;

use crate::answering::{End, Pieces, Question, Step};
use crate::clock;
use crate::deciding::for_networks;
use crate::metered::Metered;
use crate::money::row_with_money;
use crate::node::Node;
use crate::services::Known;
use crate::slots::For;

/// This node towards one network.
pub(crate) struct NetworkHost {
    pub(crate) node: Arc<Node>,
    pub(crate) network: String,
}

impl NetworkHost {
    fn kept<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.node.not_kept(&error);
                None
            }
        }
    }
}

#[async_trait]
impl Host for NetworkHost {
    fn offer(&self) -> Vec<ServiceOffer> {
        self.node.services.offer(self.node.config().settings())
    }

    fn state(&self) -> State {
        let offer = self.node.services.offer(self.node.config().settings());
        let free = offer.iter().map(|it| self.node.free_slots(&it.service, it.slots)).sum();
        for_networks(&self.node.standing.borrow(), free)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.node.changes.subscribe()
    }

    fn sleep(&self) -> watch::Receiver<Sleep> {
        self.node.sleep.subscribe()
    }

    async fn begin(&self, ask: Ask) -> Result<Box<dyn Answer>, RefusalCode> {
        let node = &self.node;
        let admits = || node.standing.borrow().decision.admits(ask.own);
        if !admits() {
            return Err(RefusalCode::Paused);
        }
        let offer =
            node.services.offer(node.config().settings()).into_iter().find(|it| it.service == ask.service);
        let offer = offer.filter(|it| answers(it.capabilities, ask.endpoint)).ok_or(RefusalCode::Service)?;
        if ask.prefix.is_some_and(|it| !goes_on(offer.capabilities, it)) {
            return Err(RefusalCode::Continuation);
        }
        let known = node.services.get(&ask.service).ok_or(RefusalCode::Service)?;
        let server = known.server.clone().ok_or(RefusalCode::Server)?;
        if ask.max_tokens > offer.context {
            return Err(RefusalCode::Context);
        }
        let whose = if ask.own { For::OwnDevice } else { For::Network };
        let slot = node.admit(&offer.service, offer.slots, whose)?;
        // A pause may have come between the first look and the slot; it took back only what was held then.
        if !admits() {
            return Err(RefusalCode::Paused);
        }
        let cold = tokio::select! {
            () = slot.taken_back().cancelled() => None,
            cold = node.asks(&known) => cold,
        };
        let cold = cold.ok_or(RefusalCode::Paused)?;
        node.cards.read_for_meter().await;
        let record = Record::begin(node, &self.network, &ask, &known, cold);
        let question = Question {
            request: ask.request,
            server,
            model: known.model,
            endpoint: ask.endpoint,
            body: ask.body,
            max_tokens: ask.max_tokens,
            ids: ask.ids,
            prefix: ask.prefix,
            deadlines: ask.deadlines,
        };
        let pieces = Some(Pieces::ask(question, slot, Arc::clone(&record.metered)));
        node.offer_changed();
        Ok(Box::new(Answering { record, pieces, end: None, usage: Usage::NONE }))
    }

    async fn sign(&self, statement: Statement) -> Result<Envelope, NotKept> {
        let identity = self.node.identity.borrow().clone();
        identity.ok_or(NotKept)?.signer.sign(&self.network, statement).await
    }

    async fn unsettled(&self, limit: usize) -> Vec<Envelope> {
        self.kept(self.node.store.unsettled(&self.network, limit).await).unwrap_or_default()
    }

    async fn posted(&self, posted: Posted) -> Result<(), NotKept> {
        let now = clock::now();
        let request = posted.request;
        let kept = self.node.store.posted(&self.network, posted, now.unix(), &now.day()).await;
        self.kept(kept).ok_or(NotKept)?;
        self.node.request_changed(request).await;
        Ok(())
    }

    async fn void(&self, request: RequestId) {
        if self.kept(self.node.store.void(&self.network, request, clock::now().unix()).await).is_some() {
            self.node.request_changed(request).await;
        }
    }

    async fn posted_through(&self) -> u64 {
        self.kept(self.node.store.posted_through(&self.network).await).unwrap_or(0)
    }

    fn report(&self, report: NetworkReport) {
        self.node.network_reported(&self.network, report);
    }
}

impl Node {
    /// Shows a request anew to those who look.
    async fn request_changed(&self, id: RequestId) {
        self.shown.notify_one();
        if self.events.receiver_count() == 0 {
            return;
        }
        if let Ok(Some(detail)) = self.store.request(id, clock::now().unix()).await {
            let row = row_with_money(detail.row, self.config().settings());
            self.tell(Event::Request(Box::new(row)));
        }
    }
}

pub(crate) fn answers(can: Capabilities, endpoint: Endpoint) -> bool {
    match endpoint {
        Endpoint::ChatCompletions => can.chat,
        Endpoint::Completions => can.completions,
        Endpoint::Embeddings => can.embeddings,
    }
}

fn goes_on(can: Capabilities, prefix: Prefix) -> bool {
    let needed = if prefix.ids == 0 { Continuation::Text } else { Continuation::Ids };
    can.continuation >= needed
}

/// What is kept of one request, from its first moment to its end.
struct Record {
    node: Arc<Node>,
    row: RequestRow,
    metered: Arc<Metered>,
    begun: Instant,
    first_piece: Option<Instant>,
    service: String,
    /// Its model had to be loaded first.
    cold: bool,
    closed: bool,
}

impl Record {
    fn begin(node: &Arc<Node>, network: &str, ask: &Ask, known: &Known, cold: bool) -> Self {
        let (now, artefact) = (clock::now(), &known.model.artefact);
        let row = RequestRow {
            id: ask.request,
            network: network.to_owned(),
            model: artefact.name(),
            artefact: artefact.clone(),
            started: now.unix(),
            ttft_ms: None,
            duration_ms: 0,
            tokens_in: 0,
            tokens_out: 0,
            outcome: RowOutcome::Running,
            own: ask.own,
            earned_ucr: None,
            energy: Energy::default(),
            cost: None,
            gross: None,
            net: None,
            segments: 1,
            receipt: None,
        };
        // Not waited for: the writer keeps the order, and an answer need not wait for a disk. One that refuses is heard
        // of by itself, and this request is taken back.
        drop(node.store.begin(Begun {
            id: row.id,
            network: row.network.clone(),
            model: row.model.clone(),
            artefact: row.artefact.clone(),
            own: row.own,
            received: row.started,
            day: now.day(),
            session: node.standing.borrow().session,
            gpu: match &known.place {
                Place::Cards(cards) if cards.len() == 1 => cards.first().cloned(),
                _ => None,
            },
        }));
        // What comes through a hub is shared work, the host's own devices' too: it is in the day's count.
        let task = Task { service: known.id.clone(), place: known.place.clone(), own: false };
        let metered = Metered::begin(&node.cards, ask.request, task, now.monotonic);
        node.tell(Event::Request(Box::new(row.clone())));
        Self {
            node: Arc::clone(node),
            row,
            metered,
            begun: now.monotonic,
            first_piece: None,
            service: known.id.clone(),
            cold,
            closed: false,
        }
    }

    fn progress(&mut self) {
        if self.first_piece.is_none() {
            let now = Instant::now();
            self.first_piece = Some(now);
            if self.cold {
                let took = now.saturating_duration_since(self.begun);
                if let Some(row) = self.node.services.took_to_load(&self.service, took) {
                    drop(self.node.store.put_service(row));
                }
            }
        }
    }

    /// Ends the record, once.
    fn end(&mut self, outcome: Outcome, usage: Usage, at: Instant, message: Option<String>) -> Finished {
        let since = |at: Instant| clock::millis(at.saturating_duration_since(self.begun));
        let timings = Timings { first_token_ms: self.first_piece.map(since), total_ms: since(at) };
        let energy = self.metered.end_unread(at);
        let moment = |ms: u32| UnixMillis(self.row.started.0 + i64::from(ms));
        if !self.closed {
            self.closed = true;
            let until = moment(timings.total_ms);
            let cost = energy.total_mj.and_then(|it| self.node.cost_of(it, self.row.started, until));
            let ended = Ended {
                id: self.row.id,
                outcome: row_outcome(outcome),
                started: Some(self.row.started),
                first_token: timings.first_token_ms.map(moment),
                ended: until,
                usage,
                energy,
                cost,
            };
            let (node, first) = (Arc::clone(&self.node), self.node.store.end(ended.clone()));
            tokio::spawn(async move { node.until_kept(first, || node.store.end(ended.clone())).await });
            self.row.ttft_ms = timings.first_token_ms;
            self.row.duration_ms = timings.total_ms;
            self.row.tokens_in = usage.prompt;
            self.row.tokens_out = usage.completion;
            self.row.outcome = row_outcome(outcome);
            self.row.energy = energy;
            self.node.tell(Event::Request(Box::new(self.row.clone())));
            self.node.asked(&self.service);
            self.node.offer_changed();
        }
        Finished {
            outcome,
            artefact: self.row.artefact.clone(),
            usage,
            started: self.row.started,
            timings,
            energy,
            message,
        }
    }
}

/// An answer on its way to a network.
struct Answering {
    record: Record,
    /// `None` once the connection to the server is closed.
    pieces: Option<Pieces>,
    end: Option<End>,
    /// Of the pieces handed out.
    usage: Usage,
}

impl Answering {
    async fn step(&mut self) -> Option<Step> {
        let step = self.pieces.as_mut()?.next().await;
        if let Some(Step::End(end)) = step {
            self.ended(end);
            return None;
        }
        step
    }

    fn ended(&mut self, end: End) {
        self.pieces = None;
        if end.server_lost {
            let node = &self.record.node;
            tracing::info!(request = %self.record.row.id, why = ?end.message, "the model server is in doubt");
            // Looked at now rather than at the next turn. Until then it stays on offer: one answer that broke off is no
            // reason to take back those that go on.
            node.look.notify_one();
        }
        self.end = Some(end);
    }

    fn close(&mut self, outcome: Option<Outcome>, usage: Usage) -> Finished {
        drop(self.pieces.take());
        let end = self.end.take();
        let own = end.as_ref().map_or(Outcome::Failed, |end| end.outcome);
        let at = end.as_ref().map_or_else(Instant::now, |end| end.at);
        self.record.end(outcome.unwrap_or(own), usage, at, end.and_then(|end| end.message))
    }
}

#[async_trait]
impl Answer for Answering {
    async fn head(&mut self) -> Result<Head, Finished> {
        match self.step().await {
            Some(Step::Head(head)) => Ok(head),
            _ => Err(self.close(None, Usage::NONE)),
        }
    }

    async fn next(&mut self) -> Option<Piece> {
        match self.step().await {
            Some(Step::Piece(piece)) => {
                self.usage = piece.usage;
                self.record.progress();
                Some(piece)
            }
            _ => None,
        }
    }

    async fn finish(mut self: Box<Self>, outcome: Option<Outcome>, usage: Usage) -> Finished {
        // The connection goes before the cards are read: what is read is what it cost.
        drop(self.pieces.take());
        self.record.metered.end(Instant::now()).await;
        self.close(outcome, usage)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.record.closed {
            // The network went without a word: its connection is lost, and so is what it would have done with this.
            let usage = self.usage;
            drop(self.close(Some(Outcome::Failed), usage));
        }
    }
}

fn row_outcome(outcome: Outcome) -> RowOutcome {
    match outcome {
        Outcome::Complete => RowOutcome::Complete,
        Outcome::Cancelled => RowOutcome::Cancelled,
        Outcome::Yielded => RowOutcome::Yielded,
        Outcome::Failed => RowOutcome::Failed,
    }
}
