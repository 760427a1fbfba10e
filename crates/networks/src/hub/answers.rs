//! The session of one membership with its answers: both outlive every connection.

use std::collections::HashMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use idlewatt_core::Now;
use idlewatt_core::session::{Effect, Session};
use idlewatt_protocol::receipt::{Envelope, Statement};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::answer::{self, News, Order};
use crate::host::SharedHost;

/// Pieces of all answers that may wait for the session's task.
const NEWS: usize = 64;
/// Statements of earlier sessions that are sent again in one session.
const UNSETTLED: usize = 4096;
/// How long a stop waits for the last statements.
pub(super) const GOODBYE: Duration = Duration::from_secs(2);

/// The answers under way, and the session that knows how far each has come.
pub(super) struct Answers {
    pub(super) host: SharedHost,
    pub(super) session: Session,
    orders: HashMap<u32, watch::Sender<Order>>,
    news: mpsc::Sender<(u32, News)>,
    pub(super) told: mpsc::Receiver<(u32, News)>,
    /// One message for each of `signing`.
    signed: mpsc::UnboundedSender<Vec<Envelope>>,
    pub(super) envelopes: mpsc::UnboundedReceiver<Vec<Envelope>>,
    /// Tasks that bring statements.
    signing: usize,
}

impl Answers {
    pub(super) fn new(host: SharedHost, session: Session) -> Self {
        let (news, told) = mpsc::channel(NEWS);
        let (signed, envelopes) = mpsc::unbounded_channel();
        Self { host, session, orders: HashMap::new(), news, told, signed, envelopes, signing: 0 }
    }

    /// Whether nothing is left to end and to state.
    pub(super) fn are_done(&self) -> bool {
        self.session.streams() == 0 && self.signing == 0
    }

    /// Waits for work that needs no connection, while the answers go on.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            self.act();
            tokio::select! {
                done = &mut work => return done,
                () = self.step() => {}
            }
        }
    }

    /// Ends what runs, and waits a moment for its statements: they are kept for the next time.
    pub(super) async fn leave(&mut self) {
        self.session.lost(Instant::now());
        self.session.give_up();
        let done = async {
            self.act();
            while !self.are_done() {
                self.step().await;
                self.act();
            }
        };
        // Whoever is not done by then is let go without a word: its statement is lost with it.
        let _ = timeout(GOODBYE, done).await;
    }

    /// Waits until the answers, their statements or the time have brought something, and tells the session. Cancel-safe.
    pub(super) async fn step(&mut self) {
        tokio::select! {
            Some((stream, what)) = self.told.recv() => self.hear(stream, what),
            Some(batch) = self.envelopes.recv() => self.bring(batch),
            () = until(&self.session) => self.session.time(&now()),
        }
    }

    /// Does what the session asks for without a connection.
    fn act(&mut self) {
        while let Some(effect) = self.session.next_effect() {
            drop(self.take(effect));
        }
    }

    /// Does what concerns the answers; gives back what concerns the connection.
    pub(super) fn take(&mut self, effect: Effect) -> Option<Effect> {
        match effect {
            Effect::Begin { stream, ask, through } => {
                let (order, orders) = watch::channel(Order { through, finish: None });
                self.orders.insert(stream, order);
                let (host, news) = (self.host.clone(), self.news.clone());
                tokio::spawn(answer::drive(host, ask, stream, orders, news));
            }
            Effect::Allow { stream, through } => self.order(stream, |order| order.through = through),
            Effect::Finish { stream, outcome, usage } => {
                self.order(stream, |order| order.finish = Some((outcome, usage)));
            }
            Effect::Sign(statement) => self.sign(*statement),
            other => return Some(other),
        }
        None
    }

    fn order(&self, stream: u32, change: impl FnOnce(&mut Order)) {
        if let Some(order) = self.orders.get(&stream) {
            order.send_modify(change);
        }
    }

    pub(super) fn hear(&mut self, stream: u32, what: News) {
        match what {
            News::Head(head) => self.session.head(stream, head),
            News::Piece(piece) => self.session.piece(stream, piece, Instant::now()),
            News::Ended => self.session.ended(stream, Instant::now()),
            News::Refused(code) => {
                self.orders.remove(&stream);
                self.session.refused(stream, code);
            }
            News::Finished(finished) => {
                self.orders.remove(&stream);
                self.session.finished(stream, *finished, Instant::now());
            }
        }
    }

    /// In a task of its own, so that a statement is kept even when this is let go meanwhile.
    fn sign(&mut self, statement: Statement) {
        self.signing += 1;
        let (host, signed) = (self.host.clone(), self.signed.clone());
        tokio::spawn(async move {
            let request = statement.request;
            let envelope = host
                .sign(statement)
                .await
                .inspect_err(|error| tracing::error!(%request, %error, "a statement is lost"))
                .ok();
            let envelope = envelope.into_iter().collect();
            // Without a connection it is sent from the outbox in the next session.
            let _ = signed.send(envelope);
        });
    }

    pub(super) fn send_unsettled(&mut self) {
        let (host, signed) = (self.host.clone(), self.signed.clone());
        self.signing += 1;
        tokio::spawn(async move {
            let _ = signed.send(host.unsettled(UNSETTLED).await);
        });
    }

    pub(super) fn bring(&mut self, mut batch: Vec<Envelope>) {
        self.signing -= 1;
        while let Ok(more) = self.envelopes.try_recv() {
            self.signing -= 1;
            batch.extend(more);
        }
        self.session.signed(batch);
    }
}

/// The session's next moment.
pub(super) async fn until(session: &Session) {
    match session.wakeup() {
        Some(wakeup) => tokio::time::sleep_until(tokio::time::Instant::from_std(wakeup.at)).await,
        None => std::future::pending().await,
    }
}

pub(super) fn now() -> Now {
    Now { monotonic: Instant::now(), wall: jiff::Timestamp::now(), zone: jiff::tz::TimeZone::UTC }
}
